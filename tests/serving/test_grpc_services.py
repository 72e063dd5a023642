"""Every method of both services, over the wire."""

from __future__ import annotations

import gc
import threading
import time

import grpc
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

from tests.serving.small_model import write_version
from tests.serving.test_example_inference import classify, multi, regress
from tests.serving.test_limits import ask, refusal
from tests.serving.test_versions import reload_request
from tfmmrank.export.servable import CLASSIFY_METHOD as CLASSIFY
from tfmmrank.export.servable import REGRESS_METHOD as REGRESS
from tfmmrank.serving import ModelConfig, VersionPolicy, serve
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.server.loaded_version import load_warm

pytestmark = pytest.mark.embedded_only


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models: ``small`` with versions 1 and 2, the second being the stable one, and ``other``."""
    folder = tmp_path_factory.mktemp("models")
    for place, scale in (("small/1", 2.0), ("small/2", 20.0), ("other/5", 5.0)):
        write_version(folder / place, scale)
    return folder


@pytest.fixture(scope="module")
def services(folder):
    every = VersionPolicy(latest=None)
    models = {
        "small": ModelConfig("small", folder / "small", every, {"stable": 1}),
        "other": ModelConfig("other", folder / "other"),
    }
    options = {"poll_seconds": 0, "allow_labels_for_unavailable": True, "allow_reload_from": [folder]}
    with serve(models=models, port=0, **options) as server, grpc.insecure_channel(server.address) as channel:
        assert (server.name, server.version) == ("small", 2)
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


def test_predict_of_a_version_a_label_and_another_model(services):
    def answer(**choice):
        request = ask(x=[[1.0]])
        request.model_spec.name = choice.pop("name", "small")
        if "version" in choice:
            request.model_spec.version.value = choice["version"]
        if "label" in choice:
            request.model_spec.version_label = choice["label"]
        response = services[0].Predict(request, timeout=60)
        return response.model_spec.version.value, response.outputs["y"].float_val[0]

    assert answer() == (2, 20.0)
    assert answer(version=1) == (1, 2.0)
    assert answer(label="stable") == (1, 2.0)
    assert answer(name="other") == (5, 5.0)


def test_a_request_without_a_deadline_is_answered(services):
    assert services[0].Predict(ask(x=[[1.0]])).outputs["y"].float_val == [20.0]
    tasks = [("small", "classify", CLASSIFY), ("small", "regress", REGRESS)]
    assert len(services[0].MultiInference(multi(*tasks)).results) == 2


def test_damaged_messages_are_told_and_leave_nothing_behind(small_model):
    def calls_kept():
        gc.collect()
        return sum(type(thing).__name__ == "_RPCState" for thing in gc.get_objects())

    with serve(small_model, port=0) as server, grpc.insecure_channel(server.address) as channel:
        before = calls_kept()
        for method in (wire.PREDICT, wire.STATUS, "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"):
            make = channel.unary_stream if method.endswith("Watch") else channel.unary_unary
            for _ in range(5):
                with pytest.raises(grpc.RpcError) as told:
                    list(make(method)(b"\xff\xff", timeout=60))
                assert told.value.code() == grpc.StatusCode.INTERNAL
                assert "the message is none of this method's, or is damaged" in told.value.details()
        deadline = time.monotonic() + 60
        while calls_kept() > before + 4 and time.monotonic() < deadline:  # the last ones end beside this thread
            time.sleep(0.01)
        assert calls_kept() <= before + 4


def test_a_reload_keeps_no_request_waiting(small_model):
    """One worker and a load without end: requests are answered, and another reload is refused."""
    loading, go_on = threading.Event(), threading.Event()

    def load(directory, way):
        loading.set()
        assert go_on.wait(60)
        return load_warm(directory, way)

    with serve(small_model, port=0, workers=1) as server, grpc.insecure_channel(server.address) as channel:
        server.core.manager._load_servable = load
        reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        first = reload.future(reload_request(small=small_model, other=small_model), timeout=60)
        assert loading.wait(60)
        assert refusal(reload, reload_request(small=small_model)) == (
            "UNAVAILABLE", "a reload is running; ask again when it has ended",
        )  # fmt: skip
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        assert predict(ask(x=[[1.0]]), timeout=60).outputs["y"].float_val == [2.0]
        go_on.set()
        assert first.result().status.error_code == 0
        assert reload(reload_request(small=small_model), timeout=60).status.error_code == 0


def test_methods_on_examples(services):
    (found,) = services[0].Classify(classify("classify", 1.5), timeout=60).result.classifications
    assert [(c.label, c.score) for c in found.classes] == [("low", -30.0), ("high", 30.0)]
    (value,) = services[0].Regress(regress("regress", 1.5), timeout=60).result.regressions
    assert value.value == 30.0
    tasks = [("small", "classify", CLASSIFY), ("small", "regress", REGRESS)]
    first, second = services[0].MultiInference(multi(*tasks), timeout=60).results
    assert first.classification_result.classifications[0] == found
    assert second.regression_result.regressions[0] == value


def test_metadata_is_that_of_the_version_asked_for(services):
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name, request.model_spec.version_label = "small", "stable"
    response = services[0].GetModelMetadata(request, timeout=60)
    assert (response.model_spec.name, response.model_spec.version.value) == ("small", 1)
    signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value).signature_def
    assert signatures["classify"].method_name == CLASSIFY


def test_long_messages_are_cut_to_what_a_header_can_hold(services):
    request = ask("中" * 2000, x=[[1.0]])
    with pytest.raises(grpc.RpcError) as caught:
        services[0].Predict(request, timeout=60)
    assert caught.value.code().name == "FAILED_PRECONDITION"
    assert 1021 <= len(caught.value.details().encode()) <= 1024


def test_reload_and_status(services, folder):
    """Last: it takes the model ``other`` away."""
    assert (
        services[1].HandleReloadConfigRequest(reload_request(small=folder / "small"), timeout=60).status.error_code == 0
    )
    request = GetModelStatusRequest()
    request.model_spec.name = "small"
    versions = services[1].GetModelStatus(request, timeout=60).model_version_status
    assert [(one.version, one.state) for one in versions if one.state == 30] == [(2, 30)]  # the default policy: latest
    with pytest.raises(grpc.RpcError) as caught:
        services[1].HandleReloadConfigRequest(reload_request(small="/etc"), timeout=60)
    assert caught.value.code().name == "PERMISSION_DENIED"
    request = ask(x=[[1.0]])
    request.model_spec.name = "other"
    with pytest.raises(grpc.RpcError) as caught:
        services[0].Predict(request, timeout=60)
    assert (caught.value.code().name, caught.value.details()) == (
        "NOT_FOUND", "Servable not found for request: Latest(other)",
    )  # fmt: skip
