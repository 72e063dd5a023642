"""Metrics against hand-worked numbers, pytrec_eval, scikit-learn, and their properties."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from tfmmrank.evaluation import auc, average_precision, mrr, ndcg, precision, recall

METRICS = {
    "ndcg": ndcg, "mrr": mrr, "map": average_precision, "precision": precision, "recall": recall, "auc": auc,
}  # fmt: skip
CLOSE = {"rtol": 0, "atol": 1e-9}  # float64 sums in another order


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_ndcg_by_hand():
    labels, scores = [[3.0, 2, 0, 1]], [[4.0, 3, 2, 1]]
    best = 7 + 3 / log2(3) + 1 / log2(4)
    assert ndcg(labels, scores, k=None).mean == pytest.approx((7 + 3 / log2(3) + 1 / log2(5)) / best)
    assert ndcg(labels, scores, k=3).mean == pytest.approx((7 + 3 / log2(3)) / best)
    linear = ndcg(labels, scores, k=None, gain="linear").mean
    assert linear == pytest.approx((3 + 2 / log2(3) + 1 / log2(5)) / (3 + 2 / log2(3) + 1 / log2(4)))
    esci = ndcg(labels, scores, k=None, gain=[0, 0.01, 0.1, 1]).mean
    assert esci == pytest.approx((1 + 0.1 / log2(3) + 0.01 / log2(5)) / (1 + 0.1 / log2(3) + 0.01 / log2(4)))


def test_high_grades():
    assert ndcg([[0.0, 1023]], [[1.0, 2]]).mean == 1
    assert ndcg([[0.0, 5000]], [[1.0, 2]], gain="linear").mean == 1


def test_ties_are_broken_against_the_model():
    labels, scores = [[2.0, 0, 1]], [[5.0, 5, 5]]
    best = 3 + 1 / log2(3)
    assert ndcg(labels, scores).mean == pytest.approx((1 / log2(3) + 3 / 2) / best)
    assert ndcg(labels, scores, ties="average").mean == pytest.approx(4 / 3 * (1 + 1 / log2(3) + 1 / 2) / best)
    assert mrr(labels, scores).mean == pytest.approx(1 / 2)
    assert average_precision(labels, scores).mean == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert precision(labels, scores, k=1).mean == 0
    assert recall(labels, scores, k=2).mean == pytest.approx(1 / 2)
    assert auc(labels, scores).mean == pytest.approx(1 / 2)


def test_ties_follow_gains_where_gains_do_not_follow_grades():
    assert ndcg([[0.0, 1]], [[1.0, 1]], k=1, gain=[5, 2]).mean == pytest.approx(2 / 5)


def test_binary_metrics_by_hand():
    labels, scores = [[0.0, 1, 0, 2, 1]], [[9.0, 8, 7, 6, 5]]
    assert mrr(labels, scores).mean == 1 / 2
    assert mrr(labels, scores, threshold=1).mean == 1 / 4
    assert mrr(labels, scores, k=3, threshold=1).mean == 0
    assert average_precision(labels, scores).mean == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    assert average_precision(labels, scores, k=2).mean == pytest.approx(1 / 2 / 3)
    assert precision(labels, scores, k=4).mean == 2 / 4
    assert precision(labels, scores, k=10).mean == 3 / 10  # divided by k though the list is shorter
    assert recall(labels, scores, k=4).mean == pytest.approx(2 / 3)
    assert auc(labels, scores).mean == pytest.approx(1 / 6)  # of 3 × 2 pairs, only 8 over 7


def test_queries_without_a_positive_grade():
    labels, scores = [[0.0, 0], [1.0, 0], []], [[1.0, 2], [2.0, 1], []]
    for metric in (ndcg, mrr, average_precision, precision, recall):
        found = metric(labels, scores, k=1)
        assert (found.used, found.skipped, found.mean) == (1, 2, 1.0)
        assert np.isnan(found.values[[0, 2]]).all()
        assert metric(labels, scores, k=1, empty="zero").values.tolist() == [0, 1, 0]
        assert metric(labels, scores, k=1, empty="one").values.tolist() == [1, 1, 1]
        assert metric(labels, scores, k=1, empty="zero").skipped == 0
    assert auc(labels, scores).skipped == 2
    assert auc([[1.0, 2]], [[1.0, 2]]).used == 0  # all relevant: no pair to order


def test_the_printed_figure_carries_its_conditions():
    text = str(ndcg([[1.0, 0], [0.0]], [[2.0, 1], [1.0]], k=5))
    assert text == "ndcg@5 1.0000 (gain 2^grade − 1, ties worst first, 1 queries, 1 skipped)"
    assert np.isnan(ndcg([], []).mean)


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "options", "says"),
    [
        ([[1.0]], [[1.0], [2.0]], {}, "labels have 1 queries and scores 2"),
        ([[1.0], [1.0, 2]], [[1.0], [2.0]], {}, r"query 1: labels have shape \(2,\) and scores \(1,\)"),
        ([[1.0], [1.0, np.nan]], [[1.0], [2.0, 1]], {}, "query 1: a label is nan; expected a grade"),
        ([[1.0], [1.0, 0]], [[1.0], [2.0, np.nan]], {}, "query 1: a score is NaN"),
        ([[1.0], [1.0, np.inf]], [[1.0], [2.0, 1]], {}, "query 1: a label is inf; expected a grade"),
        ([[1.0], [0, 1024.0]], [[1.0], [2.0, 1]], {}, 'query 1: a grade of 1024 .* use gain="linear"'),
        ([[1023.0] * 3], [[1.0, 2, 3]], {}, 'query 0: a grade of 1023 .* use gain="linear"'),  # their sum is too high
        ([[1.0]], [[1.0]], {"k": 0}, "k is 0; expected a whole number from 1"),
        ([[1.0]], [[1.0]], {"gain": "cubic"}, 'gain is "cubic"; expected exp2, linear'),
        ([[1.0], [3.0]], [[1.0], [1.0]], {"gain": [0, 1]}, r"query 1: grade 3 has no gain in \[0.0, 1.0\]"),
        ([[0.5]], [[1.0]], {"gain": [0, 1]}, "query 0: grade 0.5 has no gain"),
        ([[1.0]], [[1.0]], {"gain": [0, -1]}, "from 0 up"),
        ([[1.0]], [[1.0]], {"empty": "half"}, 'empty is "half"; expected one of skip, zero, one'),
        ([[1.0]], [[1.0]], {"ties": "best"}, 'ties is "best"; expected worst or average'),
    ],
)
def test_bad_input(labels, scores, options, says):
    with pytest.raises(ValueError, match=says):
        ndcg(labels, scores, **options)


def test_a_nan_score_in_padding_is_no_matter():
    assert ndcg([[1.0, -1]], [[1.0, np.nan]]).mean == 1


# -- independent implementations -------------------------------------------------------------------------------------


def _trec(labels, scores, measures, relevance=lambda grade: int(grade)):
    """pytrec_eval's values; it breaks ties by the greater document name, so names put the worse item first."""
    qrels, runs = {}, {}
    for q, (some_labels, some_scores) in enumerate(zip(labels, scores, strict=True)):
        names = [f"{99 - int(label):02d}-{i:03d}" for i, label in enumerate(some_labels)]
        qrels[f"{q:04d}"] = {name: relevance(label) for name, label in zip(names, some_labels, strict=True)}
        runs[f"{q:04d}"] = {name: float(score) for name, score in zip(names, some_scores, strict=True)}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(runs)
    return [found[f"{q:04d}"] for q in range(len(labels))]


