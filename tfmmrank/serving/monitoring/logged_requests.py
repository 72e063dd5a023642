"""Request logs read again: lists as arrays, without their padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tfmmrank.data.example_lists import read_records_or_damage
from tfmmrank.serving.monitoring.log_privacy import OUTPUTS, STATISTICS
from tfmmrank.serving.monitoring.rotating_records import PARTIAL, SUFFIX
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor


@dataclass(frozen=True)
class LoggedLists:
    """One logged request that ranked B lists.

    Attributes:
        inputs: arrays by input, as logged (``log_privacy`` says what that is).
        outputs: ``scores`` and ``known``, those that were asked for.
        sizes: the lists' lengths ``[B]``.
        mask: which places are no padding, bool ``[B, L]``.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    sizes: np.ndarray
    mask: np.ndarray

    def values(self, name: str) -> np.ndarray:
        """An input's or output's values without padding: of query columns ``[B]``, of the others ``[n, …]``.

        Raises:
            KeyError: when it was not logged.
        """
        array = self.inputs[name] if name in self.inputs else self.outputs[name]
        return array[self.mask] if _per_place(name, array) else array


class LoggedRequests:
    """The rankings in a folder of logs.

    Args:
        path: a folder with ``*.tfrecord`` in it, or one such file.

    Raises:
        FileNotFoundError: when there is none.

    Attributes:
        files: what is read; files still being written are not.
        partial: how many of those there are.
        damaged: records that could not be read, once ``lists`` has gone through.
        others: records of another kind, model or version, by their name, likewise.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.files = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        self.partial = len(list(path.rglob(f"*{SUFFIX}{PARTIAL}"))) if path.is_dir() else 0
        if not self.files or not self.files[0].is_file():
            hint = f" ({self.partial} still being written)" if self.partial else ""
            raise FileNotFoundError(f"{path}: holds no complete request log, *{SUFFIX}{hint}")
        self.damaged = 0
        self.others: Counter[str] = Counter()

    def lists(self, model: str, version: int) -> Iterator[LoggedLists]:
        """The requests that ranked lists with this version of the model."""
        self.damaged, self.others = 0, Counter()
        for record in self._records():
            try:
                log = wire.PredictionLog.FromString(record)
                spec = log.log_metadata.model_spec
                name = f'"{spec.name}" version {spec.version.value}'
                if (spec.name, spec.version.value) != (model, version):
                    self.others[name] += 1
                elif "num_items" not in log.predict_log.request.inputs:
                    self.others[f'{name}, signature "{spec.signature_name}"'] += 1
                else:
                    yield _lists_of(log.predict_log)
            except (DecodeError, ValueError):
                self.damaged += 1

    def _records(self) -> Iterator[bytes]:
        for file in self.files:
            try:
                for record in read_records_or_damage(file):
                    if record is None:
                        self.damaged += 1
                    else:
                        yield record
            except ValueError:  # cut short: what stands before has been read
                self.damaged += 1


def _lists_of(log: Any) -> LoggedLists:
    """Raises ValueError where shapes do not fit each other.

    Outputs may have more places than the inputs: a batching server leaves them as long as the batch's longest list.
    """
    inputs = {name: read_tensor(tensor) for name, tensor in log.request.inputs.items()}
    outputs = {name: read_tensor(log.response.outputs[name]) for name in OUTPUTS if name in log.response.outputs}
    sizes = inputs.pop("num_items")
    width = max((array.shape[1] for name, array in inputs.items() if _per_place(name, array)), default=0)
    outputs = {name: array[:, :width] if array.ndim == 2 else array for name, array in outputs.items()}
    if sizes.ndim != 1 or (sizes > width).any():
        raise ValueError(f"num_items is {sizes.tolist()} beside lists of {width} places")
    for name, array in {**inputs, **outputs}.items():
        axes = (len(sizes), width) if name in outputs or _per_place(name, array) else (len(sizes),)
        if array.shape[: len(axes)] != axes:
            raise ValueError(f"{name} has shape {array.shape} beside {len(sizes)} lists of {width} places")
    return LoggedLists(inputs, outputs, sizes, np.arange(width) < sizes[:, None])


def _per_place(name: str, array: np.ndarray) -> bool:
    """Whether it has an axis of places; texts' statistics have one of their own."""
    return array.ndim - name.endswith(STATISTICS) >= 2
