"""What TensorFlow Serving's server core does, on its messages, for any transport."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.export.request_error import RequestError
from tfmmrank.export.servable import CLASSIFY_METHOD, DEFAULT_SIGNATURE, REGRESS_METHOD, is_of_lists
from tfmmrank.serving.monitoring.request_log import RequestLog
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor
from tfmmrank.serving.server import example_inference as examples
from tfmmrank.serving.server.limits import Gate, Limits
from tfmmrank.serving.server.loaded_version import LoadedVersion
from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import ModelConfig, models_of
from tfmmrank.serving.server.result_cache import CachedRuns

_log = logging.getLogger("tfmmrank.serving")


class ServerCore:
    """Answers requests from the versions that a manager holds.

    Every method takes a request of ``tensorflow_serving.apis`` and returns its response, with TensorFlow Serving's
    status codes and messages; ``timeout`` is the seconds that are left to answer.

    Args:
        manager: holds the models.
        limits: what is refused.
        metrics: a ``ServingMetrics``, or None.
        reload_roots: folders that a reload may take models from. A reload names paths of this machine, so that it may
            open nothing else.
        cached: runs models, and keeps what they answer; None: each request is run.
        request_log: is offered every answered Predict request; None: none is kept.

    Raises:
        RequestError: by every method, for a request that cannot be answered.
    """

    def __init__(
        self,
        manager: ModelManager,
        limits: Limits | None = None,
        metrics: Any | None = None,
        reload_roots: Sequence[Path] = (),
        cached: CachedRuns | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self.manager, self.metrics = manager, metrics
        self._cached, self._request_log = cached, request_log
        self.limits = limits or Limits()
        self.gate = Gate(self.limits.concurrent_requests)
        self._reload_roots = [Path(root).resolve() for root in reload_roots]

    # -- PredictionService --------------------------------------------------------------------------------------------

    def predict(self, request: Any, timeout: float | None = None) -> Any:
        """Answers a PredictRequest."""
        from tensorflow_serving.apis.predict_pb2 import PredictResponse

        response = PredictResponse()
        with self.gate.enter(), self.manager.acquire(_spec_of(request)) as version:
            name, definition = _signature_of(version, request.model_spec)
            self.limits.check_inputs(request.inputs)
            inputs = _read_inputs(request.inputs)
            outputs = self._run("Predict", version, name, inputs, request.output_filter, timeout)
            for output, value in outputs.items():
                write_tensor(response.outputs[output], value)
            _fill_spec(response.model_spec, version, name)
        try:
            self._observe_ranking(version.model, name, definition, inputs, outputs)
            if self._request_log is not None:
                self._request_log.record(version.model, version.version, name, request, response)
        except Exception:  # there is an answer, and no fault in what is noted of it may cost the client that
            _log.exception("model %s: a request could not be counted or logged", version.model)
        return response

    def classify(self, request: Any, timeout: float | None = None) -> Any:
        """Answers a ClassificationRequest; each example gets its classes, in the model's order."""
        from tensorflow_serving.apis.classification_pb2 import ClassificationResponse

        asked = examples.classify_outputs, examples.fill_classifications
        return self._answer_examples("Classify", request, ClassificationResponse(), *asked, timeout)

    def regress(self, request: Any, timeout: float | None = None) -> Any:
        """Answers a RegressionRequest; each example gets its value."""
        from tensorflow_serving.apis.regression_pb2 import RegressionResponse

        asked = examples.regress_outputs, examples.fill_regressions
        return self._answer_examples("Regress", request, RegressionResponse(), *asked, timeout)

    def multi_inference(self, request: Any, timeout: float | None = None) -> Any:
        """Answers a MultiInferenceRequest: several signatures of one version, on the same examples."""
        from tensorflow_serving.apis.inference_pb2 import MultiInferenceResponse
        from tensorflow_serving.apis.model_pb2 import ModelSpec

        response = MultiInferenceResponse()
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.gate.enter(), self.manager.acquire(spec) as version:
            for name, task, outputs in _checked_tasks(version, request.tasks):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                values, count = self._run_examples("MultiInference", version, name, outputs, request.input, left)
                result = response.results.add()
                if task.method_name == CLASSIFY_METHOD:
                    examples.fill_classifications(result.classification_result, values, count)
                else:
                    examples.fill_regressions(result.regression_result, values, count)
                _fill_spec(result.model_spec, version, name)
        return response

    def metadata(self, request: Any) -> Any:
        """Answers a GetModelMetadataRequest; the only field is ``signature_def``."""
        from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap

        spec = _spec_of(request)
        if not request.metadata_field:
            raise RequestError("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise RequestError("INVALID_ARGUMENT", f"Metadata field {field} is not supported")
        response, signatures = GetModelMetadataResponse(), SignatureDefMap()
        with self.manager.acquire(spec) as version:
            for name, signature in version.servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
            _fill_spec(response.model_spec, version)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def signature(self, spec: Any) -> tuple[str, Any]:
        """The name and SignatureDef that a Predict request with this ModelSpec would run."""
        with self.manager.acquire(spec) as version:
            return _signature_of(version, spec)

    # -- ModelService -------------------------------------------------------------------------------------------------

    def status(self, request: Any) -> Any:
        """Answers a GetModelStatusRequest; labels are ignored, as in TensorFlow Serving.

        A server that stops takes no requests, and says UNLOADING of what it would have AVAILABLE.
        """
        from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus

        spec = _spec_of(request)
        states = self.manager.states(spec.name) if spec.name else []
        if not states:
            raise RequestError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        if spec.HasField("version"):
            states = [state for state in states if state.version == spec.version.value]
            if not states:
                message = f"Could not find version {spec.version.value} of model {spec.name}"
                raise RequestError("NOT_FOUND", message)
        response = GetModelStatusResponse()
        for state in states:
            found = response.model_version_status.add(version=state.version)
            going = self.gate.closed and state.state == "AVAILABLE"
            found.state = ModelVersionStatus.State.Value("UNLOADING" if going else state.state)
            found.status.error_code = _error_number(state.code)
            found.status.error_message = state.message
        return response

    def reload(self, request: Any) -> Any:
        """Answers a ReloadConfigRequest: its models replace all others; a bad config changes nothing."""
        from tensorflow_serving.apis.model_management_pb2 import ReloadConfigResponse

        try:
            models = models_of(request.config)
        except ValueError as error:
            raise RequestError("INVALID_ARGUMENT", str(error)) from error
        self._check_roots(models)
        self.manager.reload(models, wait=False)
        response = ReloadConfigResponse()
        response.status.SetInParent()
        return response

    def _check_roots(self, models: Mapping[str, ModelConfig]) -> None:
        for model in models.values():
            folder = model.base_path.resolve()
            if not any(folder.is_relative_to(root) for root in self._reload_roots):
                raise RequestError(
                    "PERMISSION_DENIED",
                    f"model {model.name}: {model.base_path} is under no folder that this server may load from; "
                    "it names them when it starts (--allow-reload-from)",
                )

    # -- running ------------------------------------------------------------------------------------------------------

    def _run(
        self,
        api: str,
        version: LoadedVersion,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        timeout: float | None,
    ) -> dict[str, np.ndarray]:
        if timeout is not None and timeout <= 0:
            raise RequestError("DEADLINE_EXCEEDED", "the deadline had passed before the request was run")
        if self.metrics is not None:
            tell = functools.partial(self.metrics.observe_runtime, api, version.model)
            version = LoadedVersion(
                version.model, version.version, version.directory, _TimedServable(version.servable, tell)
            )
        if self._cached is not None:
            return self._cached.run(version, signature, inputs, outputs, timeout)
        return version.servable.run(signature, inputs, outputs, timeout)

    def _answer_examples(
        self,
        api: str,
        request: Any,
        response: Any,
        outputs_of: Callable[[Any], list[str]],
        fill: Callable[..., None],
        timeout: float | None,
    ) -> Any:
        """Fills the response of Classify or Regress: they differ in the outputs that they ask for alone."""
        with self.gate.enter(), self.manager.acquire(_spec_of(request)) as version:
            name, signature = _example_signature(version, request.model_spec)
            values, count = self._run_examples(api, version, name, outputs_of(signature), request.input, timeout)
            fill(response.result, values, count)
            _fill_spec(response.model_spec, version, name)
        return response

    def _run_examples(
        self, api: str, version: LoadedVersion, signature: str, outputs: list[str], source: Any, timeout: float | None
    ) -> tuple[dict[str, np.ndarray], int]:
        serialized = examples.serialized_examples(source)
        self.limits.check_candidates(len(serialized), "the input")
        return self._run(api, version, signature, {"inputs": serialized}, outputs, timeout), len(serialized)

    def _observe_ranking(
        self,
        model: str,
        signature: str,
        definition: Any,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
    ) -> None:
        """The model's own health: what it was asked with, and what it said of lists whose lengths are told."""
        scores, num_items = outputs.get("scores"), inputs.get("num_items")
        if self.metrics is None or scores is None or num_items is None or scores.ndim != 2:
            return
        real = np.arange(scores.shape[1]) < num_items[:, None]
        self.metrics.observe_ranking(model, signature, outputs.get("known"), scores, real)
        for column, values in inputs.items():
            if column not in ("item_ids", "num_items"):
                # Behind the input's own length a batch's longest list may stand, in the scores alone.
                given = values[real[:, : values.shape[1]]] if is_of_lists(definition.inputs[column]) else values
                self.metrics.observe_missing(model, column, _missing(given), given.size)


class _TimedServable:
    """A servable that tells the seconds of its runs: what a cache answers is none."""

    def __init__(self, servable: Any, tell: Callable[[float], None]) -> None:
        self._servable, self._tell = servable, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servable, name)

    def run(self, *arguments: Any) -> dict[str, np.ndarray]:
        began = time.perf_counter()
        try:
            return self._servable.run(*arguments)
        finally:
            self._tell(time.perf_counter() - began)


