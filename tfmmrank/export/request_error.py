"""What a request is refused with, on its own so that it can be had without TensorFlow."""

from __future__ import annotations


class RequestError(ValueError):
    """A request that a model cannot answer.

    Attributes:
        code: gRPC's status name, such as ``INVALID_ARGUMENT``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
