"""tf.Examples as JSON: what TensorFlow Serving's REST API takes for Classify and Regress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmmrank.serving.server.json_text import decode_base64, invalid, is_base64, shown, type_text

_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def fill_examples(document: Mapping[str, Any], given: Any) -> None:
    """Fills a Classify or Regress request's ``input``.

    Args:
        document: the request: ``examples``, a list of ``{feature: value or [value, …]}``, and if wanted ``context``,
            one such object whose features every example shares. Strings and ``{"b64": …}`` are bytes, whole numbers
            and bools int64, other numbers float32; a feature's values are of one kind.
        given: the request's tensorflow.serving.Input.

    Raises:
        RequestError: for a request of another form, telling the example and the feature.
    """
    examples = document.get("examples")
    if "examples" not in document:
        raise invalid(f"JSON Value: {shown(document)} key 'examples' is expected and was not found")
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {shown(examples)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("JSON Value: [] 'examples' value is an empty array")
    filled = given.example_list.examples
    if "context" in document:
        filled = given.example_list_with_context.examples
        _fill_example("context", document["context"], given.example_list_with_context.context)
    for number, example in enumerate(examples):
        _fill_example(f"examples[{number}]", example, filled.add())


def _fill_example(where: str, features: Any, example: Any) -> None:
    if not isinstance(features, dict):
        raise invalid(f"{where}: Example must be JSON object but got JSON {type_text(features)}")
    example.SetInParent()
    for name, content in features.items():
        feature = example.features.feature[name]
        for value in content if isinstance(content, list) else [content]:
            _add_value(f"{where}: Feature: {name}", value, feature)


def _add_value(where: str, value: Any, feature: Any) -> None:
    kind, converted = _feature_value(where, value)
    filled = feature.WhichOneof("kind")
    if filled not in (None, kind):
        raise invalid(f"{where}: Unexpected element type: {shown(value)} expecting type: {_KINDS[filled]}")
    getattr(feature, kind).value.append(converted)


def _feature_value(where: str, value: Any) -> tuple[str, bytes | int | float]:
    """The list of a Feature that a JSON value belongs to, and the value in it."""
    if isinstance(value, str):
        return "bytes_list", value.encode("utf-8")
    if is_base64(value):
        return "bytes_list", decode_base64(value)
    if isinstance(value, int):  # bools too
        if not -(2**63) <= value < 2**63:
            raise invalid(f"{where} has {shown(value)}. Only int64 is supported.")
        return "int64_list", int(value)
    if isinstance(value, float):
        if _LARGEST_FLOAT < abs(value) < float("inf"):
            raise invalid(f"{where}: Cannot convert JSON value: {shown(value)} to float without loss of precision.")
        return "float_list", value
    raise invalid(f"{where} has element with unexpected JSON type: {type_text(value)}")
