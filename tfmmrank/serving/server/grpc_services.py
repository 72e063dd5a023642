"""gRPC over a ``ServerCore``: PredictionService, ModelService and health."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NoReturn

import grpc

from tfmmrank.export.request_error import RequestError
from tfmmrank.serving.server.core import ServerCore
from tfmmrank.serving.server.limits import too_many
from tfmmrank.serving.server.tls import ServerTls, with_port

_log = logging.getLogger("tfmmrank.serving")
_MESSAGE_LIMIT = 1024  # bytes; TF Serving cuts longer ones
_ATTENDANTS = 4  # threads for all but models' runs: health, status, reloads, refusals


class GrpcServer:
    """Answers over gRPC.

    Its port is taken when it is made, and clients wait there until it is started.

    Args:
        core: answers the requests.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.
        workers: requests for a model answered at once; more wait. Others are answered beside them.
        tls: certificate and key; None: in the clear.
        health: whether to answer ``grpc.health.v1.Health``.

    Attributes:
        address: ``host:port``.

    Raises:
        OSError: when the port is taken.
        ValueError: when gRPC cannot use the certificate.
    """

    def __init__(
        self,
        core: ServerCore,
        host: str,
        port: int,
        workers: int = 8,
        tls: ServerTls | None = None,
        health: bool = True,
    ) -> None:
        self._workers = _Workers(workers)
        limit = core.limits.concurrent_requests
        admission = () if limit is None else (_Admission(core, self._workers, limit),)
        self._grpc = grpc.server(
            futures.ThreadPoolExecutor(_ATTENDANTS, "attend"),
            interceptors=(*admission, _Parsing()),
            options=_options(core.limits.message_bytes),
        )
        self.address = self._listen(host, port, tls)
        self._health = self._add_health() if health else None
        _add_services(self._grpc, core, self._workers)

    def start(self) -> None:
        """Begins to answer."""
        self._grpc.start()
        if self._health is not None:
            from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

            self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def enter_drain(self) -> None:
        """Tells those who ask for its health that the server goes; it still answers."""
        if self._health is not None:
            self._health.enter_graceful_shutdown()

    def stop(self, grace: float | None) -> None:
        """Takes no new requests, and breaks off those that run for longer than ``grace`` seconds."""
        self._grpc.stop(grace).wait()
        self._workers.shutdown(wait=False)

    def _listen(self, host: str, port: int, tls: ServerTls | None) -> str:
        place = with_port(host, port)
        try:
            bound = (
                self._grpc.add_insecure_port(place)
                if tls is None
                else self._grpc.add_secure_port(place, tls.credentials())
            )
        except RuntimeError as error:
            raise OSError(f"cannot listen on {place}: is another server there, or no such address here?") from error
        return with_port(host, bound)

    def _add_health(self) -> Any:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

        servicer = health.HealthServicer(experimental_non_blocking=True)  # or each watcher would keep a worker
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._grpc)
        return servicer


class _Workers(futures.ThreadPoolExecutor):
    """The threads that run models. Counts what waits for one or has one; a call that its client gave up counts, too."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, "serve")
        self.pending = 0
        self._counting = threading.Lock()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        with self._counting:
            self.pending += 1
        future = super().submit(call, *args, **kwargs)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Any) -> None:
        with self._counting:
            self.pending -= 1


