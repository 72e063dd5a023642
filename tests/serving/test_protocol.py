"""What a TensorFlow Serving client sees: statuses, messages, metadata. Spoken with the stock classes."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tests.serving.served_shop import TOLERANCE, assert_table_scores
from tfmmrank.data.example_lists import set_features
from tfmmrank.export.warmup import present
from tfmmrank.stack import tf


@pytest.fixture(scope="module")
def stubs(server_address):
    channel = grpc.insecure_channel(server_address)
    yield (
        prediction_service_pb2_grpc.PredictionServiceStub(channel),
        model_service_pb2_grpc.ModelServiceStub(channel),
    )
    channel.close()


def make_request(now, model="tiny", signature="", **replaced):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    inputs = {
        "query": np.array([now.query(0)], object), "item_ids": np.array([now.ids(0)], object),
        "num_items": np.array([now.size(0)], np.int32), "season": np.array([now.context(0)["season"]], object),
        "user age": np.array([now.context(0)["user age"]], np.float32), **replaced,
    }  # fmt: skip
    for name, value in inputs.items():
        if value is not None:
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code().name, caught.value.details()


def test_predict_answers_a_stock_client(stubs, now):
    response = stubs[0].Predict(make_request(now), timeout=30)
    assert (response.model_spec.name, response.model_spec.version.value) == ("tiny", 1)
    assert response.model_spec.signature_name == "serving_default"
    scores = tf.make_ndarray(response.outputs["scores"])
    assert_table_scores(scores[0], now.predicted[0])
    assert response.outputs["scores"].float_val  # float_val, not tensor_content, unless a flag asks for it
    assert tf.make_ndarray(response.outputs["known"]).all()


def test_output_filter(stubs, now):
    request = make_request(now)
    request.output_filter.append("known")
    assert list(stubs[0].Predict(request, timeout=30).outputs) == ["known"]
    request.output_filter.append("known")
    assert refusal(stubs[0].Predict, request) == ("INVALID_ARGUMENT", "duplicate output tensor alias: known")
    del request.output_filter[:]
    request.output_filter.append("logits")
    assert refusal(stubs[0].Predict, request) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: logits Outputs expected to be in the set {known,scores}.",
    )


def test_models_and_versions_that_are_not_there(stubs, now):
    predict = stubs[0].Predict
    assert refusal(predict, make_request(now, model="other")) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(other)",
    )
    request = make_request(now)
    request.model_spec.version.value = 9
    assert refusal(predict, request) == ("NOT_FOUND", "Servable not found for request: Specific(tiny, 9)")
    request.model_spec.version.value = 1
    assert predict(request, timeout=30).model_spec.version.value == 1
    request.model_spec.version_label = "stable"
    assert refusal(predict, request) == ("INVALID_ARGUMENT", "Unrecognized servable version label: stable")
    assert refusal(predict, predict_pb2.PredictRequest()) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refusal(predict, make_request(now, model="")) == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")


def test_signatures_and_inputs_that_do_not_fit(stubs, now):
    predict = stubs[0].Predict
    assert refusal(predict, make_request(now, signature="cluster")) == (
        "FAILED_PRECONDITION",
        'Serving signature key "cluster" not found.',
    )
    assert refusal(predict, make_request(now, num_items=None, season=None)) == (
        "INVALID_ARGUMENT",
        "input size does not match signature: 3!=5 len({item_ids,query,user age}) != "
        "len({item_ids,num_items,query,season,user age}). Sent extra: {}. Missing but required: {num_items,season}.",
    )
    code, message = refusal(predict, make_request(now, colour=np.array(["red"], object)))
    assert code == "INVALID_ARGUMENT"
    assert "Sent extra: {colour}. Missing but required: {}." in message
    code, message = refusal(predict, make_request(now, num_items=None, n=np.array([1], np.int32)))
    assert message.startswith(
        "input tensor alias not found in signature: n. Inputs expected to be in the set {item_ids,"
    )


def test_wrong_types_are_not_cast(stubs, now):
    predict = stubs[0].Predict
    assert refusal(predict, make_request(now, **{"user age": np.array([3.0], np.float64)})) == (
        "INVALID_ARGUMENT",
        "Expects arg[4] to be float but double is provided",
    )
    assert refusal(predict, make_request(now, num_items=np.array([3], np.int64))) == (
        "INVALID_ARGUMENT",
        "Expects arg[1] to be int32 but int64 is provided",
    )


def test_wrong_shapes_are_refused(stubs, now):
    predict = stubs[0].Predict
    assert refusal(predict, make_request(now, item_ids=np.array(["i1"], object)))[0] == "INVALID_ARGUMENT"
    # Two queries for one list would be broadcast into scores that look right.
    code, message = refusal(predict, make_request(now, query=np.array(["a", "b"], object)))
    assert code == "INVALID_ARGUMENT"
    assert "input query " in message


def test_hostile_tensors_are_refused(stubs, now):
    predict = stubs[0].Predict
    request = make_request(now)
    request.inputs["num_items"].tensor_shape.dim[0].size = 1 << 40  # a few bytes that would fill terabytes
    code, message = refusal(predict, request)
    assert code == "INVALID_ARGUMENT"
    assert message.startswith("tensor parsing error: num_items: has ")
    request = make_request(now)
    request.inputs["num_items"].tensor_shape.dim[0].size = -1
    assert refusal(predict, request)[0] == "INVALID_ARGUMENT"
    request = make_request(now)
    request.inputs["query"].dtype = 21  # DT_VARIANT
    assert refusal(predict, request)[0] == "INVALID_ARGUMENT"


def test_message_is_cut_as_in_tf_serving(stubs, now):
    _, message = refusal(stubs[0].Predict, make_request(now, signature="x" * 5000))
    assert len(message) == 1024


def test_broken_serialized_input_is_the_callers_fault(stubs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "regress"
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(np.array([b"no proto"], object)))
    assert refusal(stubs[0].Predict, request)[0] == "INVALID_ARGUMENT"


def test_metadata(stubs):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "tiny"
    assert refusal(stubs[0].GetModelMetadata, request) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("signature_def")
    response = stubs[0].GetModelMetadata(request, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    found = signatures.signature_def
    assert {name for name in found if not name.startswith("__")} == {
        "serving_default", "rank", "rank_features", "predict_elwc", "regress", "classify", "embed_query", "embed_items",
        "describe",
    }  # fmt: skip
    assert set(found["rank"].inputs) == {"query", "season", "user age", "item_ids", "num_items"}
    assert set(found["serving_default"].inputs) == set(found["rank"].inputs)
    assert set(found["rank_features"].inputs) == {
        "query", "season", "user age", "num_items", "title", "picture", "price", "Brand", "past_impressions",
        "past_ctr", "age_days",
    }  # fmt: skip
    assert found["regress"].method_name == "tensorflow/serving/regress"
    assert list(found["regress"].inputs) == ["inputs"]
    assert list(found["regress"].outputs) == ["outputs"]
    assert found["classify"].method_name == "tensorflow/serving/classify"
    assert list(found["classify"].outputs) == ["scores"]
    assert found["classify"].inputs["inputs"] == found["regress"].inputs["inputs"]  # one tensor, for MultiInference
    assert found["rank"].method_name == "tensorflow/serving/predict"
    request.metadata_field.append("assets")
    assert refusal(stubs[0].GetModelMetadata, request)[1] == "Metadata field assets is not supported"


def test_status(stubs):
    """One version is served, so that all versions are that one."""
    request = get_model_status_pb2.GetModelStatusRequest()
    assert refusal(stubs[1].GetModelStatus, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "tiny"
    (status,) = stubs[1].GetModelStatus(request, timeout=30).model_version_status
    assert (status.version, status.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert status.status.error_code == 0
    request.model_spec.version.value = 4
    assert refusal(stubs[1].GetModelStatus, request) == ("NOT_FOUND", "Could not find version 4 of model tiny")
    request.model_spec.name = "other"
    request.model_spec.ClearField("version")
    assert refusal(stubs[1].GetModelStatus, request)[1] == "Could not find any versions of model other"


def test_regress_answers_example_by_example(stubs, then):
    """An ExampleListWithContext is flattened: each example, with the context's features, is scored alone."""
    context = present({"query": then.query(0).encode(), **then.context(0)})
    items = [present(item) for item in then.items(0)]
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "regress"
    for item in items:
        set_features(request.input.example_list.examples.add(), {**context, **item})
    response = stubs[0].Regress(request, timeout=30)
    values = [regression.value for regression in response.result.regressions]
    assert len(values) == len(items)
    assert (response.model_spec.name, response.model_spec.signature_name) == ("tiny", "regress")
    assert response.model_spec.version.value == 1
    predict = predict_pb2.PredictRequest()
    predict.model_spec.CopyFrom(request.model_spec)
    examples = [example.SerializeToString() for example in request.input.example_list.examples]
    predict.inputs["inputs"].CopyFrom(tf.make_tensor_proto(np.array(examples, object)))
    same = tf.make_ndarray(stubs[0].Predict(predict, timeout=30).outputs["outputs"])
    np.testing.assert_allclose(values, same, rtol=0, atol=TOLERANCE)
    lists = request.input.example_list_with_context
    set_features(lists.context, context)
    for item in items:
        set_features(lists.examples.add(), item)
    again = stubs[0].Regress(request, timeout=30).result.regressions
    np.testing.assert_allclose([regression.value for regression in again], values, rtol=0, atol=TOLERANCE)


def test_many_at_once(client, now):
    answers, faults = {}, []

    def ask(q):
        try:
            answers[q] = client.rank(now.query(q), now.ids(q), **now.context(q))
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=ask, args=(q % len(now),)) for q in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    for q, ranked in answers.items():
        assert_table_scores(ranked.scores, np.sort(now.predicted[q])[::-1])


@pytest.mark.embedded_only
def test_port_in_use_is_told(served, server):
    from tfmmrank.serving import serve

    with pytest.raises(OSError, match="cannot listen on .*: is another server there"):
        serve(served.model_dir, port=int(server.address.rpartition(":")[2]))


@pytest.mark.embedded_only
def test_folder_without_a_version_is_told(served, tmp_path):
    from tfmmrank.serving import serve

    with pytest.raises(FileNotFoundError, match="nowhere: is no folder"):
        serve(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no version of a model"):
        serve(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"give its parent, {served.model_dir}"):
        serve(served.model_dir / "1")
    with pytest.raises(FileNotFoundError, match=f"a folder named by a number.; {served.model_dir} does"):
        serve(served.model_dir.parent)
    with pytest.raises(FileNotFoundError, match="has no version 7; versions: 1"):
        serve(served.model_dir, version=7)
