"""How sure a mean over queries is: bootstrap intervals, paired differences, a randomisation test, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000  # resamples × queries held at once: 32 MB of counts


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its confidence interval; NaN where no query was used."""

    mean: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Difference(Interval):
    """A mean paired difference.

    Attributes:
        p_value: two-sided, for no difference.
        p_floor: the least p-value that the test could give, 1 / (resamples + 1); 0 when the test was exact.
        p_holm: the p-value corrected for all the differences tested together; NaN when it stands alone.
        queries: those that had a value on both sides.
    """

    p_value: float = float("nan")
    p_floor: float = 0.0
    p_holm: float = float("nan")
    queries: int = 0

    @property
    def at_floor(self) -> bool:
        """Whether no resample came as far as what was seen: the p-value may be smaller than it can be told to be."""
        return self.p_value <= self.p_floor


def bootstrap_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of resampled queries (Efron, 1979).

    Args:
        values: ``[Q, S]``, no NaN; each resample draws the same queries for all S columns.
        resamples: R.
        seed: seeds the draws.

    Returns:
        float64 ``[R, S]``.
    """
    queries = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK_CELLS // queries)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, queries, (rows, queries)) + np.arange(rows)[:, None] * queries
        counts = np.bincount(drawn.ravel(), minlength=rows * queries).reshape(rows, queries)
        means[start : start + rows] = counts.astype(np.float64) @ values / queries
    return means


def intervals(values: np.ndarray, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """Percentile bootstrap intervals of the columns' means, over the queries that have a value.

    Args:
        values: ``[Q, S]``; NaN where a query is skipped. Columns with the same skips are resampled together.
        level: of confidence, between 0 and 1.
        resamples: number of resamples.
        seed: seeds the draws.

    Returns:
        One interval a column.

    Raises:
        ValueError: for a level outside (0, 1), or fewer than one resample.
    """
    _check(level, resamples)
    used = ~np.isnan(values)
    found: list[Interval] = [Interval(np.nan, np.nan, np.nan, level)] * values.shape[1]
    for pattern in np.unique(used, axis=1).T:
        if not pattern.any():
            continue
        columns = np.flatnonzero((used == pattern[:, None]).all(axis=0))
        kept = values[np.ix_(pattern, columns)]
        tails = np.quantile(bootstrap_means(kept, resamples, seed), [(1 - level) / 2, (1 + level) / 2], axis=0)
        for place, column in enumerate(columns):
            mean = float(kept[:, place].mean())
            found[column] = Interval(mean, float(tails[0, place]), float(tails[1, place]), level)
    return found


def confidence_interval(values: np.ndarray, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The percentile bootstrap interval of one metric's mean; ``values`` is ``[Q]``, NaN where skipped."""
    return intervals(np.asarray(values, np.float64)[:, None], level, resamples, seed)[0]


def paired_difference(
    a: np.ndarray, b: np.ndarray, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Mean of ``a − b`` over the queries that have both, its bootstrap interval and a randomisation test's p-value.

    The test (Fisher's; Smucker, Allan & Carterette, 2007) flips each query's sign at random and asks how often the mean
    is as far from 0 as the one seen. The p-value counts the seen one in, so that it is never 0. Where all flips of the
    queries that differ are no more than ``resamples`` (13 queries for 10,000), all are tried, and the test is exact.

    Args:
        a: ``[Q]``, NaN where skipped.
        b: ``[Q]``, of the same queries.
        level: of confidence.
        resamples: of the bootstrap, and of the test.
        seed: seeds both.

    Raises:
        ValueError: when ``a`` and ``b`` are not of the same queries, for a bad level or number of resamples.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values have shapes {a.shape} and {b.shape}; expected one value a query on both sides")
    differences = (a - b)[~np.isnan(a - b)]
    interval = confidence_interval(differences, level, resamples, seed)
    p_value, p_floor = _randomisation(differences, resamples, seed)
    return Difference(
        interval.mean, interval.low, interval.high, level, p_value=p_value, p_floor=p_floor, queries=len(differences)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for being several, so that the chance of *any* false discovery keeps to the level.

    Holm's step-down of Bonferroni's correction (Holm, 1979): the smallest of m is multiplied by m, the next by m - 1
    and so on, none coming out smaller than the one before it, nor above 1. It holds however the tests depend.

    Args:
        p_values: in any order; NaN is no test, and is not counted.

    Returns:
        Corrected p-values, in the order given; NaN where given.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")[: np.count_nonzero(~np.isnan(given))]  # NaN stand last
    corrected = np.full(len(given), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return corrected.tolist()


def _randomisation(differences: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """The p-value, and the least that it could be."""
    if not len(differences):
        return float("nan"), 0.0
    differences = differences[differences != 0]  # a flip leaves zeros as they are
    seen = abs(differences.sum()) * (1 - 1e-12)  # sums in another order differ in the last digits
    if 2.0 ** len(differences) <= resamples:
        return float((_all_sums(differences) >= seen).mean()), 0.0
    rng = np.random.default_rng([seed, 1])
    as_far = 0
    step = max(1, _CHUNK_CELLS // len(differences))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        signs = rng.integers(0, 2, (rows, len(differences)), np.int8) * 2.0 - 1.0
        as_far += int((np.abs(signs @ differences) >= seen).sum())
    return (as_far + 1) / (resamples + 1), 1 / (resamples + 1)


def _all_sums(differences: np.ndarray) -> np.ndarray:
    """How far from 0 the sum is under every choice of signs: ``[2^n]``."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return np.abs(sums)


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected 1 or more")
