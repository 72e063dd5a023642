"""List context and modality dropout."""

import numpy as np
import pytest

from tests.tiny_shop import RECIPE_MODEL, MemoryShop, make_recipe
from tfmmrank.cross_tower import CrossTower
from tfmmrank.ranker import Ranker
from tfmmrank.stack import tf
from tfmmrank.training import build_ranker


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    from tests.conftest import encode_picture

    return MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture)


def test_without_context_an_item_s_score_is_its_own(rng):
    fused = tf.constant(rng.normal(size=(2, 5, 8)), tf.float32)
    mask = tf.ones([2, 5], tf.bool)
    alone = CrossTower(layers=1, deep=[8])
    np.testing.assert_allclose(alone(fused, None, mask)[:, :3], alone(fused[:, :3], None, mask[:, :3]), atol=1e-5)
    together = CrossTower(layers=1, deep=[8], context={"heads": 2, "head_size": 8})
    assert not np.allclose(together(fused, None, mask)[:, :3], together(fused[:, :3], None, mask[:, :3]), atol=1e-3)


def test_context_sees_the_list_and_not_its_padding(rng):
    tower = CrossTower(layers=0, deep=[8], context={"layers": 2, "heads": 2, "head_size": 8})
    fused = rng.normal(size=(1, 5, 8)).astype(np.float32)
    mask = np.array([[True, True, True, False, False]])
    scores = tower(tf.constant(fused), None, tf.constant(mask)).numpy()
    junk = fused.copy()
    junk[:, 3:] = 99.0
    np.testing.assert_allclose(
        tower(tf.constant(junk), None, tf.constant(mask)).numpy()[:, :3], scores[:, :3], atol=1e-5
    )
    short = tower(tf.constant(fused[:, :3]), None, tf.constant(mask[:, :3])).numpy()
    np.testing.assert_allclose(short, scores[:, :3], atol=1e-5)
    order = np.array([2, 0, 1])
    permuted = tower(tf.constant(fused[:, order]), None, tf.constant(mask[:, order])).numpy()
    np.testing.assert_allclose(permuted, scores[:, order], atol=1e-5)


def test_unknown_option_of_the_context_is_told():
    with pytest.raises(ValueError, match='context has no "depth"; expected layers, heads, head_size, dropout'):
        CrossTower(context={"depth": 2})


def test_a_ranker_with_context_and_modality_dropout_trains_saves_and_hides_in_training_alone(shop, tmp_path):
    model = {
        "dim": 8,
        "towers": {
            "title": {"kind": "text", "columns": ["title"], "layers": 0},
            "facts": {"kind": "behaviour", "columns": ["price", "brand"], "categorical": ["brand"]},
            "behaviour": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]},
        },
        "fusion": {"kind": "mean"},
        "context": {"layers": 1, "heads": 2, "head_size": 16},
        "modality_dropout": {"facts": 0.9, "behaviour": 0.5},
    }
    ranker = build_ranker(make_recipe(model), shop)
    batch = next(iter(shop.dataset("train", ranker, batch_size=8)))[0]
    scores = ranker(batch).numpy()
    np.testing.assert_array_equal(ranker(batch).numpy(), scores)
    assert not np.allclose(ranker(batch, training=True).numpy(), scores, atol=1e-3)
    _, item = ranker._encode_batch(batch)
    shown = ranker._hidden_at_random(item)
    before, after = item["facts"].mask.numpy(), shown["facts"].mask.numpy()
    assert before.sum() * 0.4 > after.sum()
    assert not (after & ~before).any()
    np.testing.assert_array_equal(shown["title"].mask, item["title"].mask)
    ranker.compile("adam")
    ranker.fit(shop.dataset("train", ranker, batch_size=8, shuffle=True), epochs=1, verbose=0)
    ranker.save_ranker(tmp_path / "ranker")
    np.testing.assert_allclose(Ranker.load_ranker(tmp_path / "ranker")(batch), ranker(batch), atol=1e-5)


@pytest.mark.parametrize(("rates", "told"), [
    ({"picture": 0.5}, 'no item or slot tower "picture"; towers: title, image'),
    ({"query": 0.5}, 'no item or slot tower "query"'),
])  # fmt: skip
def test_modality_dropout_of_no_such_tower_is_told(shop, rates, told):
    with pytest.raises(ValueError, match=told):
        build_ranker(make_recipe({**RECIPE_MODEL, "modality_dropout": rates}), shop)
