"""LambdaMART and the DNN: what they promise, what they learn, and what they must not see."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.pair_shops import FeatureLists, make_ranker, make_shop
from tfmmrank.evaluation import DNN, LambdaMART, PairFeatures, Random, fit_baselines, labels_of, ndcg
from tfmmrank.evaluation.dnn_inputs import Inputs, Scale
from tfmmrank.evaluation.scoring import check_scores

lightgbm = pytest.importorskip("lightgbm", reason="the extra lightgbm")

FAST = {"trials": 2, "rounds": 60, "patience": 20, "threads": 1}
SHORT = {"hidden": (16, 8), "settings": ({"learning_rate": 0.01, "dropout": 0.1},), "epochs": 15, "patience": 15}
SYSTEMS = {
    "lambdamart": lambda features, **options: LambdaMART(features, **FAST, **options),
    "lambdamart + embeddings": lambda features, **options: LambdaMART(
        features, embeddings=True, components=4, **FAST, **options
    ),
    "dnn": lambda features, **options: DNN(features, **{**SHORT, "epochs": 2}, **options),
}
PLAIN = {"lambdamart": SYSTEMS["lambdamart"], "dnn": lambda features, **options: DNN(features, **SHORT, **options)}


@pytest.fixture(scope="module")
def fitted(shop, features):
    """What each of the systems learnt from the shop."""
    return functools.cache(lambda name: SYSTEMS[name](features, seed=3).fit(shop))


@pytest.fixture(scope="module")
def other(shop, tmp_path_factory):
    """The shop with other test labels, and what is computed of it."""
    other = make_shop(tmp_path_factory.mktemp("other"))
    relabelled(other, "test", np.random.default_rng(0).permutation(other.lists("test").labels))
    assert not np.array_equal(other.lists("test").labels, shop.lists("test").labels)
    return other, PairFeatures(make_ranker(other), other)


def ndcg_of(system, data, split="test") -> float:
    return ndcg(labels_of(data, split), system.scores(data, split)).mean


def relabelled(data, split, labels):
    """Gives a split other labels."""
    data._lists[split] = replace(data._lists[split], labels=np.asarray(labels, np.float32))


@pytest.mark.parametrize("name", SYSTEMS)
def test_contract(name, shop, features, fitted):
    """A finite score an item, the same for one seed, and what was chosen is told."""
    first, again = fitted(name), SYSTEMS[name](features, seed=3).fit(shop)
    scores = first.scores(shop, "test")
    check_scores(shop.lists("test"), scores, name)
    assert first.name == name
    assert all(some.dtype == np.float32 for some in scores)
    np.testing.assert_array_equal(np.concatenate(scores), np.concatenate(again.scores(shop, "test")))
    assert first.chosen in first.trials_made
    assert first.chosen.valid == max(trial.valid for trial in first.trials_made)
    assert ndcg_of(first, shop, "valid") == pytest.approx(first.chosen.valid, abs=0.02)  # float32 may tie
    assert "NDCG@10" in str(first.chosen)


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_is_learnt_from_the_test_split(name, shop, fitted, other):
    """With other test labels, everything computed anew, the scores are the same."""
    changed, features = other
    expected = fitted(name).scores(shop, "test")
    found = SYSTEMS[name](features, seed=3).fit(changed).scores(changed, "test")
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))


@pytest.mark.parametrize("name", PLAIN)
def test_an_easy_problem_is_learnt(name, tmp_path):
    """Lists of numbers without a catalogue, as LibSVM files give; the grade is no monotone function of any."""
    data = FeatureLists(tmp_path, lists=120)
    system = PLAIN[name](PairFeatures(None, data)).fit(data)
    check_scores(data.lists("test"), system.scores(data, "test"), name)
    assert ndcg_of(Random(), data) < 0.8
    assert ndcg_of(system, data) > 0.93


def test_vectors_tell_what_columns_cannot(tmp_path):
    """Red items are good: seen in the picture, named in no text and by no number."""
    shop = make_shop(tmp_path, lists=60)
    shop.catalogue._columns["price"][:] = 1  # forty items are few: trees would know each by its price
    for split in shop.splits:
        relabelled(shop, split, shop.lists(split).item_rows % 4 == 0)
        shop.lists(split).slots["past_clicks"][:] = 1
    features = PairFeatures(make_ranker(shop), shop)
    blind = SYSTEMS["lambdamart"](features).fit(shop)
    seeing = SYSTEMS["lambdamart + embeddings"](features).fit(shop)
    network = DNN(features, **SHORT).fit(shop)
    assert ndcg_of(blind, shop) < 0.8
    assert ndcg_of(seeing, shop) > 0.95
    assert ndcg_of(network, shop) > 0.95


def test_grades_that_are_no_whole_numbers(tmp_path, monkeypatch):
    """LightGBM gets their places, and 2^grade - 1 as the places' gains."""
    data = FeatureLists(tmp_path)
    for split in data.splits:
        relabelled(data, split, data.lists(split).labels / 2)
    seen = []
    train = lightgbm.train
    monkeypatch.setattr(lightgbm, "train", lambda *a, **k: seen.append((a[0], a[1].get_label())) or train(*a, **k))
    LambdaMART(PairFeatures(None, data), **FAST).fit(data)
    parameters, labels = seen[0]
    assert parameters["label_gain"] == pytest.approx([0, 2**0.5 - 1, 1, 2**1.5 - 1])
    assert parameters["deterministic"] is True
    assert parameters["num_threads"] == 1
    np.testing.assert_array_equal(labels, data.lists("train").labels * 2)
    assert len({str(sorted(parameters.items())) for parameters, _ in seen}) == 2  # two settings


