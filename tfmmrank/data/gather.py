"""Rows of arrays, memory-mapped or not, copied once on their way to TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

_ALIGNED = 64  # bytes; TensorFlow takes an array that starts so as it is, and copies any other


def gathered(array: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Rows of an array, with zeros appended up to ``size`` rows.

    Indexing would make a copy, padding one more, and TensorFlow a third: of region tokens, tens of megabytes a batch.

    Args:
        array: ``[N, ...]``, C-contiguous.
        rows: int ``[n]``, n at most ``size``.
        size: rows of the result.
    """
    out = _empty((size, *array.shape[1:]), array.dtype)
    np.take(array, rows, axis=0, out=out[: len(rows)], mode="clip")  # any other mode copies through a buffer
    out[len(rows) :] = 0
    return out


def _empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)