def _missing(values: np.ndarray) -> int:
    """How many of an input's values are missing: of strings the empty ones, of numbers those that are not finite.

    Bytes that are no picture, which the model takes for a missing one, are found when it decodes them, and not here.
    """
    if values.dtype == object:
        return sum(not value for value in values.flat)
    return int((~np.isfinite(values)).sum())


def _spec_of(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise RequestError("INVALID_ARGUMENT", "Missing ModelSpec")
    return request.model_spec


def _fill_spec(spec: Any, version: LoadedVersion, signature: str = "") -> None:
    spec.name = version.model
    spec.version.value = version.version
    spec.signature_name = signature


def _signature_of(version: LoadedVersion, spec: Any) -> tuple[str, Any]:
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in version.servable.signatures:
        raise RequestError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
    return name, version.servable.signatures[name]


def _example_signature(version: LoadedVersion, spec: Any) -> tuple[str, Any]:
    """As ``_signature_of``, with the other words that Classify and Regress have for it."""
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in version.servable.signatures:
        raise RequestError("INVALID_ARGUMENT", f"No signature was found with the name: {name}")
    return name, version.servable.signatures[name]


def _read_inputs(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    inputs = {}
    for name, tensor in tensors.items():
        try:
            inputs[name] = read_tensor(tensor)
        except ValueError as error:
            raise RequestError("INVALID_ARGUMENT", f"tensor parsing error: {name}: {error}") from error
    return inputs


_METHOD_OUTPUTS: dict[str, Callable[[Any], list[str]]] = {
    CLASSIFY_METHOD: examples.classify_outputs,
    REGRESS_METHOD: examples.regress_outputs,
}


def _checked_tasks(version: LoadedVersion, tasks: Sequence[Any]) -> list[tuple[str, Any, list[str]]]:
    """(signature, task, outputs) of each task; all are checked before any is run."""
    checked: list[tuple[str, Any, list[str]]] = []
    tensors = set()
    for task in tasks:
        spec = task.model_spec
        name = spec.signature_name or DEFAULT_SIGNATURE
        if not spec.name:
            raise RequestError("INVALID_ARGUMENT", "Found ModelSpec with an empty model name.")
        if spec.name != version.model:
            message = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            raise RequestError("INVALID_ARGUMENT", message)
        if name in [other for other, _, _ in checked]:
            raise RequestError("INVALID_ARGUMENT", f"Duplicate evaluation of signature: {name}")
        if name not in version.servable.signatures:
            raise RequestError("INVALID_ARGUMENT", f"Requested signature not found in model graph: {name}")
        if task.method_name not in _METHOD_OUTPUTS:
            raise RequestError("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
        signature = version.servable.signatures[name]
        checked.append((name, task, _METHOD_OUTPUTS[task.method_name](signature)))
        tensors.add(signature.inputs["inputs"].name)
        if len(tensors) > 1:
            raise RequestError("INVALID_ARGUMENT", "Input tensor must be the same for all Signatures.")
    return checked


def _error_number(code: str) -> int:
    from tensorflow.core.protobuf import error_codes_pb2

    return error_codes_pb2.Code.Value(code)
