"""The embedded server: TensorFlow Serving's protocol from Python, so that all runs on a laptop.

Production is stock TensorFlow Serving on the same folder; clients cannot tell them apart.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfmmrank.export.graph_loading import Way
from tfmmrank.export.versions import find_version
from tfmmrank.serving.monitoring.request_log import RequestLog
from tfmmrank.serving.server.batcher import Batcher, Batching
from tfmmrank.serving.server.config_poller import ConfigPoller
from tfmmrank.serving.server.core import ServerCore
from tfmmrank.serving.server.grpc_services import GrpcServer
from tfmmrank.serving.server.limits import Limits
from tfmmrank.serving.server.loaded_version import load_warm
from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import ModelConfig, VersionPolicy, read_models
from tfmmrank.serving.server.result_cache import CachedRuns, ResultCache
from tfmmrank.serving.server.tls import ServerTls, warn_if_open

_log = logging.getLogger("tfmmrank.serving")


class Server:
    """A running server; ``serve`` makes one. Leaving a ``with`` block stops it.

    Attributes:
        address: ``host:port`` of gRPC, for a client.
        rest_address: ``host:port`` of the REST API; None without one.
        core: what answers the requests, whatever they came by.
        metrics: the ``ServingMetrics`` given, or None.
    """

    def __init__(
        self, core: ServerCore, grpc_server: GrpcServer, rest: Any | None, closing: contextlib.ExitStack
    ) -> None:
        self.core, self.metrics = core, core.metrics
        self.address = grpc_server.address
        self.rest_address: str | None = None if rest is None else rest.address
        self._grpc, self._rest, self._closing = grpc_server, rest, closing
        self._stopped = threading.Event()

    @property
    def name(self) -> str:
        """The model's name; the first one's of several."""
        return next(iter(self.core.manager.models()), "")

    @property
    def version(self) -> int | None:
        """That model's latest version that is AVAILABLE."""
        states = self.core.manager.states(self.name)
        return next((state.version for state in states if state.state == "AVAILABLE"), None)

    def stop(self, grace: float | None = 5.0) -> None:
        """Stops: refuses new requests, waits up to ``grace`` seconds for those that run, and frees the models.

        Health goes NOT_SERVING first, so that a balancer looks elsewhere; a request that comes all the same is
        refused with UNAVAILABLE, which clients may try elsewhere.
        """
        if self._stopped.is_set():
            return
        end = time.monotonic() + (grace or 0.0)
        self._grpc.enter_drain()
        self.core.gate.close()
        self.core.gate.wait_empty(grace or 0.0)
        if self._rest is not None:
            self._rest.stop(max(0.0, end - time.monotonic()))
        self._grpc.stop(max(0.0, end - time.monotonic()))
        self._closing.close()
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
            _log.info("stopping: no new requests; those that run get %g s", grace)
            self.stop(grace)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(
    model_dir: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8500,
    name: str | None = None,
    workers: int = 8,
    version: int | None = None,
    *,
    models: str | Path | Mapping[str, ModelConfig] | None = None,
    rest_port: int | None = None,
    poll_seconds: float = 1.0,
    config_poll_seconds: float = 0.0,
    allow_labels_for_unavailable: bool = False,
    allow_reload_from: Sequence[str | Path] = (),
    batching: Batching | None = None,
    tls: ServerTls | None = None,
    limits: Limits | None = None,
    metrics: Any | None = None,
    metrics_path: str | None = None,
    result_cache: ResultCache | None = None,
    request_log: RequestLog | None = None,
    health: bool = True,
) -> Server:
    """Loads models, replays their warm-up requests and starts to serve them.

    It answers over gRPC what TensorFlow Serving does: PredictionService, ModelService and health; and over REST, with
    ``rest_port``. A version that is written into a model's folder later is loaded and warmed before the old one goes.

    Args:
        model_dir: a model's folder, with versions in it; or else ``models``.
        host: address to listen on; the default serves this machine alone.
        port: gRPC port; 0 picks a free one, see ``Server.address``.
        name: the model's name for clients; default: the folder's.
        workers: requests answered at once.
        version: serve this one; default: the latest.
        models: a ``models.config``, or what it holds by name: several models, version policies, labels.
        rest_port: port of the REST API; 0 picks a free one, None: no REST API.
        poll_seconds: how often folders are looked into for versions; 0: only now.
        config_poll_seconds: how often the ``models.config`` is read again; 0: only now.
        allow_labels_for_unavailable: whether a label may name a version before it is AVAILABLE.
        allow_reload_from: folders that a reload request may take models from, beside those of the models.
        batching: how requests are run together; default: each alone.
        tls: certificate and key; default: in the clear.
        limits: what is refused; default: nothing.
        metrics: a ``ServingMetrics`` that is told of requests and models, and shown by the REST API.
        metrics_path: where; default: TensorFlow Serving's ``/monitoring/prometheus/metrics``.
        result_cache: keeps answers to frequent requests, by version; closed with the server. Default: none is kept.
        request_log: keeps a sample of requests; closed with the server. Default: none is kept.
        health: whether to answer ``grpc.health.v1.Health``.

    Raises:
        FileNotFoundError: when there is no such version.
        OSError: when a port is taken, or a SavedModel cannot be read.
        RequestError: when a warm-up request fails, or a label names a version that is not AVAILABLE.
        ValueError: for arguments or a config that cannot be.

    Example:
        >>> with serve("models/shop", port=0) as server:
        ...     ranked = Client(server.address, "shop").rank("red shoes", ["i1", "i2"])
    """
    chosen = _models(model_dir, name, version, models)
    with contextlib.ExitStack() as undo:  # of what is begun here, when something fails
        closing = undo.enter_context(contextlib.ExitStack())
        load: Callable[[Path, Way], Any] = load_warm
        if batching is not None:
            batcher = Batcher(batching)
            closing.callback(batcher.close)
            load = lambda directory, way: batcher.wrap(load_warm(directory, way))  # noqa: E731
        manager = ModelManager(load, poll_seconds, allow_labels_for_unavailable)
        closing.callback(manager.close, timeout=0.1)  # the grace is over by then
        roots = [*map(Path, allow_reload_from), *(model.base_path for model in chosen.values())]
        cached = None if result_cache is None else CachedRuns(result_cache)
        for kept in (result_cache, request_log):
            if kept is not None:
                closing.callback(kept.close)
        core = ServerCore(manager, limits, metrics, roots, cached, request_log)
        if metrics is not None:
            _watch(metrics, manager, cached, request_log)
        # Ports are taken before the models are loaded, which takes long.
        grpc_server = GrpcServer(core, host, port, workers, tls, health)
        undo.callback(grpc_server.stop, None)
        rest = None
        if rest_port is not None:
            rest = _rest_server(core, host, rest_port, tls, metrics_path)
            undo.callback(rest.stop, 0.0)
        manager.start(chosen)
        if config_poll_seconds > 0:
            poller = ConfigPoller(_config_file(models), manager, config_poll_seconds)
            poller.start()
            closing.callback(poller.close)
        closing.callback(manager.stop_loading)  # the first thing: a poller may be waiting for a load
        warn_if_open(host, tls is not None, rest is not None and (tls is None or tls.files is None))
        if rest is not None:
            rest.start()
        grpc_server.start()
        undo.pop_all()
    return Server(core, grpc_server, rest, closing)


