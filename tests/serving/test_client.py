"""The client: without TensorFlow, byte for byte TF Serving's messages, and errors that tell what to do."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.serving import served_shop
from tfmmrank.serving import Client, ServingError
from tfmmrank.serving.client.answers import RankedList
from tfmmrank.serving.client.questions import Target
from tfmmrank.serving.client.raw_values import raw_array
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor


def test_client_does_without_tensorflow():
    code = (
        "import sys\n"
        "from tfmmrank.serving import AsyncClient, Client, ServingError\n"
        "try: Client('127.0.0.1:1', 'm', timeout=0.2).status()\n"
        "except ServingError as error: print(error.code)\n"
        "print([m for m in ('tensorflow', 'tf_keras', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert out[1] == "[]"


ARRAYS = [
    np.array([[1.5, -2.0], [np.nan, np.inf]], np.float32), np.array([1e300]), np.array([[3], [-4]], np.int32),
    np.array(7, np.int64), np.array([True, False]), np.array([b"a\0b", b""], object), np.empty((2, 0), np.float32),
    np.array([250, 3], np.uint8),
]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_tensors_are_what_tensorflow_reads_and_writes(array):
    from tensorflow.core.framework import tensor_pb2

    from tfmmrank.stack import tf

    mine = wire.TensorProto()
    write_tensor(mine, array)
    theirs = tensor_pb2.TensorProto.FromString(mine.SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(theirs), array)
    np.testing.assert_array_equal(read_tensor(mine), array)
    for proto in (tf.make_tensor_proto(array), theirs):  # tensor_content, and values one by one
        again = read_tensor(wire.TensorProto.FromString(proto.SerializeToString()))
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)


def test_last_value_repeats_and_broken_tensors_are_refused():
    proto = wire.TensorProto(dtype=1, float_val=[1.0, 2.0])
    proto.tensor_shape.dim.add(size=4)
    assert read_tensor(proto).tolist() == [1.0, 2.0, 2.0, 2.0]
    proto.tensor_shape.dim[0].size = 1
    with pytest.raises(ValueError, match="has 2 values for shape"):
        read_tensor(proto)
    proto = wire.TensorProto(dtype=3, tensor_content=b"abc")
    with pytest.raises(ValueError, match="has 3 bytes for shape"):
        read_tensor(proto)
    with pytest.raises(TypeError, match="complex64"):
        write_tensor(wire.TensorProto(), np.zeros(1, np.complex64))
    with pytest.raises(TypeError, match="expected str or bytes"):
        write_tensor(wire.TensorProto(), np.array(["a", None], object))


@pytest.mark.parametrize(
    ("proto", "shape", "message"),
    [
        ({"dtype": 7}, (0, 2**31 - 1), "has 0 values for shape .*2147483647.*; of more than 32768 elements, each has"),
        ({"dtype": 1}, (2**31 - 1, 0), "each has to be sent"),
        ({"dtype": 1}, (40_000, 0, 2), "each has to be sent"),
        ({"dtype": 7, "string_val": [b""]}, (1, 1 << 16), "has 1 values for shape"),
        ({"dtype": 1, "float_val": [1.0, 2.0]}, (1 << 16,), "has 2 values for shape"),
        ({"dtype": 7, "string_val": [b"ab" * 5000]}, (200,), "repeats its last value for 1990000 bytes"),
    ],
)
def test_a_few_bytes_do_not_ask_for_gigabytes(proto, shape, message):
    proto = wire.TensorProto(**proto)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ValueError, match=message):
        read_tensor(proto)


def test_what_was_sent_may_be_large_and_some_may_repeat():
    sent = wire.TensorProto()
    write_tensor(sent, np.ones((1, 50_000), np.float32))
    assert read_tensor(sent).shape == (1, 50_000)
    repeated = wire.TensorProto(dtype=7, string_val=[b"a"])
    for size in (32, 1000):
        repeated.tensor_shape.dim.add(size=size)
    assert read_tensor(repeated).tolist() == [[b"a"] * 1000] * 32
    empty = wire.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 0}, {"size": 1000}]})
    assert read_tensor(empty).shape == (0, 1000)


def test_messages_are_tf_servings():
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

    def same(mine, theirs):
        for options in ({"deterministic": True},):
            assert mine.SerializeToString(**options) == theirs.SerializeToString(**options)

    pairs = [
        (wire.PredictRequest, predict_pb2.PredictRequest), (wire.PredictResponse, predict_pb2.PredictResponse),
        (wire.GetModelMetadataRequest, get_model_metadata_pb2.GetModelMetadataRequest),
        (wire.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
        (wire.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
        (wire.SignatureDefMap, get_model_metadata_pb2.SignatureDefMap),
    ]  # fmt: skip

    def fill(message):
        if hasattr(message, "model_spec"):
            message.model_spec.name = "m"
            message.model_spec.version.value = 3
            message.model_spec.signature_name = "s"
        if hasattr(message, "output_filter"):
            message.output_filter.append("scores")
        for tensors in ("inputs", "outputs"):
            if hasattr(message, tensors):
                write_tensor(getattr(message, tensors)["x"], np.array([[1.5]], np.float32))
        if hasattr(message, "metadata_field"):
            message.metadata_field.append("signature_def")
        if hasattr(message, "model_version_status"):
            message.model_version_status.add(version=4, state=30).status.error_message = "none"
        if hasattr(message, "signature_def"):
            signature = message.signature_def["rank"]
            signature.method_name = "predict"
            signature.inputs["x"].name = "x:0"
            signature.inputs["x"].dtype = 1
            signature.inputs["x"].tensor_shape.dim.add(size=-1)
        return message

    for mine, theirs in pairs:
        same(fill(mine()), fill(theirs()))
    for request in (wire.PredictRequest(), predict_pb2.PredictRequest()):
        Target("m", label="canary").fill(request.model_spec)
        assert request.SerializeToString() == b"\n\x0b\n\x01m\x22\x06canary"


def test_metadata_and_status(client):
    assert client.status() == {1: "AVAILABLE"}
    rank = client.metadata()["rank"]
    assert rank.inputs["item_ids"] == ("string", (-1, -1))
    assert rank.inputs["user age"] == ("float", (-1,))
    assert rank.outputs == {"scores": ("float", (-1, -1)), "known": ("bool", (-1, -1))}


def test_context_left_out_is_missing(client, now):
    alone = client.rank(now.query(0), now.ids(0))
    told = client.rank(now.query(0), now.ids(0), **{"user age": None, "season": ""})
    np.testing.assert_array_equal(alone.scores, told.scores)
    other = client.rank(now.query(0), now.ids(0), **{"user age": 70.0, "season": "summer"})
    assert not np.allclose(alone.scores, other.scores)


def test_empty_lists(client, now):
    assert len(client.rank("red", [])) == 0
    empty, full = client.rank_batch(["red", now.query(0)], [[], now.ids(0)])
    assert len(empty) == 0
    assert len(full) == now.size(0)
    assert len(client.rank_features("red", [])) == 0
    out = client.predict(
        "rank",
        {
            "query": ["red"], "season": [""], "user age": np.array([1.0], np.float32),
            "item_ids": np.empty((1, 0), object), "num_items": np.array([0], np.int32),
        },
    )  # fmt: skip
    assert out["scores"].shape == (1, 0)


def test_features_left_out_are_missing(client, then):
    items = then.items(0)
    bare = [{"title": item["title"]} for item in items]
    told = [{"title": i["title"], "picture": None, "price": float("nan"), "Brand": "", "past_ctr": None} for i in items]
    query = then.query(0)
    np.testing.assert_array_equal(client.rank_features(query, bare).scores, client.rank_features(query, told).scores)


def test_equal_scores_keep_the_requests_order():
    ranked = RankedList.of(["a", "b", "c"], np.array([1.0, 2.0, 1.0], np.float32), np.array([True, True, True]))
    assert [item.item_id for item in ranked] == ["b", "a", "c"]
    assert ranked.order.tolist() == [1, 0, 2]
    assert ranked[0] == ("b", 2.0, True)


def test_mistakes_are_named(client):
    with pytest.raises(ValueError, match=r'no context column "seasons"; did you mean "season"\?'):
        client.rank("red", ["i1"], seasons="summer")
    with pytest.raises(ValueError, match=r'no item column "titel"; did you mean "title"\?'):
        client.rank_features("red", [{"titel": "shoe"}])
    with pytest.raises(ValueError, match=r'column "price", row 1: got .cheap.; expected a number'):
        client.rank_features("red", [{"price": 3}, {"price": "cheap"}])
    with pytest.raises(ValueError, match=r'column "picture", row 0: .*the bytes of a picture'):
        client.rank_features("red", [{"picture": 7}])
    with pytest.raises(ValueError, match=r"items\[0\] is 'i1'; expected a mapping"):
        client.rank_features("red", ["i1"])
    with pytest.raises(ValueError, match="2 queries and 1 lists"):
        client.rank_batch(["a", "b"], [["i1"]])
    with pytest.raises(ValueError, match=r'"user age" has 1 values; expected 2'):
        client.rank_batch(["a", "b"], [["i1"], ["i2"]], **{"user age": [3]})


def test_wide_columns():
    values = raw_array("features", [[1, 2], None], "float", (2,))
    np.testing.assert_array_equal(values, np.array([[1, 2], [np.nan, np.nan]], np.float32))
    with pytest.raises(ValueError, match=r'column "features", row 0: got \[1, 2, 3\]; expected 2 numbers'):
        raw_array("features", [[1, 2, 3]], "float", (2,))


def test_the_servers_refusals_are_errors(server):
    with Client(server.address, "other") as client, pytest.raises(ServingError, match=r"Latest\(other\)") as caught:
        client.rank("red", ["i1"])
    assert caught.value.code == "NOT_FOUND"
    with Client("127.0.0.1:1", "tiny", timeout=0.5) as client, pytest.raises(ServingError, match="tfmmrank serve"):
        client.rank("red", ["i1"])
    with Client(server.address, "tiny", version=9) as client, pytest.raises(ServingError, match=r"Specific\(tiny, 9\)"):
        client.rank("red", ["i1"])


def test_a_broken_picture_is_a_missing_one(client):
    """It must not fail the request that ninety-nine other items are in."""
    shoe, hat = {"item_id": "shoe", "title": "shoe"}, {"item_id": "hat", "title": "hat"}
    broken = served_shop.encode_picture(form="PNG")[:40]
    found = client.rank_features("red", [{**shoe, "picture": broken}, hat])
    expected = client.rank_features("red", [{**shoe, "picture": b""}, hat])
    assert found.item_ids == expected.item_ids
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_unknown_items_come_last_whatever_their_score():
    ranked = RankedList.of(["a", "b", "c", "d"], np.array([1.0, 9.0, 2.0, 2.0]), np.array([True, False, True, True]))
    assert ranked.item_ids == ["c", "d", "a", "b"]
    assert ranked.scores.tolist() == [2.0, 2.0, 1.0, 9.0]
    assert ranked.known.tolist() == [True, True, True, False]


def test_one_id_is_no_list_of_ids(client):
    with pytest.raises(TypeError, match=r"item_ids is 'sku001'; expected a sequence of ids, such as \['sku001'\]"):
        client.rank("red mug", "sku001")


def test_a_pictures_path_is_no_picture(client):
    with pytest.raises(ValueError, match=r'"picture", row 1: got the str .*read the file first'):
        client.rank_features("red", [{"picture": b""}, {"picture": "images/a b/i1.jpg".replace(" ", "_")}])
