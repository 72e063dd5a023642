"""JSON requests to tensors and tensors to JSON answers, against TensorFlow's own protos and Python's JSON."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from tfmmrank.export.servable import RequestError
from tfmmrank.serving.server.json_answers import classifications_text, outputs_text, regressions_text
from tfmmrank.serving.server.json_tensors import fill_inputs, signature_name
from tfmmrank.serving.server.json_text import parse_object
from tfmmrank.stack import tf

NUMBERS = {"x": tf.float32}
SHOP = {"query": tf.string, "item_ids": tf.string, "num_items": tf.int32}


def read(text, **types):
    """The arrays of a JSON request, and whether it was in rows."""
    request = predict_pb2.PredictRequest()
    infos = {name: meta_graph_pb2.TensorInfo(dtype=dtype.as_datatype_enum) for name, dtype in types.items()}
    rows = fill_inputs(parse_object(text.encode()), infos, request.inputs)
    return {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}, rows


def refusal(text, **types):
    with pytest.raises(RequestError) as caught:
        read(text, **types)
    assert caught.value.code == "INVALID_ARGUMENT"
    return str(caught.value)


def protos(**arrays):
    return {name: tf.make_tensor_proto(array) for name, array in arrays.items()}


class TestRows:
    def test_objects_become_one_tensor_an_input(self):
        inputs, rows = read(
            '{"instances": [{"query": "红 shoe", "item_ids": ["a", "b"], "num_items": 2},'
            ' {"query": "", "item_ids": ["c", ""], "num_items": 1}]}',
            **SHOP,
        )
        assert rows
        assert inputs["query"].tolist() == ["红 shoe".encode(), b""]
        assert inputs["item_ids"].tolist() == [[b"a", b"b"], [b"c", b""]]
        assert inputs["num_items"].tolist() == [2, 1]
        assert inputs["num_items"].dtype == np.int32

    def test_plain_values_are_the_only_input(self):
        inputs, rows = read('{"instances": [[1, 2.5], [3, -4]]}', **NUMBERS)
        assert rows
        assert inputs["x"].tolist() == [[1.0, 2.5], [3.0, -4.0]]

    def test_bytes_without_a_name_are_the_only_input(self):
        inputs, _ = read('{"instances": [{"b64": "AP8="}, {"b64": "AP8"}, "a b"]}', x=tf.string)
        assert inputs["x"].tolist() == [b"\x00\xff", b"\x00\xff", b"a b"]

    @pytest.mark.parametrize(
        ("instances", "message"),
        [
            ("3", "to be an list/array"),
            ("[]", "No values in 'instances' array"),
            ('["a"]', "instances is a plain list, but expecting list of objects"),
            ('[{"b64": "AA=="}]', "instances is a plain list, but expecting list of objects"),
            ('[{"query": "a", "item_ids": [], "num_items": 0}, 5]', "Expecting object but got Number at item 1"),
            ('[{"query": "a", "num_items": 0}]', "keys must be equal to: item_ids,num_items,query"),
            ('[{"query": "a", "item_ids": [], "num_items": 0, "size": 1}]', "keys must be equal to"),
            (
                '[{"query": "a", "item_ids": ["x"], "num_items": 1}, {"query": "b", "item_ids": [], "num_items": 0}]',
                'input "item_ids" at [1]: list of 0; expected a list of 1',
            ),
        ],
    )
    def test_what_is_no_list_of_rows_is_refused(self, instances, message):
        assert message in refusal(f'{{"instances": {instances}}}', **SHOP)


class TestColumns:
    def test_an_object_holds_a_tensor_an_input(self):
        inputs, rows = read('{"inputs": {"query": "a", "item_ids": [["x"], ["y"]], "num_items": []}}', **SHOP)
        assert not rows
        assert inputs["query"].shape == ()
        assert inputs["item_ids"].tolist() == [[b"x"], [b"y"]]
        assert inputs["num_items"].shape == (0,)

    def test_a_value_is_the_only_input(self):
        assert read('{"inputs": 2.5}', **NUMBERS)[0]["x"] == 2.5
        assert read('{"inputs": [[1], [2]]}', **NUMBERS)[0]["x"].shape == (2, 1)
        assert read('{"inputs": {"b64": "YQ=="}}', x=tf.string)[0]["x"] == b"a"

    def test_a_key_that_is_no_input_is_left_out(self):
        assert read('{"inputs": {"x": [1], "y": 2}, "comment": 3}', **NUMBERS)[0].keys() == {"x"}

    def test_what_does_not_name_all_inputs_is_refused(self):
        assert "Missing named input: num_items" in refusal('{"inputs": {"query": "a", "item_ids": "b"}}', **SHOP)
        assert "inputs is a plain value/list" in refusal('{"inputs": ["a"]}', **SHOP)


def test_a_request_is_either_in_rows_or_in_columns():
    assert "expecting only one of" in refusal('{"instances": [1], "inputs": [1]}', **NUMBERS)
    assert "Missing 'inputs' or 'instances' key" in refusal('{"instance": [1]}', **NUMBERS)
    assert "no inputs" in refusal('{"inputs": {}}')


class TestNumbers:
    @pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
    def test_tokens_and_exponents_are_floats(self, dtype):
        values = read('{"inputs": [NaN, Infinity, -Infinity, 1e3, 0.1, -0.0, 1e-400, 7]}', x=dtype)[0]["x"]
        assert values.dtype == dtype.as_numpy_dtype
        np.testing.assert_array_equal(values, np.array([np.nan, np.inf, -np.inf, 1000, 0.1, -0.0, 0, 7], values.dtype))
        assert math.copysign(1, values[5]) == -1

    @pytest.mark.parametrize(
        ("value", "dtype"),
        [("16777216", tf.float32), ("-16777216", tf.float32), ("9007199254740992", tf.float64), ("3.5e38", tf.float32)],
    )
    def test_a_number_that_a_float_cannot_hold_is_refused(self, value, dtype):
        message = refusal(f'{{"inputs": [1, {value}]}}', x=dtype)
        assert 'input "x" at [1]' in message
        assert "without loss of precision" in message

    def test_the_largest_whole_numbers_of_floats(self):
        assert read('{"inputs": 16777215}', x=tf.float32)[0]["x"] == 16777215
        assert read('{"inputs": 9007199254740991}', x=tf.float64)[0]["x"] == 9007199254740991
        assert read('{"inputs": 16777216.0}', x=tf.float32)[0]["x"] == 16777216  # as RapidJSON: a decimal is one
        assert read(f'{{"inputs": {2**70}}}', x=tf.float64)[0]["x"] == 2.0**70  # more than 64 bits: read as a decimal

    @pytest.mark.parametrize("value", ["1e309", "-1e309", "1" + "0" * 400])
    def test_a_number_past_every_float_is_refused(self, value):
        assert "Number too big to be stored in double" in refusal(f'{{"inputs": [{value}]}}', x=tf.float64)

    @pytest.mark.parametrize("dtype", [tf.int8, tf.uint8, tf.int32, tf.int64, tf.uint32, tf.uint64])
    def test_whole_numbers_within_their_range(self, dtype):
        low, high = dtype.min, dtype.max
        values = read(f'{{"inputs": [[{low}], [{high}]]}}', x=dtype)[0]["x"]
        assert values.tolist() == [[low], [high]]
        assert values.dtype == dtype.as_numpy_dtype
        for wrong in (low - 1, high + 1):
            assert f'input "x" at [1]: JSON Value: {wrong} ' in refusal(f'{{"inputs": [0, {wrong}]}}', x=dtype)

    @pytest.mark.parametrize(
        ("value", "dtype", "kind"),
        [
            ("1.0", tf.int32, "Number"), ("true", tf.int64, "True"), ("false", tf.float32, "False"),
            ('"1"', tf.int32, "String"), ("null", tf.float32, "Null"), ("1", tf.bool, "Number"),
            ("1", tf.string, "Number"), ('{"b64": "AA=="}', tf.float32, "Object"), ("NaN", tf.int32, "Number"),
        ],
    )  # fmt: skip
    def test_a_value_of_another_type_is_refused(self, value, dtype, kind):
        message = refusal(f'{{"inputs": [[{value}]]}}', x=dtype)
        assert 'input "x" at [0][0]' in message
        assert f"Type: {kind} is not of expected type: {'float' if dtype == tf.float32 else dtype.name}" in message

    def test_bools(self):
        assert read('{"inputs": [true, false]}', x=tf.bool)[0]["x"].tolist() == [True, False]

    def test_a_type_that_json_cannot_give(self):
        assert "call the model over gRPC" in refusal('{"inputs": [1]}', x=tf.complex64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[[1, 2], [3]]", " at [1]: list of 1; expected a list of 2"),
        ("[[1, 2], 3]", " at [1]: 3; expected a list of 2"),
        ("[1, [2]]", " at [1]: a list; expected a value"),
        ("[[[1], [2]], [[3], [4, 5]]]", " at [1][1]: list of 2; expected a list of 1"),
        ("[" * 900 + "]" * 900, ": lists in lists of more than 32 levels"),
    ],
)
def test_ragged_lists_are_refused_and_the_place_is_told(value, message):
    assert f'input "x"{message}' in refusal(f'{{"inputs": {value}}}', **NUMBERS)


@pytest.mark.parametrize("value", ['{"b64": "a-_b"}', '{"b64": "abcde"}', '{"b64": 3}', '{"b65": "AA=="}', "{}"])
def test_what_is_no_base64_is_refused(value):
    assert "base64" in refusal(f'{{"inputs": {{"x": [{value}]}}}}', x=tf.string)


def test_signature_names_are_strings():
    assert signature_name({}) == ""
    assert signature_name({"signature_name": "rank"}) == "rank"
    with pytest.raises(RequestError, match="'signature_name' key must be a string value"):
        signature_name({"signature_name": 3})


class TestText:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "The document is empty"), (b" ", "at offset: 1"), (b'{"a": 1} x', "at offset: 9"),
            (b"[1]", "Is not object"), (b'{"a": 1, "a": 2}', 'key "a" stands twice'),
            (b'{"inputs": {"x": [1], "x": [2]}}', 'key "x" stands twice'),
            # Of 200,000 keys the last: to look for each among all would take hours.
            (b"{" + b"".join(b'"%d": 1, ' % n for n in range(200_000)) + b'"199999": 2}', 'key "199999" stands twice'),
            (b'{"a": "\xff"}', "not UTF-8, at offset: 7"),
            (b'{"a": "\\ud800"}', "surrogate"), (b'{"\\udc00": 1}', "surrogate"), (b'{"a": 01}', "at offset"),
            (b'{"a": ' + b"[" * 100_000, "nested too deeply"), (b'{"a":' * 100_000, "nested too deeply"),
            (b'{"a": ' + b"9" * 5000 + b"}", "JSON Parse error"),
        ],
    )  # fmt: skip
    def test_what_is_no_json_object_is_refused(self, body, message):
        with pytest.raises(RequestError) as caught:
            parse_object(body)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert message in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_a_mark_of_byte_order_and_pairs_of_surrogates_are_fine(self):
        assert parse_object(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


class TestAnswers:
    def test_rows_of_one_output_are_values(self):
        text = outputs_text(protos(scores=np.array([[0.1, 2], [3, -4e-7]], np.float32)), rows=True)
        assert json.loads(text) == {"predictions": [[0.1, 2.0], [3.0, -4e-7]]}

    def test_rows_of_several_outputs_are_objects(self):
        answer = outputs_text(
            protos(scores=np.array([1, 2], np.float32), known=np.array([[True], [False]]), n=np.array([7, 2**40])),
            rows=True,
        )
        assert json.loads(answer) == {
            "predictions": [{"known": [True], "n": 7, "scores": 1.0}, {"known": [False], "n": 2**40, "scores": 2.0}]
        }

    def test_columns(self):
        assert json.loads(outputs_text(protos(a=np.zeros((2, 0), np.int32)), rows=False)) == {"outputs": [[], []]}
        assert json.loads(outputs_text(protos(a=np.float64(0.1), b=np.array(["x"])), rows=False)) == {
            "outputs": {"a": 0.1, "b": ["x"]}
        }

    def test_rows_of_no_instances(self):
        assert json.loads(outputs_text(protos(a=np.zeros((0, 3), np.float32)), rows=True)) == {"predictions": []}

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"a": np.float32(1)}, "Tensor name: a has no shape information"),
            ({"a": np.zeros(2), "b": np.zeros(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
            ({}, "Cannot convert empty tensor map"),
        ],
    )
    def test_outputs_that_have_no_rows_are_refused(self, arrays, message):
        with pytest.raises(RequestError, match=message):
            outputs_text(protos(**arrays), rows=True)

    def test_a_type_that_json_has_not_is_refused(self):
        with pytest.raises(RequestError, match="Failed to write JSON value for tensor type: DataType"):
            outputs_text(protos(a=np.array([1j], np.complex64)), rows=False)

    def test_floats_that_are_no_numbers_are_tokens(self):
        assert outputs_text(protos(a=np.array([np.nan, np.inf, -np.inf], np.float32)), rows=False) == (
            '{"outputs": [NaN, Infinity, -Infinity]}'
        )

    @given(st.lists(st.floats(width=32), min_size=1))
    def test_floats_read_back_as_the_same_float32(self, values):
        array = np.array(values, np.float32)
        text = outputs_text(protos(a=array), rows=False)
        np.testing.assert_array_equal(np.array(json.loads(text)["outputs"], np.float32), array)
        assert max(map(len, text[13:-2].split(", "))) <= 16  # 9 digits at most: -1.23456789e-38

    def test_strings_and_bytes(self):
        data = ["颜色 \"'\n".encode(), b"\xff\x00"]
        text = outputs_text(protos(label=np.array(data, object), picture_bytes=np.array([b"abc"], object)), rows=False)
        assert json.loads(text) == {
            "outputs": {
                "label": ["颜色 \"'\n", {"b64": base64.b64encode(data[1]).decode()}],
                "picture_bytes": [{"b64": "YWJj"}],
            }
        }

    def test_classes_and_regressions(self):
        result = classification_pb2.ClassificationResult()
        for scores in ((0.1, 0.9), ()):
            example = result.classifications.add()
            for place, score in enumerate(scores):
                example.classes.add(label=f'"{place}"', score=score)
        assert json.loads(classifications_text(result)) == {"results": [[['"0"', 0.1], ['"1"', 0.9]], []]}
        numbers = regression_pb2.RegressionResult(regressions=[{"value": 0.1}, {"value": -3}])
        assert json.loads(regressions_text(numbers)) == {"results": [0.1, -3.0]}

    def test_results_of_nothing_are_refused(self):
        with pytest.raises(RequestError, match="Cannot convert empty ClassificationResults"):
            classifications_text(classification_pb2.ClassificationResult())
        with pytest.raises(RequestError, match="Cannot convert empty RegressionResults"):
            regressions_text(regression_pb2.RegressionResult())