class _Admission(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses what comes beyond the limit, on arrival and unread.

    gRPC's own bound would refuse health checks as well, and no metric would tell of it.
    """

    def __init__(self, core: ServerCore, workers: _Workers, limit: int) -> None:
        self._core, self._workers, self._limit = core, workers, limit

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        run = getattr(handler, "unary_unary", None)
        if getattr(run, "experimental_thread_pool", None) is not self._workers or self._workers.pending < self._limit:
            return handler
        # A method that takes a stream does not wait for its client's message.
        refusal = _inference(details.method.rpartition("/")[2], self._core, self._refuse)
        return grpc.stream_unary_rpc_method_handler(functools.partial(refusal, None))

    def _refuse(self, *_: Any) -> NoReturn:
        raise too_many(self._limit)


class _Parsing(grpc.ServerInterceptor):  # type: ignore[misc]
    """Parses requests where they are answered.

    Of what it cannot parse itself, gRPC 1.85 keeps some 13 KB for good: it ends such a call twice, and waits for the
    second end to be sent.
    """

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        for kind in ("unary_unary", "unary_stream"):
            answer = getattr(handler, kind, None)
            if answer is not None:
                parsing = _parsing(handler.request_deserializer, answer)
                return handler._replace(request_deserializer=None, **{kind: parsing})
        return handler


def _parsing(parse: Callable[[bytes], Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(answer)  # with the attributes that gRPC looks for
    def handle(message: bytes, context: Any, *more: Any) -> Any:
        try:
            request = parse(message)
        except Exception:  # protobuf's implementations raise different ones
            context.abort(grpc.StatusCode.INTERNAL, "the message is none of this method's, or is damaged")
        return answer(request, context, *more)

    return handle


def _options(message_bytes: int | None) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", -1 if message_bytes is None else message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # or two servers would share a port, each answering some of the requests
    ]


def _add_services(grpc_server: Any, core: ServerCore, workers: _Workers) -> None:
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    def run_by_workers(api: str, answer: Callable[[Any, float | None], Any]) -> Any:
        method = _inference(api, core, answer)
        method.experimental_thread_pool = workers  # gRPC looks for this name; its health service has it, too
        return method

    class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
        Predict = run_by_workers("Predict", core.predict)
        Classify = run_by_workers("Classify", core.classify)
        Regress = run_by_workers("Regress", core.regress)
        MultiInference = run_by_workers("MultiInference", core.multi_inference)
        GetModelMetadata = _inquiry("GetModelMetadata", core.metadata)

    class ModelService(model_service_pb2_grpc.ModelServiceServicer):
        GetModelStatus = _inquiry("GetModelStatus", core.status)
        HandleReloadConfigRequest = _inquiry("HandleReloadConfigRequest", core.reload)

    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(), grpc_server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(), grpc_server)


def _inference(api: str, core: ServerCore, answer: Callable[[Any, float | None], Any]) -> Any:
    """A method that runs a model, within its client's deadline: what waited too long for a worker is not run."""

    def handle(_: Any, request: Any, context: Any) -> Any:
        began, status = time.perf_counter(), "OK"
        try:
            if not context.is_active():
                raise RequestError("CANCELLED", "the client has gone")
            return _answer(api, lambda: answer(request, context.time_remaining()))
        except RequestError as error:
            status = error.code
            _abort(context, error)
        finally:
            if core.metrics is not None:
                seconds = time.perf_counter() - began
                core.metrics.observe_request(api, "GRPC", _model_of(core, request), status, seconds)

    return handle


def _inquiry(api: str, answer: Callable[[Any], Any]) -> Any:
    """A method that tells or sets what is served. Metrics leave it out, as in TF Serving: probes are no requests."""

    def handle(_: Any, request: Any, context: Any) -> Any:
        try:
            return _answer(api, lambda: answer(request))
        except RequestError as error:
            _abort(context, error)

    return handle


def _answer(api: str, answer: Callable[[], Any]) -> Any:
    try:
        return answer()
    except RequestError:
        raise
    except Exception as error:  # a fault of ours: told here, and to the client without our insides
        _log.exception("%s failed", api)
        raise RequestError("INTERNAL", f"{api} failed inside the server; its log says why") from error


def _abort(context: Any, error: RequestError) -> NoReturn:
    message = str(error).encode("utf-8")[:_MESSAGE_LIMIT].decode("utf-8", "ignore")
    context.abort(getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNKNOWN), message)
    raise AssertionError("abort raises")


def _model_of(core: ServerCore, request: Any) -> str:
    """The model's name, if it is one: what clients make up must not become as many series of metrics.

    A request that was refused unread is taken to be for the only model, where there is one.
    """
    models = core.manager.models()
    if not hasattr(request, "DESCRIPTOR"):
        return next(iter(models)) if len(models) == 1 else ""
    tasks = getattr(request, "tasks", None)
    spec = tasks[0].model_spec if tasks else getattr(request, "model_spec", None)
    return spec.name if spec is not None and spec.name in models else ""
