"""Tensors from JSON, as TensorFlow Serving's REST API takes them: a row an instance, or a column an input."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from tfmmrank.serving.protocol.tensors import type_name
from tfmmrank.serving.server.json_text import decode_base64, invalid, is_base64, place, shown, type_text
from tfmmrank.stack import tf

_LARGEST_INTEGER = {np.dtype(np.float32): 2**24 - 1, np.dtype(np.float64): 2**53 - 1}  # as TF Serving draws the line
_MOST_AXES = 32  # numpy's, before 2.0


def signature_name(document: Mapping[str, Any]) -> str:
    """A request's ``signature_name``; empty when it has none.

    Raises:
        RequestError: when it is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def fill_inputs(document: Mapping[str, Any], infos: Mapping[str, Any], inputs: Any) -> bool:
    """Fills a PredictRequest's inputs from a JSON request.

    Args:
        document: the request: ``instances``, a list of values or of ``{input: value}``; or ``inputs``, a value or
            ``{input: [value, …]}``. A value is a number, a bool, a string, ``{"b64": …}``, or lists of them.
        infos: the signature's TensorInfo by input.
        inputs: the request's map of TensorProto.

    Returns:
        Whether the request was written in rows (``instances``), and the answer has to be.

    Raises:
        RequestError: for a request that does not fit the signature, telling the input and the place in it.
    """
    rows = "instances" in document
    if rows and "inputs" in document:
        raise invalid(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if not rows and "inputs" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    if not infos:
        raise invalid("Failed to get input map for signature: it has no inputs; call it over gRPC")
    columns = _from_rows(document["instances"], infos) if rows else _from_columns(document["inputs"], infos)
    for name, value in columns.items():
        _fill_tensor(name, value, infos[name].dtype, inputs[name])
    return rows


def _from_rows(instances: Any, infos: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {shown(instances)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid("JSON Value: [] No values in 'instances' array")
    if not isinstance(instances[0], dict) or is_base64(instances[0]):
        return {_only_input(infos, "instances is a plain list, but expecting list of objects"): instances}
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise invalid(f"Expecting object but got {type_text(instance)} at item {number} of input list")
        if instance.keys() != infos.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {shown(instance)} keys must "
                f"be equal to: {','.join(sorted(infos))}"
            )
    return {name: [instance[name] for instance in instances] for name in infos}


def _from_columns(inputs: Any, infos: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(inputs, dict) or is_base64(inputs):
        return {_only_input(infos, "inputs is a plain value/list, but expecting an object"): inputs}
    for name in infos:
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: inputs[name] for name in infos}  # others are left out, as TF Serving does


def _only_input(infos: Mapping[str, Any], complaint: str) -> str:
    if len(infos) > 1:
        raise invalid(f"{complaint} as multiple input tensors required: {','.join(sorted(infos))}")
    return next(iter(infos))


def _fill_tensor(name: str, value: Any, dtype: int, tensor: Any) -> None:
    shape, flat = _flatten(name, value)
    tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if type_name(dtype) == "string":
        tensor.string_val.extend(_strings(name, flat, shape))
    else:
        tensor.tensor_content = _numbers(name, flat, shape, dtype).tobytes()


def _flatten(name: str, value: Any) -> tuple[list[int], list[Any]]:
    """The shape of nested lists, and their values in one list; level by level, so that no nesting is too deep."""
    shape: list[int] = []
    values = [value]
    while values and isinstance(values[0], list):
        if len(shape) == _MOST_AXES:
            raise invalid(f'input "{name}": lists in lists of more than {_MOST_AXES} levels')
        size = len(values[0])
        if {*map(type, values)} != {list} or {*map(len, values)} != {size}:
            index = next(i for i, v in enumerate(values) if not isinstance(v, list) or len(v) != size)
            got = f"list of {len(values[index])}" if isinstance(values[index], list) else shown(values[index])
            raise invalid(f'input "{name}" at {place(index, shape)}: {got}; expected a list of {size}, as its first')
        shape.append(size)
        values = list(chain.from_iterable(values))
    if list in {*map(type, values)}:
        index = next(i for i, v in enumerate(values) if isinstance(v, list))
        raise invalid(f'input "{name}" at {place(index, shape)}: a list; expected a value, as its first')
    return shape, values


def _strings(name: str, flat: list[Any], shape: list[int]) -> list[bytes]:
    _check_types(name, flat, shape, {str, dict}, "string")
    return [value.encode("utf-8") if isinstance(value, str) else decode_base64(value) for value in flat]


def _numbers(name: str, flat: list[Any], shape: list[int], dtype: int) -> np.ndarray:
    wanted = np.dtype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    if wanted == np.bool_:
        _check_types(name, flat, shape, {bool}, "bool")
        return np.array(flat, wanted)
    if wanted in _LARGEST_INTEGER:
        _check_types(name, flat, shape, {int, float}, type_name(dtype))
        return _floats(name, flat, shape, wanted)
    if wanted.kind in "iu":
        _check_types(name, flat, shape, {int}, type_name(dtype))
        limits = np.iinfo(wanted)
        for index, value in enumerate(flat):
            if not limits.min <= value <= limits.max:
                raise invalid(
                    f'input "{name}" at {place(index, shape)}: JSON Value: {shown(value)} is not of expected type: '
                    f"{type_name(dtype)}"
                )
        return np.array(flat, wanted)
    raise invalid(f'input "{name}" is {type_name(dtype)}, which JSON cannot give; call the model over gRPC')


def _floats(name: str, flat: list[Any], shape: list[int], wanted: np.dtype) -> np.ndarray:
    """Floats; refused are whole numbers of more digits than the type has, and numbers past its largest."""
    largest = _LARGEST_INTEGER[wanted]
    try:
        values = np.array(flat, np.float64)
    except OverflowError as error:
        raise invalid(f'input "{name}": Number too big to be stored in double') from error
    lossy = np.isfinite(values) & (np.abs(values) > np.finfo(wanted).max)
    if int in {*map(type, flat)}:
        lossy |= [isinstance(v, int) and abs(v) > largest and -(2**63) <= v < 2**64 for v in flat]
    if lossy.any():
        index = int(lossy.argmax())
        raise invalid(
            f'input "{name}" at {place(index, shape)}: Cannot convert JSON value: {shown(flat[index])} to '
            f"{'float' if wanted == np.float32 else 'double'} without loss of precision."
        )
    return values.astype(wanted)


def _check_types(name: str, flat: list[Any], shape: list[int], allowed: set[type], wanted: str) -> None:
    if {*map(type, flat)} <= allowed:
        return
    index, value = next((i, v) for i, v in enumerate(flat) if type(v) not in allowed)
    raise invalid(
        f'input "{name}" at {place(index, shape)}: JSON Value: {shown(value)} Type: {type_text(value)} is not of '
        f"expected type: {wanted}"
    )
