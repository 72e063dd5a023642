"""TensorProto to numpy and back, without TensorFlow.

Works on any class that has TensorProto's fields: the generated one and that of ``tfmmrank.serving.protocol.wire``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

# What a shape may claim beyond the values that are sent: a request of a few bytes must not take gigabytes. An axis of 0
# counts as 1, for a graph works along the others all the same.
MAX_UNSENT = 1 << 15  # elements: 32 lists of 1,000 places
_MAX_REPEATED = 1 << 20  # bytes of a string that repeats: it may be a list of many items


class _Type(NamedTuple):
    number: int  # tensorflow.DataType
    name: str
    numpy: Any
    field: str


_TYPES = [
    _Type(1, "float", np.dtype(np.float32), "float_val"),
    _Type(2, "double", np.dtype(np.float64), "double_val"),
    _Type(3, "int32", np.dtype(np.int32), "int_val"),
    _Type(4, "uint8", np.dtype(np.uint8), "int_val"),
    _Type(5, "int16", np.dtype(np.int16), "int_val"),
    _Type(6, "int8", np.dtype(np.int8), "int_val"),
    _Type(7, "string", np.dtype(object), "string_val"),
    _Type(9, "int64", np.dtype(np.int64), "int64_val"),
    _Type(10, "bool", np.dtype(np.bool_), "bool_val"),
    _Type(17, "uint16", np.dtype(np.uint16), "int_val"),
    _Type(22, "uint32", np.dtype(np.uint32), "uint32_val"),
    _Type(23, "uint64", np.dtype(np.uint64), "uint64_val"),
]
_BY_NUMBER = {kind.number: kind for kind in _TYPES}
_BY_NUMPY = {kind.numpy: kind for kind in _TYPES}


def type_name(number: int) -> str:
    """TensorFlow's name of a data type, such as ``float`` or ``string``."""
    return _BY_NUMBER[number].name if number in _BY_NUMBER else f"DataType({number})"


def write_tensor(proto: Any, array: Any) -> None:
    """Fills a TensorProto.

    Args:
        proto: an empty TensorProto.
        array: an array; str and bytes become strings, str as UTF-8.

    Raises:
        TypeError: for values that TensorFlow has no type for.
    """
    array = np.asarray(array)
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype not in _BY_NUMPY:
        raise TypeError(f"cannot send an array of dtype {array.dtype}; expected numbers, bools, str or bytes")
    kind = _BY_NUMPY[array.dtype]
    proto.dtype = kind.number
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if kind.name == "string":
        proto.string_val.extend(_as_bytes(value) for value in array.ravel().tolist())
    else:
        getattr(proto, kind.field).extend(array.ravel().tolist())


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    raise TypeError(f"cannot send {value!r} ({type(value).__name__}) in a string tensor; expected str or bytes")


def read_tensor(proto: Any) -> np.ndarray:
    """A TensorProto's array; strings as an object array of bytes.

    As in TensorFlow, fewer values than elements means that the last one repeats, here up to ``MAX_UNSENT`` elements.

    Raises:
        ValueError: for a type that is not supported, an unknown shape, values that do not fill the shape, or a shape
            far beyond the values.
    """
    if proto.dtype not in _BY_NUMBER:
        raise ValueError(f"has {type_name(proto.dtype)}, which is not supported")
    kind = _BY_NUMBER[proto.dtype]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"has shape {list(shape)}; expected sizes of at least 0")
    count = math.prod(shape)
    if proto.tensor_content and kind.name != "string":
        if len(proto.tensor_content) != count * kind.numpy.itemsize:
            raise ValueError(f"has {len(proto.tensor_content)} bytes for shape {list(shape)} of {kind.name}")
        return np.frombuffer(proto.tensor_content, kind.numpy.newbyteorder("<")).astype(kind.numpy).reshape(shape)
    values = getattr(proto, kind.field)
    if len(values) > count or (count and not values):
        raise ValueError(f"has {len(values)} values for shape {list(shape)}")
    _check_unsent(values, shape, count)
    array = np.empty(count, kind.numpy)
    try:
        array[: len(values)] = values
    except OverflowError as error:
        raise ValueError(f"has a value that does not fit {kind.name}") from error
    if len(values) < count:
        array[len(values) :] = values[-1]
    return array.reshape(shape)


def _check_unsent(values: Any, shape: tuple[int, ...], count: int) -> None:
    if len(values) < math.prod(max(size, 1) for size in shape) > MAX_UNSENT:
        raise ValueError(
            f"has {len(values)} values for shape {list(shape)}; of more than {MAX_UNSENT} elements, each has to be sent"
        )
    if len(values) < count and isinstance(values[-1], bytes):
        repeated = (count - len(values)) * len(values[-1])
        if repeated > _MAX_REPEATED:
            raise ValueError(f"repeats its last value for {repeated} bytes; expected at most {_MAX_REPEATED}")
