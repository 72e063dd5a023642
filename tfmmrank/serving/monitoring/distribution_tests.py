"""How far two distributions are apart, where one of them is known by its histogram alone."""

from __future__ import annotations

import math

import numpy as np

_FLOOR = 1e-4  # a share of zero would make the logarithm infinite; customary in credit scoring, where PSI is from


def psi(expected: np.ndarray, observed: np.ndarray) -> float:
    """The population stability index: Σ (o − e) ln(o / e) over bins, shares below 0.0001 raised to that.

    It is symmetric, 0 for equal shares, and customarily read as stable below 0.1 and as another population above 0.25
    (Siddiqi, Credit Risk Scorecards, 2006).

    Args:
        expected: shares ``[bins]``.
        observed: shares ``[bins]``.
    """
    e, o = np.maximum(expected, _FLOOR), np.maximum(observed, _FLOOR)
    return float(np.sum((o - e) * np.log(o / e)))


def psi_by_chance(bins: int, observed: float, expected: float = math.inf) -> float:
    """What the index is on average when nothing drifts: (bins − 1) (1/n + 1/m).

    n and m times the index are about χ² distributed with bins − 1 degrees of freedom (Yurdakul and Naranjo, Statistical
    properties of the population stability index, 2020).

    Args:
        bins: how many.
        observed: independent observations, n.
        expected: those that the known histogram was made of, m; infinite: it is taken as exact.
    """
    return (bins - 1) * (1 / observed + 1 / expected) if observed else math.inf


def kolmogorov_smirnov(
    expected: np.ndarray, observed: np.ndarray, n: float, m: float = math.inf
) -> tuple[float, float]:
    """The two-sample test at the edges between the bins.

    The largest distance between the two distribution functions is looked for at the edges only: the statistic is a
    lower bound, and the p-value an upper one, unless all values stand on edges.

    Args:
        expected: shares ``[bins]``.
        observed: shares ``[bins]``.
        n: independent observations.
        m: those that ``expected`` was made of.

    Returns:
        The distance, and the probability of one as large when nothing drifts.
    """
    from scipy.stats import kstwo  # type: ignore[import-untyped] # here, because it takes seconds to import

    distance = float(np.abs(np.cumsum(observed) - np.cumsum(expected)).max())
    size = n if math.isinf(m) else n * m / (n + m)
    return distance, float(kstwo.sf(distance, max(1, round(size))))


def two_proportions(expected: float, observed: float, n: float, m: float = math.inf) -> float:
    """The p-value of two shares being one: the two-sided z-test with pooled variance.

    Args:
        expected: a share of m observations.
        observed: a share of n.
        n: independent observations.
        m: those that ``expected`` was made of.
    """
    pooled = expected if math.isinf(m) else (observed * n + expected * m) / (n + m)
    variance = pooled * (1 - pooled) * (1 / n + 1 / m)
    if variance <= 0:
        return float(observed == expected)
    return math.erfc(abs(observed - expected) / math.sqrt(2 * variance))