def test_weights_count(tmp_path):
    """Items of weight 0 teach nothing: with the labels of half the lists turned round, only weights save the order."""
    data = FeatureLists(tmp_path, lists=120)
    lists = data.lists("train")
    wrong = np.repeat(np.arange(120) % 2 == 0, np.diff(lists.offsets))
    weights = np.where(wrong, 0, 1).astype(np.float32)
    data._lists["train"] = replace(lists, labels=np.where(wrong, 3 - lists.labels, lists.labels), weights=weights)
    for name in PLAIN:
        assert ndcg_of(PLAIN[name](PairFeatures(None, data)).fit(data), data) > 0.9


def test_long_lists_are_sampled_in_training_and_scored_whole(tmp_path):
    data = FeatureLists(tmp_path)
    system = DNN(PairFeatures(None, data), list_size=3, **{**SHORT, "epochs": 1}).fit(data)
    check_scores(data.lists("test"), system.scores(data, "test"), "dnn")


def test_inputs_of_the_network():
    numbers = np.array([[0, np.e - 1, 0], [0, np.nan, 1], [0, 1 - np.e, 0], [0, 0, np.nan]], np.float32)
    scale = Scale().learn(numbers, np.array([False, False, True]))
    found = scale.apply(numbers)
    # log: 1, missing, -1, 0; mean 0, deviation sqrt(2/3). A column that never changes is 0.
    expected = [[0, 1.5**0.5, 1, 0], [0, 0, 0, 1], [0, -(1.5**0.5), 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)  # float32
    assert scale.apply(np.array([[5, 0, 9]], np.float32))[0, 2:].tolist() == [0, 0]  # a category not seen


def test_epochs_of_the_network_hold_every_list_once(tmp_path):
    lists = FeatureLists(tmp_path).lists("train")
    inputs = Inputs(lists, lists.slots["features"], {})
    size = int(np.diff(lists.offsets).max())
    batches = list(inputs.epoch(16, 200, 0, 0).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == [16, 16, 8]
    first = np.concatenate([given["numbers"][given["mask"]][:, 0] for given, _ in batches])
    np.testing.assert_array_equal(np.sort(first), np.sort(lists.slots["features"][:, 0]))
    for given, labels in batches:
        assert labels.shape == given["mask"].shape == (len(labels), size)
        assert ((labels >= 0) == given["mask"]).all()
    other = next(iter(inputs.epoch(16, 200, 0, 1).as_numpy_iterator()))[1]
    assert not np.array_equal(other, batches[0][1])


def test_errors(shop, features, tmp_path):
    for make in (SYSTEMS["lambdamart"], SYSTEMS["dnn"]):
        with pytest.raises(ValueError, match="call fit"):
            make(features).scores(shop, "test")
        no_valid = FeatureLists(tmp_path, splits=("train", "test"))
        with pytest.raises(ValueError, match='has no split "valid" to choose settings and stop by'):
            make(PairFeatures(None, no_valid)).fit(no_valid)
        flat = FeatureLists(tmp_path)
        relabelled(flat, "valid", np.zeros(len(flat.lists("valid").labels)))
        with pytest.raises(ValueError, match='no query of split "valid" .* has a positive grade'):
            make(PairFeatures(None, flat)).fit(flat)
        bare = FeatureLists(tmp_path)
        bare.slot_columns = {}
        with pytest.raises(ValueError, match="no numbers"):
            make(PairFeatures(None, bare))
    with pytest.raises(ValueError, match="no tower of a frozen pretrained encoder"):
        LambdaMART(PairFeatures(None, shop), embeddings=True)


# -- which of them one gets --------------------------------------------------------------------------------------------


@pytest.fixture
def unfitted(monkeypatch):
    """Which baselines there are, without their training."""
    for system in (LambdaMART, DNN):
        monkeypatch.setattr(system, "fit", lambda self, data, split: self)


def names(*arguments, **options) -> list[str]:
    return [baseline.name for baseline in fit_baselines(*arguments, **options)]


def test_what_a_ranker_and_a_dataset_allow(shop, ranker, unfitted, tmp_path):
    simple = ["random", "popularity", "bm25"]
    learnt = ["lambdamart", "lambdamart + embeddings", "dnn"]
    assert names(shop) == [*simple, "oracle"]
    assert names(shop, ranker) == [*simple, "zero-shot title", "oracle"]
    assert names(shop, ranker, systems="all") == [*simple, "zero-shot title", *learnt, "oracle"]
    assert names(shop, systems="all") == [*simple, "lambdamart", "dnn", "oracle"]
    assert names(FeatureLists(tmp_path), systems="all") == ["random", "lambdamart", "dnn", "oracle"]
    with pytest.raises(ValueError, match='systems is "some"; expected one of simple, all'):
        fit_baselines(shop, systems="some")


def test_without_validation_lists_the_learnt_ones_are_left_out(unfitted, tmp_path):
    with pytest.warns(UserWarning, match='leave out LambdaMART and the DNN: no split "valid"'):
        assert names(FeatureLists(tmp_path, splits=("train", "test")), systems="all") == ["random", "oracle"]


def test_without_lightgbm(shop, ranker, features, unfitted, monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name == "lightgbm":
            raise ImportError("No module named 'lightgbm'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r'LambdaMART needs LightGBM: pip install "tfmmrank\[lightgbm\]"'):
        LambdaMART(features)
    with pytest.warns(UserWarning, match="baselines leave out LambdaMART: .*tfmmrank.lightgbm"):
        found = names(shop, ranker, systems="all")
    assert found == ["random", "popularity", "bm25", "zero-shot title", "dnn", "oracle"]
