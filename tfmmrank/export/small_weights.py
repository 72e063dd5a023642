"""Weights of the towers in 16 or 8 bits, brought back to float32 where the graph reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfmmrank.stack import keras, tf

PRECISIONS = ("float32", "float16", "int8")
_LARGEST = 127  # of int8, symmetric: -128 is left out


class SmallWeights:
    """Small copies of the towers' matrices, which take their places while signatures are traced.

    Kernels and embedding tables (float32 weights of two or more axes) are kept as ``float16``, or as ``int8`` with a
    float32 scale for each output channel of a kernel (in an attention, of each head) and each row of a table
    (symmetric, rounded to nearest). Biases, norms, fusion, cross tower and score head stay float32, as do weights
    inside a TF Hub module, which no layer shows.

    On disk and in a server's memory a matrix takes a half, or a quarter, of its room: no float32 copy of it is kept. A
    kernel is brought to float32 anew in every run, which takes memory of its size for as long as it is used and time in
    proportion; of a table only the rows that are looked up are. So it pays where tables are most of a model, and costs
    where kernels are and requests are small. Nothing of it is folded into constants at load, since variables are none.

    Args:
        ranker: a built ``Ranker``.
        precision: one of ``PRECISIONS``; ``float32`` leaves all as it is.

    Raises:
        ValueError: for another precision.
    """

    def __init__(self, ranker: Any, precision: str) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f'weights is "{precision}"; expected one of {", ".join(PRECISIONS)}')
        self._made: dict[int, _Small] = {}
        self._places: list[tuple[Any, str, Callable[[], Any]]] = []
        if precision != "float32":
            for layer in _layers(ranker):
                self._replace(layer, precision)

    def _replace(self, layer: Any, precision: str) -> None:
        if isinstance(layer, keras.layers.Embedding):
            if _is_matrix(layer.embeddings):
                table = self._small(layer.embeddings, precision, (0,))
                self._places.append((layer, "call", lambda: table.rows))
            return
        if isinstance(layer, keras.layers.EinsumDense):  # its bias may have two axes, too
            if _is_matrix(vars(layer).get("kernel")):
                kernel = self._small(layer.kernel, precision, _output_axes(layer.equation))
                self._places.append((layer, "kernel", kernel.value))
            return
        for name, value in vars(layer).items():
            if _is_matrix(value):
                self._places.append((layer, name, self._small(value, precision).value))
            elif isinstance(value, dict) and any(_is_matrix(part) for part in value.values()):
                small = {key: self._small(part, precision) for key, part in value.items() if _is_matrix(part)}
                self._places.append((layer, name, _merged(value, small)))

    def _small(self, variable: Any, precision: str, axes: Sequence[int] | None = None) -> _Small:
        if id(variable) not in self._made:
            self._made[id(variable)] = _Small(variable.numpy(), precision, axes)
        return self._made[id(variable)]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """For tracing one function: layers see their small weights, as tensors of that function's graph."""
        before = [(layer, name, vars(layer).get(name)) for layer, name, _ in self._places]
        try:
            for layer, name, value in self._places:
                vars(layer)[name] = value()
            yield
        finally:
            for layer, name, old in before:
                if old is None:
                    vars(layer).pop(name, None)  # the class's own again
                else:
                    vars(layer)[name] = old


class _Small:
    """One matrix, float32 ``[..., n]``, kept small.

    Args:
        values: the matrix.
        precision: ``float16`` or ``int8``.
        axes: see ``quantise``.
    """

    def __init__(self, values: np.ndarray, precision: str, axes: Sequence[int] | None) -> None:
        self._scale = None
        if precision == "int8":
            kept, scale = quantise(values, axes)
            self._scale = tf.Variable(scale, trainable=False)
        else:
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            kept = half if np.isfinite(half).all() else values  # beyond float16's range
        self._kept = tf.Variable(kept, trainable=False)

    def value(self) -> Any:
        """The matrix, float32."""
        return self._back(self._kept, self._scale)

    def rows(self, ids: Any) -> Any:
        """Some of its rows, float32; ``ids`` of any shape."""
        ids = ids if ids.dtype in (tf.int32, tf.int64) else tf.cast(ids, tf.int32)
        scale = tf.gather(self._scale, ids) if self._scale is not None else None
        return self._back(tf.gather(self._kept, ids), scale)

    def _back(self, kept: Any, scale: Any) -> Any:
        values = tf.cast(kept, tf.float32)
        return values if scale is None else values * scale


def quantise(values: np.ndarray, axes: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A matrix to int8 ``[...]`` and scales float32, of size 1 on all axes but some: ``values ≈ int8 * scale``.

    Args:
        values: the matrix.
        axes: those of channels, each of which has its scale; default: the last one that is longer than 1.
    """
    if axes is None:
        axes = [max((place for place, size in enumerate(values.shape) if size > 1), default=0)]
    others = tuple(place for place in range(values.ndim) if place not in axes)
    scale = np.abs(values).max(others, keepdims=True) / _LARGEST
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _output_axes(equation: str) -> list[int]:
    """The axes of an ``EinsumDense``'s kernel that are not summed over: of ``abc,cde->abde`` the last two."""
    kernel, output = equation.split(",")[1].split("->")
    return [place for place, axis in enumerate(kernel) if axis in output]


def _layers(ranker: Any) -> Iterator[Any]:
    """Every layer of the towers, those within encoders too, once."""
    seen: set[int] = set()
    for member in getattr(ranker, "members", [ranker]):
        for tower in member.towers:
            for part in tf.train.TrackableView(tower).descendants():
                if isinstance(part, keras.layers.Layer) and id(part) not in seen:
                    seen.add(id(part))
                    yield part


def _is_matrix(value: Any) -> bool:
    return isinstance(value, tf.Variable) and value.dtype == tf.float32 and value.shape.rank >= 2


def _merged(values: dict[str, Any], small: dict[str, _Small]) -> Callable[[], dict[str, Any]]:
    return lambda: {**values, **{name: each.value() for name, each in small.items()}}
