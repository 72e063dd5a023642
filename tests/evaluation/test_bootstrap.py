"""Intervals and tests against exact distributions and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tfmmrank.evaluation import confidence_interval, holm, paired_difference
from tfmmrank.evaluation.bootstrap import bootstrap_means, intervals


def test_two_queries_by_hand():
    means = bootstrap_means(np.array([[0.0], [1.0]]), resamples=20_000, seed=1)[:, 0]
    shares = [float((means == value).mean()) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.015)  # 4 standard errors of 20,000 draws
    assert confidence_interval([0.0, 1.0]).low == 0
    assert confidence_interval([0.0, 1.0], level=0.4).low == 0.5


def test_against_scipy():
    values = np.random.default_rng(0).beta(3, 2, 150)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    mine = confidence_interval(values, seed=2)
    assert mine.mean == pytest.approx(values.mean())
    assert [mine.low, mine.high] == pytest.approx([theirs.low, theirs.high], abs=0.003)  # quantiles of 10,000 draws


def test_skipped_queries_are_left_out_and_columns_stay_apart():
    values = np.random.default_rng(0).random((40, 3))
    values[:5, 1] = np.nan
    values[:, 2] = np.nan
    found = intervals(values)
    assert found[0] == confidence_interval(values[:, 0])
    assert found[1] == confidence_interval(values[5:, 1])
    assert np.isnan([found[2].mean, found[2].low, found[2].high]).all()


def test_seeded_and_chunked_alike():
    values = np.random.default_rng(0).random(600)  # more than one chunk
    assert confidence_interval(values, seed=4) == confidence_interval(values, seed=4)
    assert confidence_interval(values, seed=4) != confidence_interval(values, seed=5)
    one = confidence_interval(values)
    assert one.high - one.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(600), rel=0.05)


@pytest.mark.parametrize(("queries", "tolerance"), [(10, 1e-12), (16, 0.02)])  # all flips; 4 standard errors of drawn
def test_randomisation_test_against_the_exact_one(queries, tolerance):
    rng = np.random.default_rng(3)
    a, b = rng.random(queries), rng.random(queries) - 0.2
    exact = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    found = paired_difference(a, b)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.p_value == pytest.approx(exact.pvalue, abs=tolerance)
    assert found.p_floor == (0 if queries == 10 else 1 / 10_001)
    assert not found.at_floor
    assert found.queries == queries


def test_paired_difference_by_hand():
    three = paired_difference([1.0, 2, 3], [0.0, 1, 2])
    assert three.p_value == 2 / 8  # ±1 ±1 ±1, all tried: two of eight come as far
    assert not three.at_floor
    assert paired_difference([1.0, 2, 3], [0.0, 1, 2], resamples=7).p_floor == 1 / 8  # too few to try all
    same = paired_difference([1.0, 2, np.nan], [1.0, 2, 5])
    assert (same.mean, same.low, same.high, same.p_value, same.queries) == (0, 0, 0, 1, 2)
    nothing = paired_difference([np.nan], [1.0])
    assert np.isnan(nothing.p_value)
    assert nothing.queries == 0
    never = paired_difference(np.ones(200), np.zeros(200))
    assert never.p_value == pytest.approx(1 / 10_001)  # never 0
    assert never.at_floor


def test_holm_by_hand():
    # Sorted: 0.01 × 4, 0.02 × 3, 0.03 × 2, 0.5 × 1; each at least as large as the one before.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.4, 0.9]) == [0.8, 0.9]
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
    found = holm([0.02, float("nan"), 0.04])  # what was not tested is not counted
    assert [found[0], found[2]] == [0.04, 0.04]
    assert np.isnan(found[1])


def test_holm_against_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="the library to compare with")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p_values = rng.beta(0.3, 2, rng.integers(1, 15))
        np.testing.assert_allclose(holm(p_values), multitest.multipletests(p_values, method="holm")[1], rtol=1e-12)


def test_bad_arguments():
    with pytest.raises(ValueError, match="level is 95"):
        confidence_interval([1.0], level=95)
    with pytest.raises(ValueError, match="resamples is 0"):
        confidence_interval([1.0], resamples=0)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\)"):
        paired_difference([1.0, 2], [1.0])