def _watch(metrics: Any, manager: ModelManager, cached: CachedRuns | None, request_log: RequestLog | None) -> None:
    """Has what is counted elsewhere told to the metrics."""
    manager.on_change.append(metrics.model_state)
    manager.on_load.append(metrics.observe_load)
    if cached is not None:
        cached.on_look_up = metrics.observe_cache
    if request_log is not None:
        request_log.on_outcome = metrics.observe_log


def _models(
    model_dir: str | Path | None,
    name: str | None,
    version: int | None,
    models: str | Path | Mapping[str, ModelConfig] | None,
) -> dict[str, ModelConfig]:
    if (model_dir is None) == (models is None):
        raise ValueError("serve takes a model's folder, or a config of models: one of them")
    if model_dir is not None:
        find_version(model_dir, version)
        folder = Path(model_dir).resolve()
        policy = VersionPolicy() if version is None else VersionPolicy(latest=None, specific=frozenset({version}))
        return {name or folder.name: ModelConfig(name or folder.name, folder, policy)}
    if name is not None or version is not None:
        raise ValueError("name and version go with one model's folder; a config of models names its own")
    return dict(models) if isinstance(models, Mapping) else read_models(_config_file(models))


def _config_file(models: Any) -> str | Path:
    if not isinstance(models, (str, Path)):
        raise ValueError("config_poll_seconds goes with a models.config, a file")
    return models


def _rest_server(core: ServerCore, host: str, port: int, tls: ServerTls | None, metrics_path: str | None) -> Any:
    from tfmmrank.serving.server.rest import MAX_BODY, RestServer

    options: dict[str, Any] = {} if metrics_path is None else {"metrics_path": metrics_path}
    if core.limits.message_bytes is not None:
        options["max_body"] = min(MAX_BODY, core.limits.message_bytes)
    if tls is not None and tls.files is not None:
        certificate, key, ca = tls.files
        options.update(certificate=certificate, private_key=key, client_ca=ca)
    return RestServer(core, core.metrics, host, port, **options)
