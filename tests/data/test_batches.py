"""Batches of few shapes: what a list scores does not depend on them, and every epoch can be read from any step."""

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop
from tfmmrank.data import feature_store
from tfmmrank.data.batches import ListBatches
from tfmmrank.data.gather import gathered
from tfmmrank.data.lists import Lists
from tfmmrank.ranker import Ranker
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers import BehaviourTower, ImageTower, TextTower, Tower

LISTS, LENGTH, ITEMS = 240, 6, 300


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """240 lists of six items: the first 200 of twenty popular ones, the others of any; a catalogue of 300."""
    shop = MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture)
    shop.catalogue._columns = {name: np.resize(values, ITEMS) for name, values in shop.catalogue._columns.items()}
    shop.catalogue.ids = np.array([f"i{row}" for row in range(ITEMS)], object)
    rng = np.random.default_rng(0)
    popular = [rng.choice(20, LENGTH, replace=False) for _ in range(200)]
    rows = np.concatenate([*popular, 20 + np.arange((LISTS - 200) * LENGTH)]).astype(np.int32)
    texts = np.resize(shop.lists("train").queries["query"], LISTS)
    shop._lists["train"] = Lists(
        np.array([f"q{number}" for number in range(LISTS)], object),
        {"query": texts},
        np.arange(LISTS + 1, dtype=np.int64) * LENGTH,
        rows,
        rng.integers(0, 4, len(rows)).astype(np.float32),
        np.ones(len(rows), np.float32),
        {"past_clicks": rows.astype(np.float32)},
    )
    return shop


@pytest.fixture(scope="module")
def ranker(shop):
    query = TextTower(["query"], side="query", dim=16, layers=0, name="query")
    towers = [
        query,
        TextTower(["title"], dim=16, share=query, name="title"),
        ImageTower(["image"], dim=16, size=16, width=8, name="image"),
        BehaviourTower(["past_clicks"], side="slot", dim=16, name="behaviour"),
    ]
    return Ranker(towers, "mean", 16, 1, deep=(16,)).adapt(shop, progress=False).build_from_columns()


def make(shop, ranker, **options):
    return ListBatches(shop, "train", ranker, **{"batch_size": 16, "shuffle": True, "progress": False, **options})


@pytest.fixture(scope="module")
def batches(shop, ranker):
    return make(shop, ranker)


def room(batch):
    """The number of items that a batch has room for."""
    return len(batch[0]["item/title/ids"])


def distinct(batch):
    return len(np.unique(batch[0]["item_index"][batch[0]["slot_mask"]]))


def test_few_shapes_with_little_padding(batches):
    made = [batch for epoch in range(3) for batch in batches.epoch(epoch)]
    shapes = {tuple((name, value.shape) for name, value in features.items()) for features, _, _ in made}
    assert len(shapes) <= 6
    assert all(room(batch) >= distinct(batch) for batch in made)
    # Forty lists of items of their own are spread unevenly over 15 batches; lists of twenty items alone would fit 24.
    assert np.mean([room(batch) for batch in made]) < 1.15 * np.mean([distinct(batch) for batch in made])
    assert max(room(batch) for batch in made) < 16 * LENGTH


def test_scores_do_not_depend_on_the_room(shop, ranker, batches):
    exact = make(shop, ranker, static=False)
    usual, rare = np.arange(16), np.arange(LISTS - 16, LISTS)
    for which, items in ((usual, 20), (rare, 96)):
        padded, as_many = batches.batch(which), exact.batch(which)
        assert room(as_many) == distinct(padded) == items
        assert room(padded) > items or items == 96
        # Other numbers of rows take other matrix kernels, which add in another order.
        np.testing.assert_allclose(ranker(padded[0]), ranker(as_many[0]), atol=1e-4)
        slots = {
            name: np.take(value, padded[0]["item_index"].reshape(-1), 0) if name.startswith("item/") else value
            for name, value in padded[0].items()
        }
        slots["item_index"] = np.arange(16 * LENGTH, dtype=np.int32).reshape(16, LENGTH)
        np.testing.assert_allclose(ranker(padded[0]), ranker(slots), atol=1e-4)


def test_a_batch_of_more_items_than_any_counted_has_room(batches):
    """As forty lists are of items of their own, a batch of those alone hardly ever comes: the limit holds it."""
    rare = batches.batch(np.arange(LISTS - 16, LISTS))
    assert room(rare) == distinct(rare) == batches.item_sizes[-1] == 96
    assert room(rare) > max(room(batch) for batch in batches.epoch(0))


