"""Hiding a modality is scoring a dataset that lacks it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.columns import missing_values
from tfmmrank.evaluation import scores_of
from tfmmrank.evaluation.masking import masked_scores, modalities
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers import Tower, towers
from tfmmrank.training import build_ranker


@towers.register("letters")
class LettersTower(Tower):
    """How often some letters stand in a text: fused, and compared by their cosine."""

    match_width, output_kind = 3, "pooled"
    goes_on_from_match_tokens = True

    def preprocess(self, raw):
        text = raw[self.columns[0]]
        split = tf.strings.unicode_split(text, "UTF-8")
        return {"counts": tf.stack([tf.reduce_sum(tf.cast(split == c, tf.float32), -1) for c in "ero"], -1),
                "there": text != ""}  # fmt: skip

    def build(self, shape):
        self.dense = keras.layers.Dense(self.dim)
        super().build(shape)

    def match_tokens(self, features, training=False):
        return Tokens(features["counts"][:, None], features["there"][:, None])

    def call(self, tokens, training=False):
        return Tokens(self.dense(tokens.values), tokens.mask)


MODEL = {
    "dim": 8,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "layers": 0},
        "asked": {"kind": "letters", "side": "query", "columns": ["query"]},
        "terms": {"kind": "lexical", "side": "query", "columns": ["query"], "share": "words"},
        "image": {"kind": "image", "columns": ["image"], "size": 16, "width": 8},
        "letters": {"kind": "letters", "columns": ["brand"]},
        "words": {"kind": "lexical", "columns": ["description"]},
        "past": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"], "hidden": [8]},
    },
    "match": {
        "words": {"kind": "lexical", "query": "terms", "item": "words"},
        "letters": {"kind": "cosine", "query": "asked", "item": "letters"},
    },
    "fusion": "attention",
    "cross": {"layers": 1, "deep": [8]},
}


def make_shop(path, *blank):
    """A shop with descriptions, some columns of which are empty; in one place, what is computed of items is shared."""
    shop = MemoryShop(path, encode_picture, lists=10)
    shop.build = f"without {blank}"
    shop.item_columns = {**shop.item_columns, "description": "text"}
    columns = shop.catalogue._columns
    columns["description"] = columns["title"]
    for name in blank:
        if name in shop.item_columns:
            columns[name] = missing_values(shop.item_columns[name], (40,))
        else:
            slots = shop.lists("test").slots
            slots[name] = missing_values(1, slots[name].shape)
    return shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def ranker(shop):
    ranker = build_ranker(make_recipe(MODEL), shop, progress=False)
    rng = np.random.default_rng(0)
    for weight in ranker.cross.trainable_weights:  # the head starts from zeros: nothing fused would count
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return ranker


def differ(one, other) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def test_hiding_a_modality_is_its_column_s_absence(shop, ranker):
    whole, masked = scores_of(ranker, shop, "test"), masked_scores(ranker, shop, "test")
    assert list(masked) == ["image", "letters", "words", "past"]
    columns = ("image", "brand", "description", "past_clicks")
    for (name, some), column in zip(masked.items(), columns, strict=True):
        lacking = scores_of(ranker, make_shop(shop.path, column), "test")
        assert differ(some, whole) > 1e-3, name
        assert differ(some, lacking) < 1e-4, name  # float32 sums of another graph
    # What Keras's predict once traced, it keeps.
    assert differ(scores_of(ranker, shop, "test"), whole) == 0
    (few,) = masked_scores(ranker, shop, "test", {"past": ["past"]}, batch_size=3).values()
    assert differ(few, masked["past"]) < 1e-4


def test_towers_hidden_together(shop, ranker, uncompiled):
    lacking = scores_of(ranker, make_shop(shop.path, "image", "past_clicks"), "test")
    (both,) = masked_scores(ranker, shop, "test", {"both": ["image", "past"]}).values()
    assert differ(both, lacking) < 1e-4


def test_towers_that_read_the_same_are_taken_away_together_too():
    def tower(*columns, side="item"):
        return SimpleNamespace(columns=list(columns), side=side)

    towers = {"query": tower("query", side="query"), "title": tower("title"), "image": tower("image"),
              "words": tower("title"), "all": tower("title", "image"), "colours": tower("image")}  # fmt: skip
    alone = {name: (name,) for name in ("title", "image", "words", "all", "colours")}
    together = {"title + words": ("title", "words"), "image + colours": ("image", "colours")}
    assert modalities(towers) == {**alone, **together}


def test_an_unknown_modality(shop, ranker):
    with pytest.raises(ValueError, match='no item or slot tower "imgae"; did you mean "image"'):
        masked_scores(ranker, shop, "test", {"pictures": ["imgae"]})