def test_against_pytrec_eval_with_ties(random_lists):
    labels, scores = random_lists
    found = _trec(labels, scores, {"ndcg", "ndcg_cut.5,10", "map", "map_cut.5", "recip_rank", "P.5,10", "recall.5,10"})
    pairs = {
        "ndcg": ndcg(labels, scores, k=None, gain="linear", empty="zero"),
        "ndcg_cut_5": ndcg(labels, scores, k=5, gain="linear", empty="zero"),
        "ndcg_cut_10": ndcg(labels, scores, k=10, gain="linear", empty="zero"),
        "map": average_precision(labels, scores, empty="zero"),
        "map_cut_5": average_precision(labels, scores, k=5, empty="zero"),
        "recip_rank": mrr(labels, scores, empty="zero"),
        "P_5": precision(labels, scores, k=5, empty="zero"),
        "P_10": precision(labels, scores, k=10, empty="zero"),
        "recall_5": recall(labels, scores, k=5, empty="zero"),
        "recall_10": recall(labels, scores, k=10, empty="zero"),
    }
    for name, mine in pairs.items():
        np.testing.assert_allclose(mine.values, [query[name] for query in found], err_msg=name, **CLOSE)
    assert sum(label.max() == 0 for label in labels) > 5  # queries without a relevant item are among them


