"""A model server without a model: gRPC with TensorFlow Serving's messages, whose answers a test decides."""

from __future__ import annotations

import json
import threading
from concurrent import futures

import grpc
import numpy as np

from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor

STRING, FLOAT, INT32, BOOL = 7, 1, 3, 10
SIGNATURES = {
    "rank": (
        {"query": (STRING, [-1]), "item_ids": (STRING, [-1, -1]), "num_items": (INT32, [-1])},
        {"scores": (FLOAT, [-1, -1]), "known": (BOOL, [-1, -1])},
    ),
    "describe": ({"ask": (STRING, [-1])}, {"description": (STRING, [-1])}),
}


def score(item_id: bytes, version: int = 1) -> float:
    """Item i17's is 17 times the version; every tenth is as good as another."""
    return float(int(item_id[1:]) % 1000) * version


class FakeServer:
    """Serves one model; ids that start with ``i`` are known.

    Attributes:
        version: what answers now.
        list_context: what ``describe`` says; None: the model has no ``describe``.
        signatures: what the model has, by name: inputs and outputs.
        requests: the Predict requests so far.
        metadata_requests: how often signatures were asked for.
        before: called with each Predict request and the gRPC context before it is answered.
        packed: whether scores and ``known`` come as ``tensor_content``, which TensorFlow Serving may be told to send.
        busiest: how many requests ran at once, at most.
    """

    def __init__(self, port: int = 0, credentials=None, list_context: bool | None = False, before=None) -> None:
        self.version, self.list_context = 1, list_context
        self.signatures, self.metadata_requests = dict(SIGNATURES), 0
        self.packed = False
        self.before = before or (lambda request, context: None)
        self.requests: list = []
        self.busiest = self._running = 0
        self._lock = threading.Lock()
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=options)
        handlers = {
            "Predict": _handler(self._predict, wire.PredictRequest),
            "GetModelMetadata": _handler(self._metadata, wire.GetModelMetadataRequest),
        }
        service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers)
        self._server.add_generic_rpc_handlers((service,))
        host = f"127.0.0.1:{port}"
        self.port = (
            self._server.add_secure_port(host, credentials) if credentials else self._server.add_insecure_port(host)
        )
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def asked(self, signature: str) -> list:
        return [request for request in self.requests if request.model_spec.signature_name == signature]

    def _metadata(self, request, context):
        self.metadata_requests += 1
        names = [name for name in self.signatures if name != "describe" or self.list_context is not None]
        signatures = wire.SignatureDefMap()
        for name in names:
            for kind, infos in zip(("inputs", "outputs"), self.signatures[name], strict=True):
                for key, (dtype, shape) in infos.items():
                    info = getattr(signatures.signature_def[name], kind)[key]
                    info.dtype = dtype
                    for size in shape:
                        info.tensor_shape.dim.add(size=size)
        response = wire.GetModelMetadataResponse()
        response.metadata["signature_def"].value = signatures.SerializeToString()
        return response

    def _predict(self, request, context):
        with self._lock:
            self.requests.append(request)
            self._running += 1
            self.busiest = max(self.busiest, self._running)
        try:
            version = self.version
            self.before(request, context)
            return self._answer(request, version)
        finally:
            with self._lock:
                self._running -= 1

    def _answer(self, request, version):
        response = wire.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        if request.model_spec.signature_name == "echo":
            response.outputs["x"].CopyFrom(request.inputs["x"])
            return response
        if request.model_spec.signature_name == "describe":
            text = json.dumps({"list_context": self.list_context})
            write_tensor(response.outputs["description"], np.array([text.encode()], object))
            return response
        ids = read_tensor(request.inputs["item_ids"])
        known = np.array([[item.startswith(b"i") for item in row] for row in ids])
        scores = [[score(item, version) if item.startswith(b"i") else -1e8 for item in row] for row in ids]
        for name, array in (("scores", np.array(scores, np.float32)), ("known", known)):
            tensor = response.outputs[name]
            write_tensor(tensor, array)
            if self.packed:
                del tensor.float_val[:], tensor.bool_val[:]
                tensor.tensor_content = array.tobytes()
        return response


def _handler(answer, request):
    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=lambda message: message.SerializeToString()
    )
