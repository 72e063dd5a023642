"""What an operator asks of a running model server: which versions it has, and to take another list of models.

Needs no TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import grpc

from tfmmrank.serving.client.transport import Tls, open_channel
from tfmmrank.serving.protocol import wire

AVAILABLE, END = 30, 50  # ModelVersionStatus.State
_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", AVAILABLE: "AVAILABLE", 40: "UNLOADING", END: "END"}
_NOT_FOUND = 5  # StatusProto.error_code


class ModelServiceError(RuntimeError):
    """The server did not answer, refused, or did not bring a version up."""


class VersionStatus(NamedTuple):
    """A version's state, and why it failed if it did."""

    state: int
    error: str


class ModelService:
    """A model server's ModelService: the embedded server's or TensorFlow Serving's.

    Args:
        address: ``host:port`` of its gRPC port.
        timeout: seconds for one call; a reload may wait until models that are new to the server are loaded.
        pause: seconds between two looks at a version that is coming up.
        tls: for an encrypted connection.
    """

    def __init__(self, address: str, timeout: float = 60.0, pause: float = 0.5, tls: Tls | None = None) -> None:
        self.address, self.timeout, self.pause = address, timeout, pause
        self._channel = open_channel(grpc, address, tls, keepalive=None)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> ModelService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reload(self, config: Any) -> None:
        """Gives the server a ModelServerConfig, which replaces its list of models.

        Raises:
            ModelServiceError: when it refuses.
        """
        request = wire.ReloadConfigRequest(config=config.SerializeToString())
        response = self._call(wire.RELOAD, request, wire.ReloadConfigResponse.FromString)
        if response.status.error_code:
            raise ModelServiceError(f"{self.address}: refuses the configuration: {response.status.error_message}")

    def versions(self, model: str) -> dict[int, VersionStatus]:
        """The versions of a model that the server has or had; none where it does not know the model.

        Raises:
            ModelServiceError: when it does not answer.
        """
        request = wire.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            response = self._call(wire.STATUS, request, wire.GetModelStatusResponse.FromString)
        except _NotFoundError:
            return {}
        return {
            status.version: VersionStatus(status.state, status.status.error_message if status.status.error_code else "")
            for status in response.model_version_status
        }

    def wait_available(
        self, model: str, versions: Collection[int], seconds: float, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """Waits until all of the versions are AVAILABLE.

        Args:
            model: the model's name.
            versions: what to wait for.
            seconds: how long at most.
            tell: called with what is waited for, whenever that changes.

        Raises:
            ModelServiceError: when one fails to load, or is not there in time.
        """
        deadline, told = time.monotonic() + seconds, ""
        while True:
            known = self.versions(model)
            waiting = [version for version in sorted(versions) if known.get(version, _UNSEEN).state != AVAILABLE]
            if not waiting:
                return
            for version in waiting:
                if known.get(version, _UNSEEN).error:
                    raise ModelServiceError(
                        f'{self.address}: version {version} of "{model}" does not load: {known[version].error}'
                    )
            states = ", ".join(f"{version} ({_state(known.get(version))})" for version in waiting)
            if time.monotonic() >= deadline:
                raise ModelServiceError(
                    f'{self.address}: after {seconds:g} s these versions of "{model}" are not AVAILABLE: {states}; the '
                    "server's log tells why"
                )
            if states != told:
                tell(f'waiting for "{model}": {states}')
                told = states
            time.sleep(self.pause)

    def _call(self, method: str, request: Any, parse: Callable[[bytes], Any]) -> Any:
        call = self._channel.unary_unary(
            method, request_serializer=lambda message: message.SerializeToString(), response_deserializer=parse
        )
        try:
            return call(request, timeout=self.timeout)
        except grpc.RpcError as error:
            kind = _NotFoundError if error.code().value[0] == _NOT_FOUND else ModelServiceError
            raise kind(f"{self.address}: {error.details()} [{error.code().name}]") from error


class _NotFoundError(ModelServiceError):
    """The server knows no such model."""


_UNSEEN = VersionStatus(0, "")


def _state(status: VersionStatus | None) -> str:
    if status is None:
        return "the server has not found it: is its folder there?"
    return _STATES.get(status.state, str(status.state))
