"""Server cores for the tests of the REST port: one over an exported model, one whose answers a test sets."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tfmmrank.export.servable import RequestError, Servable
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor


class ModelCore:
    """What a server core does, for one version of one model."""

    def __init__(self, directory: Any, name: str) -> None:
        self.servable, self.name, self.version = Servable(directory), name, int(directory.name)

    def predict(self, request, timeout=None):
        name, _ = self.signature(request.model_spec)
        inputs = {key: read_tensor(tensor) for key, tensor in request.inputs.items()}
        response = predict_pb2.PredictResponse(model_spec=self._spec())
        for key, value in self.servable.run(name, inputs, request.output_filter, timeout).items():
            write_tensor(response.outputs[key], value)
        return response

    def regress(self, request, timeout=None):
        name, _ = self.signature(request.model_spec)
        context = request.input.example_list_with_context.context.SerializeToString()
        examples = request.input.example_list_with_context.examples or request.input.example_list.examples
        inputs = {"inputs": np.array([context + example.SerializeToString() for example in examples], object)}
        response = regression_pb2.RegressionResponse(model_spec=self._spec())
        for value in self.servable.run(name, inputs)["outputs"]:
            response.result.regressions.add(value=value)
        return response

    def metadata(self, request):
        self._find(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=self._spec())
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=self.servable.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request):
        self._find(request.model_spec)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=self.version, state="AVAILABLE").status.SetInParent()
        return response

    def signature(self, spec):
        self._find(spec)
        name = spec.signature_name or "serving_default"
        if name not in self.servable.signatures:
            raise RequestError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return name, self.servable.signatures[name]

    def _find(self, spec):
        if spec.name != self.name or spec.version.value not in (0, self.version):
            raise RequestError("NOT_FOUND", f"Servable not found for request: Latest({spec.name})")

    def _spec(self):
        return {"name": self.name, "version": {"value": self.version}}


class ScriptedCore:
    """Doubles a float ``x`` and repeats a string ``s_bytes``; fails, or waits, as a test says.

    Attributes:
        failure: raised instead of an answer.
        requests: what was asked.
        timeouts: how long each run might take.
        entered: set when a run begins.
        gate: a run waits until it is set.
    """

    def __init__(self):
        self.failure = None
        self.requests, self.timeouts = [], []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def signature(self, spec):
        inputs = {
            "": {"x": {"dtype": types_pb2.DT_FLOAT}},
            "text": {"s_bytes": {"dtype": types_pb2.DT_STRING}},
            "nothing": {},
        }
        if spec.signature_name not in inputs:
            raise RequestError("FAILED_PRECONDITION", "Serving signature key not found.")
        return spec.signature_name or "serving_default", SignatureDef(inputs=inputs[spec.signature_name])

    def predict(self, request, timeout=None):
        self._begin(request, timeout)
        response = predict_pb2.PredictResponse()
        for name, tensor in request.inputs.items():
            value = read_tensor(tensor)
            write_tensor(response.outputs[name], value * 2 if value.dtype != object else value)
        return response

    def classify(self, request, timeout=None):
        self._begin(request, timeout)
        response = classification_pb2.ClassificationResponse()
        classes = response.result.classifications.add().classes
        classes.add(label="relevant", score=0.25)
        return response

    def regress(self, request, timeout=None):
        self._begin(request, timeout)
        return regression_pb2.RegressionResponse(result={"regressions": [{"value": 0.5}]})

    def status(self, request):
        self._begin(request, None)
        return get_model_status_pb2.GetModelStatusResponse()

    def _begin(self, request, timeout):
        self.requests.append(request)
        self.timeouts.append(timeout)
        self.entered.set()
        self.gate.wait(60)
        if self.failure:
            raise self.failure