def test_batches_of_epochs_counted_ahead_are_of_one_shape(shop, ranker, batches):
    one_size = make(shop, ranker, epochs=3)
    assert len(one_size.item_sizes) == 1
    most = 0
    for epoch in range(3):
        for alone, batch in zip(batches.epoch(epoch), one_size.epoch(epoch), strict=True):
            most = max(most, distinct(batch))
            np.testing.assert_array_equal(alone[0]["item_index"], batch[0]["item_index"])
    assert most <= one_size.item_sizes[0] < 1.3 * most
    assert all(part.shape.is_fully_defined() for part in tf.nest.flatten(one_size.dataset().element_spec))
    assert len(list(one_size.epoch(0, multiple_of=4))) == 16  # fifteen, and one without a list
    with pytest.raises(ValueError, match=f"has 96 distinct items, and room was made for {one_size.item_sizes[0]}"):
        one_size.batch(np.arange(LISTS - 16, LISTS))


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_dataset_goes_on_from_any_step_and_into_the_next_epochs(batches, replicas):
    options = {"initial_epoch": 2, "skip": 4, "multiple_of": replicas}
    read = list(batches.dataset(**options).repeat(2).as_numpy_iterator())
    expected = [*batches.epoch(2, 4, replicas), *batches.epoch(3, multiple_of=replicas)]
    assert len(read) == len(expected)
    for one, other in zip(read, expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_shapes_are_static_but_for_the_items(shop, ranker, batches):
    features, labels, _ = batches.dataset().element_spec
    assert labels.shape == (16, LENGTH)
    assert features["item/image/pixels"].shape.as_list() == [None, 16, 16, 3]
    assert all(spec.shape.is_fully_defined() for name, spec in features.items() if not name.startswith("item/"))
    # Where all sizes are one, that is static too.
    few = make(shop, ranker, batch_size=1)
    assert few.item_sizes == [LENGTH]
    assert few.dataset().element_spec[0]["item/image/pixels"].shape == (LENGTH, 16, 16, 3)


def test_gathered_rows_are_taken_over_as_they_are(rng):
    array = rng.normal(size=(50, 3, 7)).astype(np.float16)
    rows = np.array([4, 4, 49, 0])
    out = gathered(array, rows, 6)
    np.testing.assert_array_equal(out[:4], array[rows])
    assert not out[4:].any()
    assert out.ctypes.data % 64 == 0
    dataset = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(lambda: out, [], tf.float16))
    taken = next(iter(dataset))
    out[0, 0, 0] = 7  # seen by TensorFlow only if it made no copy
    assert taken[0, 0, 0] == 7
    assert gathered(array > 0, rows[:0], 2).dtype == bool


class Priced(Tower):
    """A price, made into a feature by code that changes and by what the tower learnt."""

    made = staticmethod(lambda price: price)
    learnt = b"one"

    def preprocess(self, raw):
        return {"price": type(self).made(tf.where(tf.math.is_nan(raw["price"]), 1.0, raw["price"]))[:, None]}

    def build(self, shape):
        self.dense = keras.layers.Dense(self.dim)

    def embed_state(self):
        return self.learnt

    def call(self, features, training=False):
        return Tokens(self.dense(features["price"])[:, None], features["price"] > 0)


def test_the_state_tells_of_other_code_other_learnt_weights_and_other_items(tmp_path, monkeypatch):
    shop = MemoryShop(tmp_path / "shop", encode_picture)

    def state(shop=shop):
        shop.build += "+"  # no features are at hand
        model = Ranker([Priced(["price"], name="priced")], "mean").adapt(shop, progress=False)
        shop.build += "+"
        return b"".join(make(shop, model).state())

    monkeypatch.setattr("tfmmrank.data.batches._SAMPLED", 1)  # of other items than the first, only digests tell
    first = state()
    assert state() == first
    with monkeypatch.context() as patch:
        patch.setattr(Priced, "made", staticmethod(tf.math.log))
        patch.setattr(feature_store, "_key", lambda tower, prepared: "changed")  # as the class's source would
        assert state() != first
    with monkeypatch.context() as patch:
        patch.setattr(Priced, "learnt", b"two")
        assert state() != first
    other = MemoryShop(tmp_path / "other", encode_picture)
    assert state(other) == first
    other.catalogue._columns["price"][np.unique(other.lists("train").item_rows)[-1]] = 999
    assert state(other) != first
