"""Requests joined to a batch and cut apart again, with TensorFlow Serving's padding."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.export.request_error import RequestError
from tfmmrank.serving.protocol.config_protos import BatchingParameters, parse_config

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Batching:
    """TensorFlow Serving's ``BatchingParameters``, with its defaults.

    Attributes:
        max_batch_size: most queries run at once: the sum of the requests' sizes on dimension 0.
        batch_timeout_micros: how long a request waits for others to come, in microseconds.
        max_enqueued_batches: how many batches may wait for a thread, a signature; requests beyond are refused.
        num_batch_threads: batches run at once.
        allowed_batch_sizes: sizes that a batch is filled up to, ascending; empty: any.
        pad_variable_length_inputs: whether lists of unequal length go into one batch, each padded with its own first
            element; else they are refused.

    Raises:
        ValueError: for a value that cannot be.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise ValueError(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch_size):
            raise ValueError(
                f"allowed_batch_sizes is {list(sizes)}; expected ascending sizes that end with max_batch_size, "
                f"{self.max_batch_size}"
            )

    @classmethod
    def from_config(cls, file: str | Path) -> Batching:
        """Reads a ``batching.config``.

        Raises:
            OSError: when the file cannot be read.
            ValueError: when it is no BatchingParameters, or holds a value that cannot be; names the file.
        """
        config = parse_config(file, BatchingParameters)
        values: dict[str, Any] = {"pad_variable_length_inputs": config.pad_variable_length_inputs}
        for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
            if config.HasField(name):
                values[name] = getattr(config, name).value
        if config.enable_large_batch_splitting.value:
            raise ValueError(f"{file}: enable_large_batch_splitting is TensorFlow Serving's alone; leave it out")
        try:
            return cls(allowed_batch_sizes=tuple(config.allowed_batch_sizes), **values)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def padded_size(self, size: int) -> int:
        """The size that a batch of this many queries is filled up to."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def batch_size(inputs: Arrays) -> int:
    """A request's queries: the size of its inputs on dimension 0. Raises RequestError when they differ in it."""
    if any(not array.ndim for array in inputs.values()):
        raise RequestError("INVALID_ARGUMENT", "Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) > 1:
        raise RequestError("INVALID_ARGUMENT", "Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def merge(requests: Sequence[Arrays], options: Batching) -> dict[str, np.ndarray]:
    """Joins requests on dimension 0, and fills them up to an allowed size with the last one's first row.

    Raises:
        RequestError: for shapes that differ beyond dimension 0, when padding is off.
    """
    rows = sum(batch_size(request) for request in requests)
    fill = options.padded_size(rows) - rows
    merged = {}
    for name in requests[0]:
        arrays = [request[name] for request in requests]
        if len({array.shape[1:] for array in arrays}) > 1:
            arrays = _padded(name, arrays, options)
        merged[name] = np.concatenate([*arrays, *[arrays[-1][:1]] * fill])
    return merged


def _padded(name: str, arrays: Sequence[np.ndarray], options: Batching) -> list[np.ndarray]:
    if not options.pad_variable_length_inputs or len({array.ndim for array in arrays}) > 1:
        raise RequestError(
            "FAILED_PRECONDITION",
            f"Tensors with name '{name}' from different tasks have different shapes and padding is turned off."
            "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name"
            "have equal dimensions starting with the first dim.",
        )
    target = np.max([array.shape for array in arrays], axis=0)[1:]
    return [_pad(array, target) for array in arrays]


def _pad(array: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pads behind, beyond dimension 0, with the array's first element: the model must not mind what it is."""
    if array.shape[1:] == tuple(target):
        return array
    if not array.size:
        raise RequestError("INVALID_ARGUMENT", "Got empty tensor in batch of non-empty tensors.")
    padded = np.full((len(array), *target), array.flat[0], array.dtype)
    padded[tuple(slice(size) for size in array.shape)] = array
    return padded


def split(outputs: Arrays, sizes: Sequence[int], total: int) -> list[dict[str, np.ndarray]]:
    """Cuts outputs on dimension 0 alone: a short list's scores stay as long as the batch's longest list.

    Raises:
        RequestError: for outputs that have no row a query.
    """
    for value in outputs.values():
        if not value.ndim:
            raise RequestError("FAILED_PRECONDITION", "Batched output tensor has 0 dimensions")
        if len(value) != total:
            raise RequestError(
                "FAILED_PRECONDITION",
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors",
            )
    ends = np.cumsum(sizes)
    return [
        {name: value[end - size : end] for name, value in outputs.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]