def test_exponential_gain_against_pytrec_eval(random_lists):
    labels, scores = random_lists
    found = _trec(labels, scores, {"ndcg_cut.10"}, relevance=lambda grade: 2 ** int(grade) - 1)
    np.testing.assert_allclose(ndcg(labels, scores, empty="zero").values, [q["ndcg_cut_10"] for q in found], **CLOSE)


def test_against_scikit_learn(random_lists):
    labels, scores = random_lists
    averaged = ndcg(labels, scores, k=7, ties="average").values
    for q, (label, score) in enumerate(zip(labels, scores, strict=True)):
        if len(label) > 1 and label.max() > 0:
            assert averaged[q] == pytest.approx(ndcg_score([2**label - 1], [score], k=7))
    loose = np.random.default_rng(0)
    apart = [loose.permutation(len(score)).astype(float) for score in scores]  # no ties
    mine = {
        "ap": average_precision(labels, apart).values,
        "auc": auc(labels, scores).values,
        "auc1": auc(labels, scores, threshold=1).values,
        "ndcg": ndcg(labels, apart).values,
    }
    for q, (label, score) in enumerate(zip(labels, scores, strict=True)):
        if label.max() > 0:
            assert mine["ap"][q] == pytest.approx(average_precision_score(label > 0, apart[q]))
            if len(label) > 1:
                assert mine["ndcg"][q] == pytest.approx(ndcg_score([2**label - 1], [apart[q]], k=10))
        for name, threshold in (("auc", 0), ("auc1", 1)):
            relevant = label > threshold
            if relevant.any() and not relevant.all():
                assert mine[name][q] == pytest.approx(roc_auc_score(relevant, score))
            else:
                assert np.isnan(mine[name][q])


def test_padded_lists_equal_ragged_ones(random_lists):
    labels, scores = random_lists
    rng = np.random.default_rng(5)
    padded_labels = np.full((len(labels), 60), -1.0)
    padded_scores = rng.normal(50, 50, (len(labels), 60))  # padding scores higher than anything real
    for q, (label, score) in enumerate(zip(labels, scores, strict=True)):
        places = rng.choice(60, len(label), replace=False)  # padding stands between items, too
        padded_labels[q, places], padded_scores[q, places] = label, score
    for name, metric in METRICS.items():
        np.testing.assert_allclose(
            metric(padded_labels, padded_scores).values, metric(labels, scores).values, err_msg=name, **CLOSE
        )


def test_batch_equals_one_by_one(random_lists):
    labels, scores = random_lists
    for name, metric in METRICS.items():
        single = [metric([label], [score]).values[0] for label, score in zip(labels, scores, strict=True)]
        np.testing.assert_allclose(metric(labels, scores).values, single, err_msg=name, **CLOSE)


# -- properties ------------------------------------------------------------------------------------------------------

a_list = st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 5)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(a_list, st.randoms(use_true_random=False))
def test_order_of_the_items_does_not_matter(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    for metric in METRICS.values():
        first, second = (
            metric([[float(g) for g, _ in some]], [[float(s) for _, s in some]]).values for some in (items, shuffled)
        )
        np.testing.assert_allclose(first, second, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(a_list)
def test_bounds_and_extremes(items):
    label = [float(grade) for grade, _ in items]
    score = [float(score) for _, score in items]
    for metric in METRICS.values():
        value = metric([label], [score]).values[0]
        assert np.isnan(value) or -1e-12 <= value <= 1 + 1e-12
    if max(label) == 0:
        return
    assert ndcg([label], [label]).mean == pytest.approx(1)
    lifted = [s + 1e-3 * g for g, s in zip(label, score, strict=True)]  # the best way to break the ties
    worst, average = ndcg([label], [score]).mean, ndcg([label], [score], ties="average").mean
    assert worst <= average + 1e-12 <= ndcg([label], [lifted]).mean + 2e-12
    assert ndcg([label], [[0.0] * len(label)]).mean == pytest.approx(ndcg([label], [[-g for g in label]]).mean)
