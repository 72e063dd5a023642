"""A server core for the tests of the REST port, whose answers a test sets."""

from __future__ import annotations

import threading

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tfmmrank.export.servable import RequestError
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor


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
