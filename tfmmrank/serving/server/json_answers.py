"""Answers as JSON, as TensorFlow Serving's REST API writes them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfmmrank.serving.protocol.tensors import read_tensor, type_name
from tfmmrank.serving.server.json_text import BASE64_KEY, invalid

_BYTES_SUFFIX = "_bytes"  # outputs so named are bytes, not text


def outputs_text(outputs: Mapping[str, Any], rows: bool) -> str:
    """A PredictResponse's outputs as JSON.

    Args:
        outputs: TensorProto by output.
        rows: whether the request was written in rows: ``predictions``, a value an instance; else ``outputs``, whole
            tensors. A model with one output gives values; one with more gives objects.

    Raises:
        RequestError: for outputs that JSON cannot hold, or rows of outputs that are not as many.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    arrays = {name: _read(outputs[name]) for name in sorted(outputs)}
    if rows:
        _check_batch(arrays)
    texts = {name: _nested(_tokens(name, array), array.shape, int(rows)) for name, array in arrays.items()}
    if not rows:
        return f'{{"outputs": {_value_or_object({name: text[0] for name, text in texts.items()})}}}'
    names = list(texts)
    predictions = [_value_or_object(dict(zip(names, row, strict=True))) for row in zip(*texts.values(), strict=True)]
    return f'{{"predictions": {_list_text(predictions)}}}'


def classifications_text(result: Any) -> str:
    """A ClassificationResult as JSON: ``results``, for each example the ``[label, score]`` of its classes.

    Raises:
        RequestError: when there is none.
    """
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    examples = []
    for classifications in result.classifications:
        scores = _number_texts(np.array([entry.score for entry in classifications.classes], np.float32))
        labels = [json.dumps(entry.label, ensure_ascii=False) for entry in classifications.classes]
        examples.append(_list_text(_list_text(pair) for pair in zip(labels, scores, strict=True)))
    return f'{{"results": {_list_text(examples)}}}'


def regressions_text(result: Any) -> str:
    """A RegressionResult as JSON: ``results``, a number an example.

    Raises:
        RequestError: when there is none.
    """
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    values = np.array([regression.value for regression in result.regressions], np.float32)
    return f'{{"results": {_list_text(_number_texts(values))}}}'


def _read(tensor: Any) -> np.ndarray:
    try:
        return read_tensor(tensor)
    except ValueError as error:
        raise invalid(f"Failed to write JSON value for tensor type: {type_name(tensor.dtype)}") from error


def _check_batch(arrays: Mapping[str, np.ndarray]) -> None:
    expected = None
    for name, array in arrays.items():
        if not array.shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if expected is not None and len(array) != expected:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {expected}")
        expected = len(array)


def _tokens(name: str, array: np.ndarray) -> list[str]:
    """Each value's JSON, in one list."""
    if array.dtype.kind == "f":
        return _number_texts(array)
    if array.dtype == object:
        return [_string_text(value, name.endswith(_BYTES_SUFFIX)) for value in array.ravel().tolist()]
    if array.dtype == np.bool_:
        return ["true" if value else "false" for value in array.ravel().tolist()]
    return [str(value) for value in array.ravel().tolist()]


def _number_texts(array: np.ndarray) -> list[str]:
    """Floats as JSON: the fewest digits that read back as the same value; ``NaN`` and ``Infinity`` as tokens."""
    flat = array.ravel()
    texts = flat.astype(str).tolist()
    if not np.isfinite(flat).all():
        tokens = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
        texts = [tokens.get(text, text) for text in texts]
    return texts


def _string_text(value: bytes, as_bytes: bool) -> str:
    if not as_bytes:
        try:
            return json.dumps(value.decode("utf-8"), ensure_ascii=False)
        except UnicodeDecodeError:
            pass  # TF Serving would write the bytes as they are, which no reader of JSON takes
    return json.dumps({BASE64_KEY: base64.b64encode(value).decode("ascii")})


def _nested(tokens: list[str], shape: tuple[int, ...], axes: int) -> list[str]:
    """Puts brackets around the values of every axis past the first ``axes``."""
    for axis in range(len(shape) - 1, axes - 1, -1):
        size, count = shape[axis], math.prod(shape[:axis])
        tokens = [_list_text(tokens[i * size : (i + 1) * size]) for i in range(count)]
    return tokens


def _list_text(texts: Iterable[str]) -> str:
    return f"[{', '.join(texts)}]"


def _value_or_object(texts: Mapping[str, str]) -> str:
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {text}" for name, text in texts.items()) + "}"
