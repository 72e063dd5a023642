"""The embedded server: TensorFlow Serving's gRPC protocol from Python, so that all runs on a laptop.

Production is stock TensorFlow Serving on the same folder; clients cannot tell them apart.
"""

from __future__ import annotations

import signal
import threading
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

import grpc

from tfmmrank.export.servable import DEFAULT_SIGNATURE, RequestError, Servable
from tfmmrank.export.versions import find_version
from tfmmrank.export.warmup import replay_warmup
from tfmmrank.serving.tensors import read_tensor, write_tensor

_MESSAGE_LIMIT = 1024  # TF Serving cuts longer ones
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # as TF Serving: up to protobuf's own 2 GB
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # or two servers would share a port, each answering some of the requests
]


class Server:
    """A running server; ``serve`` makes one. Leaving a ``with`` block stops it.

    Attributes:
        address: ``host:port``, for a client.
        name: the model's name.
        version: the version served.
    """

    def __init__(self, grpc_server: Any, address: str, servable: Servable, name: str, version: int) -> None:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
        from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

        self.address, self.name, self.version = address, name, version
        self._grpc, self._servable = grpc_server, servable
        self._states = ModelVersionStatus
        self.state = ModelVersionStatus.AVAILABLE
        self._stopped = threading.Event()
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_prediction_service(self), grpc_server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_model_service(self), grpc_server)
        grpc_server.start()

    def stop(self, grace: float | None = 5.0) -> None:
        """Takes no new requests, waits up to ``grace`` seconds for those that run, and frees the model."""
        if self._stopped.is_set():
            return
        self.state = self._states.UNLOADING
        self._grpc.stop(grace).wait()
        self._servable.close()
        self._stopped.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the server is stopped; returns whether it is."""
        return self._stopped.wait(timeout)

    def run(self, grace: float = 10.0) -> None:
        """Serves until SIGTERM or SIGINT, then lets the requests that run finish. Call it from the main thread."""
        asked = threading.Event()
        before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            # A wait without a timeout would keep Python from running the handler on some platforms.
            while not asked.wait(0.5) and not self._stopped.is_set():
                pass
            self.stop(grace)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what TF Serving's server core does ---------------------------------------------------------------------------

    def predict(self, request: Any, response: Any, timeout: float | None) -> None:
        """Answers a PredictRequest. Raises RequestError."""
        self._find(request)
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        inputs = {}
        for name, tensor in request.inputs.items():
            try:
                inputs[name] = read_tensor(tensor)
            except ValueError as error:
                raise RequestError("INVALID_ARGUMENT", f"tensor parsing error: {name}: {error}") from error
        for name, value in self._servable.run(signature, inputs, request.output_filter, timeout).items():
            write_tensor(response.outputs[name], value)
        self._fill_spec(response.model_spec)
        response.model_spec.signature_name = signature

    def metadata(self, request: Any, response: Any) -> None:
        """Answers a GetModelMetadataRequest. Raises RequestError."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        if not request.metadata_field:
            raise RequestError("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise RequestError("INVALID_ARGUMENT", f"Metadata field {field} is not supported")
        self._find(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self._servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        self._fill_spec(response.model_spec)

    def status(self, request: Any, response: Any) -> None:
        """Answers a GetModelStatusRequest; labels are ignored, as in TF Serving. Raises RequestError."""
        if not request.HasField("model_spec"):
            raise RequestError("INVALID_ARGUMENT", "Missing ModelSpec")
        spec = request.model_spec
        if spec.name != self.name:
            raise RequestError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        if spec.HasField("version") and spec.version.value != self.version:
            raise RequestError("NOT_FOUND", f"Could not find version {spec.version.value} of model {spec.name}")
        response.model_version_status.add(version=self.version, state=self.state).status.SetInParent()

    def _find(self, request: Any) -> None:
        """Whether the request's model is ours."""
        if not request.HasField("model_spec"):
            raise RequestError("INVALID_ARGUMENT", "Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise RequestError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        if spec.HasField("version_label"):
            raise RequestError("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
        if spec.HasField("version") and (spec.name != self.name or spec.version.value != self.version):
            raise RequestError(
                "NOT_FOUND", f"Servable not found for request: Specific({spec.name}, {spec.version.value})"
            )
        if spec.name != self.name:
            raise RequestError("NOT_FOUND", f"Servable not found for request: Latest({spec.name})")

    def _fill_spec(self, spec: Any) -> None:
        spec.name = self.name
        spec.version.value = self.version


def serve(
    model_dir: str | Path,
    host: str = "127.0.0.1",
    port: int = 8500,
    name: str | None = None,
    workers: int = 8,
    version: int | None = None,
) -> Server:
    """Loads a model, replays its warm-up requests and starts to serve it over gRPC.

    The server answers Predict and GetModelMetadata (PredictionService) and GetModelStatus (ModelService).

    Args:
        model_dir: the model's folder, with versions in it.
        host: address to listen on; the default serves this machine alone.
        port: port to listen on; 0 picks a free one, see ``Server.address``.
        name: the model's name for clients; default: the folder's.
        workers: requests answered at once.
        version: default: the latest.

    Raises:
        FileNotFoundError: when there is no such version.
        OSError: when the port is taken, or the SavedModel cannot be read.
        RequestError: when a warm-up request fails.

    Example:
        >>> with serve("models/shop", port=0) as server:
        ...     ranked = Client(server.address, "shop").rank("red shoes", ["i1", "i2"])
    """
    directory = find_version(model_dir, version)
    grpc_server = grpc.server(futures.ThreadPoolExecutor(workers, "serve"), options=_OPTIONS)
    address = _listen(grpc_server, host, port)  # before the model is loaded, which takes long
    try:
        servable = Servable(directory)
        try:
            replay_warmup(servable)
        except RequestError:
            servable.close()
            raise
    except BaseException:
        grpc_server.stop(None)  # or the port would stay taken
        raise
    return Server(grpc_server, address, servable, name or Path(model_dir).resolve().name, int(directory.name))


def _listen(grpc_server: Any, host: str, port: int) -> str:
    """Takes a port; clients wait there until the server starts."""
    try:
        bound = grpc_server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port}: is another server there, or no such address here?") from error
    return f"{host}:{bound}"


def _abort(context: Any, error: RequestError) -> NoReturn:
    context.abort(getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNKNOWN), str(error)[:_MESSAGE_LIMIT])
    raise AssertionError("abort raises")


def _prediction_service(server: Server) -> Any:
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

    class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            response = predict_pb2.PredictResponse()
            try:
                server.predict(request, response, context.time_remaining())
            except RequestError as error:
                _abort(context, error)
            return response

        def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            try:
                server.metadata(request, response)
            except RequestError as error:
                _abort(context, error)
            return response

    return PredictionService()


def _model_service(server: Server) -> Any:
    from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

    class ModelService(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
            response = get_model_status_pb2.GetModelStatusResponse()
            try:
                server.status(request, response)
            except RequestError as error:
                _abort(context, error)
            return response

    return ModelService()
