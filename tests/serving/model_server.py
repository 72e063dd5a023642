"""TensorFlow Serving's ModelService, as far as promotions see it; what is loaded is a set of numbers."""

from __future__ import annotations

from concurrent import futures

import grpc
from tensorflow_serving.config import model_server_config_pb2

from tfmmrank.serving.protocol import wire


class ModelServer:
    """Answers as ``server_core.cc`` does: labels are checked, against what is AVAILABLE, before anything is loaded.

    A version becomes AVAILABLE the third time that its state is asked for.

    Args:
        config: what it starts with; all versions in it are AVAILABLE.
        found: versions that it finds in the model's folder.
        broken: versions that fail to load.
        credentials: for TLS.

    Attributes:
        reloads: labels and versions of each configuration it was asked to take.
    """

    def __init__(self, config: str, found=(1, 2, 3), broken=(), credentials=None) -> None:
        from google.protobuf import text_format

        self.found, self.broken = set(found), set(broken)
        self.entry = text_format.Parse(config, model_server_config_pb2.ModelServerConfig()).model_config_list.config[0]
        pinned = set(self.entry.model_version_policy.specific.versions)
        self.available, self.coming = (pinned & self.found) or {max(self.found)}, {}
        self.failed: set[int] = set()
        self.reloads: list[tuple[dict[str, int], list[int]]] = []
        self.refuse_after = 10**9
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        handlers = {
            "HandleReloadConfigRequest": (self._reload, wire.ReloadConfigRequest),
            "GetModelStatus": (self._status, wire.GetModelStatusRequest),
        }
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "tensorflow.serving.ModelService",
                    {
                        name: grpc.unary_unary_rpc_method_handler(
                            call, message.FromString, lambda response: response.SerializeToString()
                        )
                        for name, (call, message) in handlers.items()
                    },
                )
            ]
        )
        host = "127.0.0.1:0"
        port = self._server.add_secure_port(host, credentials) if credentials else self._server.add_insecure_port(host)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    @property
    def labels(self) -> dict[str, int]:
        return dict(self.entry.version_labels)

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_) -> None:
        self._server.stop(None).wait()

    def _reload(self, request, context):
        config = model_server_config_pb2.ModelServerConfig.FromString(request.config)
        entry = config.model_config_list.config[0]
        pinned = list(entry.model_version_policy.specific.versions)
        self.reloads.append((dict(entry.version_labels), pinned))
        if len(self.reloads) > self.refuse_after:
            return wire.ReloadConfigResponse(status={"error_code": 3, "error_message": "not this one"})
        for label, version in entry.version_labels.items():
            if version not in self.available:
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION, f'label "{label}": version {version} is not available'
                )
        self.entry = entry
        wanted = set(pinned) or {max(self.found)}
        self.available &= wanted
        self.coming = {v: self.coming.get(v, 0) for v in wanted & self.found - self.available - self.failed}
        return wire.ReloadConfigResponse()

    def _status(self, request, context):
        if request.model_spec.name != self.entry.name:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        self.coming = {version: asked + 1 for version, asked in self.coming.items()}
        done = {version for version, asked in self.coming.items() if asked >= 3}
        self.failed |= done & self.broken
        self.available |= done - self.broken
        self.coming = {version: asked for version, asked in self.coming.items() if version not in done}
        response = wire.GetModelStatusResponse()
        for version in self.available:
            response.model_version_status.add(version=version, state=30).status.SetInParent()
        for version in self.coming:
            response.model_version_status.add(version=version, state=20)
        for version in self.failed:
            added = response.model_version_status.add(version=version, state=50)
            added.status.error_code, added.status.error_message = 13, "no saved_model.pb"
        return response
