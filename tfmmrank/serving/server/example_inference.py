"""Classify, Regress and MultiInference: tf.Examples in, classes or values out, by a signature's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmmrank.export.request_error import RequestError
from tfmmrank.export.servable import CLASSIFY_METHOD, REGRESS_METHOD

_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"
_MAX_REPEATED = 1 << 28  # bytes of a context that stands before each example


def serialized_examples(source: Any) -> np.ndarray:
    """An Input's tf.Examples, serialized, ``[N]``.

    Of an ExampleListWithContext each example gets the context's features too: serialized messages are merged by
    joining them, and an example's own feature wins.

    Raises:
        RequestError: when there is none, or the context would be repeated for gigabytes.
    """
    kind = source.WhichOneof("kind")
    examples = getattr(source, kind).examples if kind else ()
    if not examples:
        raise RequestError("INVALID_ARGUMENT", "Input is empty.")
    context = b""
    if kind == "example_list_with_context":
        context = source.example_list_with_context.context.SerializeToString()
        if len(context) * len(examples) > _MAX_REPEATED:
            raise RequestError(
                "INVALID_ARGUMENT",
                f"a context of {len(context)} bytes before each of {len(examples)} examples makes more than "
                f"{_MAX_REPEATED} bytes; send fewer examples in a request",
            )
    return np.array([context + example.SerializeToString() for example in examples], object)


def classify_outputs(signature: Any) -> list[str]:
    """The outputs that Classify reads of a signature. Raises RequestError when it is none for it."""
    _check_method(signature, CLASSIFY_METHOD, "classification")
    if len(signature.outputs) not in (1, 2):
        raise RequestError("INVALID_ARGUMENT", f"Expected one or two output Tensors, found {len(signature.outputs)}")
    _check_input(signature, "classification")
    outputs = [name for name in (_CLASSES, _SCORES) if name in signature.outputs]
    if not outputs:
        raise RequestError(
            "FAILED_PRECONDITION",
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature was: {signature}",
        )
    return outputs


def regress_outputs(signature: Any) -> list[str]:
    """The outputs that Regress reads of a signature. Raises RequestError when it is none for it."""
    _check_method(signature, REGRESS_METHOD, "regression")
    if len(signature.outputs) != 1:
        raise RequestError("INVALID_ARGUMENT", "Expected one output Tensor.")
    _check_input(signature, "regression")
    if _OUTPUTS not in signature.outputs:
        raise RequestError("FAILED_PRECONDITION", f"No regression outputs found in SignatureDef: {signature}")
    return [_OUTPUTS]


def _check_method(signature: Any, method: str, what: str) -> None:
    if signature.method_name != method:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"Expected {what} signature method_name to be {method}. Was: {signature.method_name}",
        )
    if len(signature.inputs) != 1:
        raise RequestError("INVALID_ARGUMENT", "Expected one input Tensor.")


def _check_input(signature: Any, what: str) -> None:
    if _INPUTS not in signature.inputs:
        raise RequestError("FAILED_PRECONDITION", f"No {what} inputs found in SignatureDef: {signature}")


def fill_classifications(result: Any, outputs: Mapping[str, np.ndarray], examples: int) -> None:
    """Writes ``classes`` and/or ``scores`` ``[N, C]`` into a ClassificationResult. Raises RequestError."""
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None:
        _check_matrix(classes, _CLASSES, examples, classes.dtype == object, "DT_STRING")
    if scores is not None:
        _check_matrix(scores, _SCORES, examples, scores.dtype == np.float32, "DT_FLOAT")
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}",
        )
    width = (scores if classes is None else classes).shape[1]  # type: ignore[union-attr]
    for row in range(examples):
        classifications = result.classifications.add()
        for column in range(width):
            found = classifications.classes.add()
            if classes is not None:
                found.label = classes[row, column].decode("utf-8", "replace")
            if scores is not None:
                found.score = scores[row, column]


def _check_matrix(value: np.ndarray, name: str, examples: int, right_type: bool, wanted: str) -> None:
    if value.ndim != 2:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"Expected Tensor shape: [batch_size num_classes] but got {list(value.shape)}",
        )
    if not right_type:
        raise RequestError("INVALID_ARGUMENT", f"Expected {name} Tensor of {wanted}. Got: {value.dtype}")
    if len(value) != examples:
        raise RequestError("INVALID_ARGUMENT", f"Expected {name} output batch size of {examples}. Got: {len(value)}")


def fill_regressions(result: Any, outputs: Mapping[str, np.ndarray], examples: int) -> None:
    """Writes ``outputs`` ``[N]`` or ``[N, 1]`` into a RegressionResult. Raises RequestError."""
    value = outputs[_OUTPUTS]
    if value.ndim != 1 and value.shape[1:] != (1,):
        raise RequestError(
            "INVALID_ARGUMENT",
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(value.shape)}",
        )
    if len(value) != examples:
        raise RequestError(
            "INVALID_ARGUMENT", f"Input batch size did not match output batch size: {examples} vs. {len(value)}"
        )
    if value.dtype != np.float32:
        raise RequestError("INVALID_ARGUMENT", f"Expected output Tensor of DT_FLOAT.  Got: {value.dtype}")
    for number in value.ravel().tolist():
        result.regressions.add(value=number)
