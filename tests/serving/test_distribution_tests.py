"""Against numbers by hand, scipy on the samples themselves, and chance itself."""

import math

import numpy as np
import pytest
from scipy import stats

from tfmmrank.serving.monitoring.distribution_tests import kolmogorov_smirnov, psi, psi_by_chance, two_proportions


def test_psi_by_hand():
    # 0.1 ln 1.2 - 0.1 ln 0.8
    assert psi(np.array([0.5, 0.5]), np.array([0.6, 0.4])) == pytest.approx(0.0405465, abs=1e-7)
    one, other = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2])
    assert psi(one, other) == pytest.approx(0.6 * math.log(2.5))
    assert psi(one, other) == pytest.approx(psi(other, one))
    assert psi(one, one) == 0


def test_psi_of_an_empty_bin_is_finite():
    # the empty bin counts as 0.0001
    expected = 0.5 * math.log(2) + (0.0001 - 0.5) * math.log(0.0002)
    assert psi(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == pytest.approx(expected)


@pytest.mark.parametrize(("bins", "n", "m"), [(10, 500, 2000), (4, 300, math.inf)])
def test_psi_by_chance_is_the_mean_without_drift(bins, n, m):
    rng = np.random.default_rng(4)
    shares = np.full(bins, 1 / bins)
    expected = rng.multinomial(m, shares, 3000) / m if math.isfinite(m) else np.tile(shares, (3000, 1))
    observed = rng.multinomial(n, shares, 3000) / n
    mean = np.mean([psi(e, o) for e, o in zip(expected, observed, strict=True)])
    # A mean of 3,000 has a standard error of 1.5% at worst; the formula is of first order in 1/n.
    assert mean == pytest.approx(psi_by_chance(bins, n, m), rel=0.08)
    assert psi_by_chance(bins, 0) == math.inf


def test_ks_is_scipys_two_sample_test_where_values_stand_on_edges():
    rng = np.random.default_rng(7)
    one, other = rng.integers(0, 6, 400), np.minimum(rng.integers(0, 7, 150), 5)
    shares = [np.bincount(sample, minlength=6) / len(sample) for sample in (one, other)]
    expected = stats.ks_2samp(one, other, method="asymp")
    distance, p = kolmogorov_smirnov(*shares, n=150, m=400)
    assert distance == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue)


def test_ks_against_a_known_distribution():
    rng = np.random.default_rng(8)
    sample = rng.random(200) ** 1.2
    grid = np.linspace(0, 1, 5001)[1:-1]  # so fine that no value moves by more than 0.0002
    observed = np.bincount(np.searchsorted(grid, sample), minlength=5000) / 200
    expected = stats.kstest(sample, "uniform")
    distance, p = kolmogorov_smirnov(np.full(5000, 1 / 5000), observed, n=200)
    assert distance == pytest.approx(expected.statistic, abs=3e-4)
    assert p == pytest.approx(expected.pvalue, rel=0.05)


def test_two_proportions_is_the_chi_square_test():
    table = [[30, 170], [110, 390]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert two_proportions(110 / 500, 30 / 200, n=200, m=500) == pytest.approx(expected)


def test_share_against_a_known_one():
    # z = (0.3 - 0.2) / sqrt(0.2 * 0.8 / 100) = 2.5
    assert two_proportions(0.2, 0.3, n=100) == pytest.approx(2 * stats.norm.sf(2.5))
    assert two_proportions(0.0, 0.01, n=100) == 0
    assert two_proportions(0.0, 0.0, n=100) == 1
