"""Scores of a ranker, in the order and length of the lists."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.evaluation import labels_of, scores_of
from tfmmrank.training import build_ranker

LISTS = 8


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    from tests.conftest import encode_picture

    return MemoryShop(tmp_path_factory.mktemp("memory"), encode_picture, lists=LISTS)


@pytest.fixture(scope="module")
def ranker(shop):
    return build_ranker(make_recipe(), shop)


class Constant:
    """Stands for a ranker whose predictions are given."""

    def __init__(self, predictions):
        self.predictions = predictions

    def predict(self, dataset, verbose):
        return self.predictions


def test_scores_are_the_rankers_own_list_by_list(shop, ranker):
    scores = scores_of(ranker, shop, "test")
    lists = shop.lists("test")
    assert [len(some) for some in scores] == np.diff(lists.offsets).tolist()
    single = [
        np.asarray(ranker(features))[0][: len(scores[number])]
        for number, (features, _, _) in enumerate(shop.dataset("test", ranker, batch_size=1))
    ]
    for mine, expected in zip(scores, single, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)  # float32 sums of another batch shape
    assert all(some.dtype == np.float32 for some in scores)


def test_batch_size_does_not_matter(shop, ranker, uncompiled):
    for a, b in zip(scores_of(ranker, shop, "test", batch_size=5), scores_of(ranker, shop, "test", 64), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_labels_of(shop):
    lists = shop.lists("valid")
    labels = labels_of(shop, "valid")
    assert len(labels) == len(lists)
    np.testing.assert_array_equal(np.concatenate(labels), lists.labels)
    np.testing.assert_array_equal(labels[1], lists.labels[lists.offsets[1] : lists.offsets[2]])


def test_scores_that_cannot_be_used(shop, monkeypatch):
    monkeypatch.setattr(shop, "dataset", lambda *_, **__: None)
    longest = int(np.diff(shop.lists("test").offsets).max())
    good = np.zeros((LISTS, longest), np.float32)
    assert (
        len(scores_of(Constant(np.zeros((LISTS + 6, longest + 3))), shop, "test")) == LISTS
    )  # padded lists and slots are cut
    with pytest.raises(ValueError, match=rf"scores of shape \(3, \d+\) for {LISTS} lists"):
        scores_of(Constant(good[:3]), shop, "test")
    good[2, 1] = np.inf
    with pytest.raises(ValueError, match='split "test": query test-2, item 1: score is inf'):
        scores_of(Constant(good), shop, "test")
