"""Classify, Regress and MultiInference, on a small model whose values are 2 x + bias."""

from __future__ import annotations

import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tfmmrank.data.example_lists import set_features
from tfmmrank.export import RequestError
from tfmmrank.export.servable import CLASSIFY_METHOD as CLASSIFY
from tfmmrank.export.servable import REGRESS_METHOD as REGRESS
from tfmmrank.serving.server.core import ServerCore
from tfmmrank.serving.server.limits import Limits
from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import ModelConfig

pytestmark = pytest.mark.embedded_only


@pytest.fixture(scope="module")
def manager(small_model):
    manager = ModelManager(poll_seconds=0)
    manager.start({"small": ModelConfig("small", small_model)})
    yield manager
    manager.close()


@pytest.fixture(scope="module")
def core(manager):
    return ServerCore(manager)


def ask(kind, signature, *values, model="small"):
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for x in values:
        set_features(request.input.example_list.examples.add(), {"x": x})
    return request


def classify(signature, *values, **spec):
    return ask(classification_pb2.ClassificationRequest, signature, *values, **spec)


def regress(signature, *values, **spec):
    return ask(regression_pb2.RegressionRequest, signature, *values, **spec)


def multi(*tasks, values=(1.5,)):
    request = inference_pb2.MultiInferenceRequest()
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    for x in values:
        set_features(request.input.example_list.examples.add(), {"x": x})
    return request


def refusal(call, request):
    with pytest.raises(RequestError) as caught:
        call(request)
    return caught.value.code, str(caught.value)


def test_classify_gives_each_example_its_classes(core):
    response = core.classify(classify("classify", 1.5, -2.0))
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("small", "classify", 1)
    first, second = response.result.classifications
    assert [(c.label, c.score) for c in first.classes] == [("low", -3.0), ("high", 3.0)]
    assert [(c.label, c.score) for c in second.classes] == [("low", 4.0), ("high", -4.0)]


def test_classes_without_scores(core):
    (found,) = core.classify(classify("labels", 1.5)).result.classifications
    assert [(c.label, c.score) for c in found.classes] == [("low", 0.0), ("high", 0.0)]


def test_regress_gives_each_example_its_value(core):
    response = core.regress(regress("regress", 1.5, -2.0))
    assert [found.value for found in response.result.regressions] == [3.0, -4.0]
    assert response.model_spec.signature_name == "regress"


def test_a_context_is_not_repeated_for_gigabytes(core):
    request = regress("regress")
    lists = request.input.example_list_with_context
    set_features(lists.context, {"note": b"a" * 2**20})
    for _ in range(1000):
        lists.examples.add()
    code, message = refusal(core.regress, request)
    assert code == "INVALID_ARGUMENT"
    assert "before each of 1000 examples makes more than 268435456 bytes" in message


def test_a_list_is_flattened_and_its_context_merged_into_each_example(core):
    request = regress("regress")
    lists = request.input.example_list_with_context
    set_features(lists.context, {"bias": 10.0, "x": 100.0})
    set_features(lists.examples.add(), {"x": 1.0})
    set_features(lists.examples.add(), {"x": 2.0, "bias": 20.0})
    set_features(lists.examples.add(), {"unread": 5.0})
    found = core.regress(request).result.regressions
    assert [one.value for one in found] == [12.0, 24.0, 210.0]  # an example's own feature wins


def test_several_signatures_answer_on_the_same_examples(core):
    tasks = [("small", "classify", CLASSIFY), ("small", "regress", REGRESS)]
    first, second = core.multi_inference(multi(*tasks)).results
    assert [c.score for c in first.classification_result.classifications[0].classes] == [-3.0, 3.0]
    assert [found.value for found in second.regression_result.regressions] == [3.0]
    assert [one.model_spec.signature_name for one in (first, second)] == ["classify", "regress"]
    assert {one.model_spec.version.value for one in (first, second)} == {1}


@pytest.mark.parametrize(
    ("tasks", "code", "message"),
    [
        ([], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ([("", "regress", REGRESS)], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ([("big", "regress", REGRESS)], "NOT_FOUND", "Servable not found for request: Latest(big)"),
        (
            [("small", "regress", REGRESS), ("big", "classify", CLASSIFY)], "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("small", "regress", REGRESS), ("small", "regress", REGRESS)], "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress",
        ),
        (
            [("small", "regress", REGRESS), ("small", "other", REGRESS)], "INVALID_ARGUMENT",
            "Input tensor must be the same for all Signatures.",
        ),
        (
            [("small", "score", REGRESS)], "INVALID_ARGUMENT", "Requested signature not found in model graph: score",
        ),
        (
            [("small", "regress", "tensorflow/serving/predict")], "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [("small", "regress", CLASSIFY)], "INVALID_ARGUMENT",
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/regress",
        ),
    ],
)  # fmt: skip
def test_tasks_that_do_not_go_together(core, tasks, code, message):
    assert refusal(core.multi_inference, multi(*tasks)) == (code, message)


def test_signatures_of_another_method_are_refused(core):
    assert refusal(core.classify, classify("regress", 1.0)) == (
        "INVALID_ARGUMENT",
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/regress",
    )
    assert refusal(core.regress, regress("", 1.0)) == (
        "INVALID_ARGUMENT",
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict",
    )
    assert refusal(core.regress, regress("score", 1.0)) == (
        "INVALID_ARGUMENT", "No signature was found with the name: score",
    )  # fmt: skip


def test_requests_without_a_model_or_an_example(core):
    assert refusal(core.classify, classification_pb2.ClassificationRequest()) == (
        "INVALID_ARGUMENT", "Missing ModelSpec",
    )  # fmt: skip
    assert refusal(core.regress, regress("regress", model="big")) == (
        "NOT_FOUND", "Servable not found for request: Latest(big)",
    )  # fmt: skip
    assert refusal(core.regress, regress("regress")) == ("INVALID_ARGUMENT", "Input is empty.")
    request = regress("regress")
    request.input.example_list_with_context.context.SetInParent()
    assert refusal(core.regress, request) == ("INVALID_ARGUMENT", "Input is empty.")


def test_examples_count_as_candidates(manager):
    core = ServerCore(manager, Limits(candidates=2))
    assert len(core.regress(regress("regress", 1.0, 2.0)).result.regressions) == 2
    assert refusal(core.regress, regress("regress", 1.0, 2.0, 3.0)) == (
        "INVALID_ARGUMENT", "the input has 3 candidates; this server's limit is 2 a request",
    )  # fmt: skip
