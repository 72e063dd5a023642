"""What the log is counted into, and what the counts say beside training's shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfmmrank.serving.monitoring.distribution_tests import kolmogorov_smirnov, psi, psi_by_chance, two_proportions
from tfmmrank.serving.monitoring.training_statistics import Histogram


@dataclass(frozen=True)
class Finding:
    """One comparison of the log with training.

    The values of one list depend on each other, so that chance is reckoned by lists: ``by_chance`` and ``p`` take each
    list for one observation, which errs on the side of silence.

    Attributes:
        column: a column, or ``scores``, ``list length``, ``item ids``.
        what: ``values``, ``characters``, ``words``, ``script``, ``missing`` or ``unknown``.
        values: how many were seen.
        lists: in how many lists.
        psi: population stability index.
        by_chance: what that is on average when nothing drifts.
        ks: Kolmogorov and Smirnov's distance, of histograms; else None.
        p: the probability of so much when nothing drifts: of a histogram by that test, of a share by the two-proportion
            test; else None.
        training: the share in training, where a share is compared; else None.
        logged: the share in the log, likewise.
    """

    column: str
    what: str
    values: int
    lists: int
    psi: float
    by_chance: float
    ks: float | None = None
    p: float | None = None
    training: float | None = None
    logged: float | None = None


class HistogramCount:
    """Counts numbers into training's bins."""

    def __init__(self, histogram: Histogram) -> None:
        self._expected = histogram
        self._counts = np.zeros(len(histogram.shares), np.int64)
        self._lists = 0

    def add(self, values: np.ndarray, lists: int) -> None:
        """Counts values ``[n]`` from so many lists; those that are not finite are left out."""
        values = values[np.isfinite(values)]
        self._counts += np.bincount(
            np.searchsorted(self._expected.edges, values, side="right"), minlength=len(self._counts)
        )
        self._lists += lists if len(values) else 0

    def finding(self, column: str, what: str, training_lists: float) -> Finding | None:
        """The comparison; None where nothing was counted."""
        total = int(self._counts.sum())
        if not total:
            return None
        expected, observed = self._expected.shares, self._counts / total
        ks, p = kolmogorov_smirnov(expected, observed, self._lists, training_lists)
        by_chance = psi_by_chance(len(expected), self._lists, training_lists)
        return Finding(column, what, total, self._lists, psi(expected, observed), by_chance, ks, p)


class CategoryCount:
    """Counts values by name; those that training does not name are one bin, the others."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._names = {name: place for place, name in enumerate(shares)}
        self._expected = np.array([*shares.values(), max(0.0, 1 - sum(shares.values()))])
        self._counts = np.zeros(len(self._expected), np.int64)
        self._lists = 0

    def add(self, names: list[str | None], lists: int) -> None:
        """Counts values by name, None for another one, from so many lists."""
        for name in names:
            self._counts[self._names.get(name, -1) if name is not None else -1] += 1
        self._lists += lists if names else 0

    def finding(self, column: str, what: str, training_lists: float) -> Finding | None:
        """The comparison; None where nothing was counted."""
        total = int(self._counts.sum())
        if not total:
            return None
        used = (self._expected > 0) | (self._counts > 0)  # a bin empty on both sides is none
        expected, observed = self._expected[used], self._counts[used] / total
        by_chance = psi_by_chance(len(expected), self._lists, training_lists)
        return Finding(column, what, total, self._lists, psi(expected, observed), by_chance)


class ShareCount:
    """Counts how often something is so."""

    def __init__(self, share: float) -> None:
        self._expected, self._so, self._total, self._lists = share, 0, 0, 0

    def add(self, so: np.ndarray, lists: int) -> None:
        """Counts bools ``[n]`` from so many lists."""
        self._so += int(so.sum())
        self._total += so.size
        self._lists += lists if so.size else 0

    def finding(self, column: str, what: str, training_lists: float) -> Finding | None:
        """The comparison; None where nothing was counted."""
        if not self._total:
            return None
        expected, observed = self._expected, self._so / self._total
        index = psi(np.array([expected, 1 - expected]), np.array([observed, 1 - observed]))
        by_chance = psi_by_chance(2, self._lists, training_lists)
        p = two_proportions(expected, observed, self._lists, training_lists)
        return Finding(column, what, self._total, self._lists, index, by_chance, None, p, expected, observed)


@dataclass(frozen=True)
class Thresholds:
    """How an index is read.

    Attributes:
        look: from here on somebody should look.
        act: above this the model sees another population.

    Raises:
        ValueError: unless 0 < look ≤ act.
    """

    look: float = 0.1
    act: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.look <= self.act < math.inf:
            raise ValueError(f"look is {self.look} and act is {self.act}; expected 0 < look <= act")

    def enough(self, finding: Finding) -> bool:
        """Whether there are enough lists to tell: chance alone makes less than half of what is worth a look."""
        return finding.by_chance <= self.look / 2

    def verdict(self, finding: Finding) -> str:
        """``stable``, ``look``, ``act``, or ``too few`` lists to tell."""
        if not self.enough(finding):
            return "too few"
        if finding.psi > self.act:
            return "act"
        return "stable" if finding.psi < self.look else "look"
