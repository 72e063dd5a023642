"""What the two clients have in common: whom they ask, and how."""

from __future__ import annotations

from typing import Any

from tfmmrank.serving.client.dialogue import Dialogue
from tfmmrank.serving.client.questions import Target
from tfmmrank.serving.client.transport import Attempts, Deadline, Retry, Tls, open_channel

DEFAULT_RETRY = Retry()


class ClientBase:
    """Keeps one channel, and what is known of the model. The arguments are explained at ``Client``."""

    _grpc: Any  # grpc, or grpc.aio

    def __init__(
        self,
        address: str,
        model: str,
        timeout: float = 5.0,
        version: int | None = None,
        *,
        label: str | None = None,
        tls: Tls | None = None,
        max_candidates: int = 1000,
        in_flight: int = 4,
        retry: Retry | None = DEFAULT_RETRY,
        keepalive: float | None = 30.0,
    ) -> None:
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; expected at least 1")
        self.address, self.model, self.timeout, self.version, self.label = address, model, timeout, version, label
        self._dialogue = Dialogue(Target(model, version, label), max_candidates)
        self._in_flight, self._retry = in_flight, retry
        self._channel = open_channel(self._grpc, address, tls, keepalive)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self.timeout if timeout is None else timeout)

    def _attempts(self, deadline: Deadline) -> Attempts:
        return Attempts(f'{self.address}, model "{self.model}"', deadline, self._retry)
