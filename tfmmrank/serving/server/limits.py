"""What a server takes on at most, and the gate that closes when it shuts down."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tfmmrank.export.request_error import RequestError


@dataclass(frozen=True)
class Limits:
    """What is refused; None: nothing, as in TensorFlow Serving.

    Attributes:
        message_bytes: longest message, in bytes; None: what protobuf can, 2 GB.
        candidates: most items to score in one request, over all its lists: B × L of each of a Predict request's
            inputs, B where it has one axis alone; N of a Classify or Regress request. An axis of 0 counts as 1. What
            serialized lists (``predict_elwc``) hold is bound by ``message_bytes`` alone.
        concurrent_requests: most requests for a model in the server at once, over gRPC those that wait for a worker
            included. More are refused on arrival with RESOURCE_EXHAUSTED.

    Raises:
        ValueError: for a limit below 1.
    """

    message_bytes: int | None = None
    candidates: int | None = None
    concurrent_requests: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ValueError(f"limit {name} is {value}; expected at least 1, or None for no limit")

    def check_inputs(self, inputs: Any) -> None:
        """Refuses a Predict request's inputs by their declared shapes, before a value of them is read."""
        if self.candidates is None:
            return
        for name, tensor in inputs.items():
            sizes = [max(dim.size, 1) for dim in tensor.tensor_shape.dim[:2]]
            self.check_candidates(math.prod(sizes), f'input "{name}"')

    def check_candidates(self, count: int, what: str) -> None:
        """Raises RequestError for more candidates than the limit."""
        if self.candidates is not None and count > self.candidates:
            raise RequestError(
                "INVALID_ARGUMENT", f"{what} has {count} candidates; this server's limit is {self.candidates} a request"
            )


class Gate:
    """Counts the requests in the server, never makes one wait, and lets none in once it is closed.

    Args:
        limit: most requests inside at once; None: any number.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit, self._inside, self._closed = limit, 0, False
        self._changed = threading.Condition()

    @property
    def inside(self) -> int:
        """How many requests are in the server."""
        return self._inside

    @property
    def closed(self) -> bool:
        """Whether no more requests come in."""
        return self._closed

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """A request's time in the server.

        Raises:
            RequestError: RESOURCE_EXHAUSTED when there are too many, UNAVAILABLE when the gate is closed.
        """
        with self._changed:
            if self._closed:
                raise RequestError("UNAVAILABLE", "the server is shutting down")
            if self._limit is not None and self._inside >= self._limit:
                raise too_many(self._limit)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    self._changed.notify_all()

    def close(self) -> None:
        """Lets no more requests in."""
        with self._changed:
            self._closed = True

    def wait_empty(self, timeout: float | None = None) -> bool:
        """Waits until all requests have left; returns whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._inside, timeout)


def too_many(limit: int) -> RequestError:
    """What is said to a request beyond ``concurrent_requests``."""
    return RequestError("RESOURCE_EXHAUSTED", f"the server answers {limit} requests at once already")
