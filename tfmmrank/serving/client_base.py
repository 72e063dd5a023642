"""What the two clients have in common: whom they ask, and how."""

from __future__ import annotations

from typing import Any

from tfmmrank.serving.dialogue import Dialogue
from tfmmrank.serving.questions import Target
from tfmmrank.serving.transport import Attempts, Deadline, Retry, Tls, open_channel

DEFAULT_RETRY = Retry()


class ClientBase:
    """Keeps one channel, and what is known of the model.

    Args:
        address: ``host:port`` of the server's gRPC port.
        model: the model's name.
        timeout: seconds in which a call must be answered, all its requests and retries included; calls may name their
            own.
        version: default: whichever the server serves as the latest.
        label: instead of a version: the one that the server gives this label.
        tls: for an encrypted connection.
        max_candidates: longer lists are asked for in parts, where the model has no list context.
        in_flight: how many parts are asked for at once, at most.
        retry: how to ask again a server that is not there; None: not at all.
        keepalive: seconds of silence after which a connection with requests under way is tried; None: never. TensorFlow
            Serving disconnects a client that tries often (gRPC's ``too_many_pings``).

    Raises:
        ValueError: for both a version and a label, or a number below 1.
    """

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
