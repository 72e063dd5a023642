"""Metrics that watch training measure as the evaluation does."""

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.evaluation.metrics import mrr, ndcg
from tfmmrank.objectives import get_metric
from tfmmrank.objectives.metrics import without_ties
from tfmmrank.stack import tf
from tfmmrank.training import build_ranker


@pytest.mark.parametrize(("name", "measure"), [("ndcg@5", ndcg), ("mrr", mrr)])
def test_ties_are_worst_first_as_in_the_evaluation(name, measure, rng):
    labels = rng.integers(0, 4, (40, 12)).astype(np.float32)
    labels[:, 0] = 2  # each list has a positive one
    scores = rng.integers(0, 3, (40, 12)).astype(np.float32)  # three values for twelve items
    metric = get_metric(name)
    padded = np.pad(labels, [(0, 0), (0, 3)], constant_values=-1), np.pad(scores, [(0, 0), (0, 3)], constant_values=1)
    metric.update_state(*map(tf.constant, padded))
    cut = 5 if "@" in name else None
    expected = measure(list(labels), list(scores), k=cut).mean  # worst first is its default
    assert metric.result().numpy() == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    metric.update_state(labels[:1], scores[:1])
    expected = measure(list(labels[:1]), list(scores[:1]), k=cut).mean
    assert metric.result().numpy() == pytest.approx(expected, rel=1e-5)


def test_lists_without_a_positive_are_skipped(tmp_path):
    shop = MemoryShop(tmp_path, encode_picture, lists=8)
    labels = shop.lists("valid").labels
    model = {"dim": 8, "towers": {"facts": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]}}}
    ranker = build_ranker(make_recipe(model), shop)
    ranker.compile(metrics=["ndcg@10"])
    offsets = shop.lists("valid").offsets
    labels[offsets[2] : offsets[4]] = 0
    measured = ranker.evaluate(shop.dataset("valid", ranker), verbose=0, return_dict=True)["ndcg@10"]
    scores = ranker.predict(shop.dataset("valid", ranker), verbose=0)
    scores = [row[: stop - start] for row, start, stop in zip(scores, offsets, offsets[1:], strict=False)]
    expected = ndcg(np.split(labels, offsets[1:-1]), scores, k=10)
    assert expected.skipped == 2
    assert measured == pytest.approx(expected.mean, abs=1e-6)


def test_what_is_not_tied_keeps_its_order(rng):
    scores = rng.standard_normal((5, 9)).astype(np.float32)
    order = without_ties(tf.constant(rng.integers(0, 3, (5, 9))), tf.constant(scores)).numpy()
    np.testing.assert_array_equal(np.argsort(order), np.argsort(scores))
