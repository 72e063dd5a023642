"""Counters and histograms by labels, cheap enough for every request, for a Prometheus registry to collect."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from prometheus_client.core import Metric

Labels = tuple[str, ...]


class Counters:
    """Counts by labels.

    Args:
        name: of the metric, as it is exported.
        help_text: what it counts.
        labels: names of the labels.
    """

    def __init__(self, name: str, help_text: str, labels: Labels) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self._counts: dict[Labels, int] = {}
        self._lock = threading.Lock()

    def add(self, labels: Labels, amount: int = 1) -> None:
        """Adds to the count of some labels' values."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + amount

    def collect(self) -> Metric:
        """What was counted."""
        metric = Metric(self._name.removesuffix("_total"), self._help, "counter")
        with self._lock:
            counts = dict(self._counts)
        for labels, count in counts.items():
            metric.add_sample(self._name, dict(zip(self._labels, labels, strict=True)), count)
        return metric


class _Cell:
    """One histogram: a count for each bound, and one for what is more."""

    def __init__(self, bounds: int) -> None:
        self.counts = np.zeros(bounds + 1, np.int64)
        self.sum = 0.0


class Histograms:
    """Histograms by labels.

    Args:
        name: of the metric.
        help_text: what is measured.
        labels: names of the labels.
        bounds: largest value of each bucket, ascending; what is larger, and NaN, is counted as ``+Inf``.
    """

    def __init__(self, name: str, help_text: str, labels: Labels, bounds: Sequence[float]) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self._bounds = np.asarray(bounds, np.float64)
        self._le = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        self._cells: dict[Labels, _Cell] = {}
        self._lock = threading.Lock()

    def observe(self, labels: Labels, value: float) -> None:
        """Counts a value."""
        bucket = self._bounds.searchsorted(value)
        with self._lock:
            cell = self._cell(labels)
            cell.counts[bucket] += 1
            cell.sum += value

    def observe_many(self, labels: Labels, values: np.ndarray) -> None:
        """Counts an array's values; those that are not finite take no part in the sum, which they would spoil."""
        counts = np.bincount(self._bounds.searchsorted(values), minlength=len(self._le))
        total = float(values.sum(dtype=np.float64))
        if not np.isfinite(total):
            total = float(values[np.isfinite(values)].sum(dtype=np.float64))
        with self._lock:
            cell = self._cell(labels)
            cell.counts += counts
            cell.sum += total

    def collect(self) -> Metric:
        """What was measured."""
        metric = Metric(self._name, self._help, "histogram")
        with self._lock:
            cells = {labels: (cell.counts.cumsum().tolist(), cell.sum) for labels, cell in self._cells.items()}
        for labels, (counts, total) in cells.items():
            named: dict[str, Any] = dict(zip(self._labels, labels, strict=True))
            for le, count in zip(self._le, counts, strict=True):
                metric.add_sample(f"{self._name}_bucket", {**named, "le": le}, count)
            metric.add_sample(f"{self._name}_sum", named, total)
            metric.add_sample(f"{self._name}_count", named, counts[-1])
        return metric

    def _cell(self, labels: Labels) -> _Cell:
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = _Cell(len(self._bounds))
        return cell
