"""Small weights: what is kept of a matrix, how much room it takes, and what it does to scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.export.small_shop import make_ranker, make_shop
from tests.tiny_shop import as_bytes
from tfmmrank.export import Servable, export
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.export.signatures import Signatures
from tfmmrank.export.small_weights import SmallWeights, quantise
from tfmmrank.stack import keras, tf


def test_quantised_by_hand():
    kept, scale = quantise(np.array([[127, 0.5, 0], [-254, 0.25, 0]], np.float32))
    np.testing.assert_allclose(scale, [[2, 0.5 / 127, 1]])
    assert kept.dtype == np.int8
    assert kept.tolist() == [[64, 127, 0], [-127, 64, 0]]  # 63.5 goes to the even 64


def test_a_channel_errs_by_half_a_step():
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    kept, scale = quantise(values)
    assert scale.shape == (1, 1, 1, 5)
    assert (np.abs(kept * scale - values) <= scale / 2 * (1 + 1e-6)).all()
    assert quantise(values[..., :1])[1].shape == (1, 1, 4, 1)  # of one channel an axis before: a depthwise kernel


@pytest.fixture(scope="module")
def shop(tmp_path_factory, all_uncompiled):
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def ranker(shop):
    return make_ranker(shop)


def test_each_head_of_an_attention_has_its_scales(rng):
    """One head is a hundred times smaller than its neighbours."""
    attention = keras.layers.MultiHeadAttention(3, 4)
    attention(tf.zeros([1, 1, 8]), tf.zeros([1, 1, 8]))
    dense, bias = attention._query_dense, attention._query_dense.bias
    kernel = rng.normal(size=[8, 3, 4]).astype(np.float32)
    kernel[:, 1] /= 100
    dense.kernel.assign(kernel)
    ranker = SimpleNamespace(towers=[keras.Sequential([attention])])
    with SmallWeights(ranker, "int8").in_place():
        assert (np.abs(dense.kernel - kernel) <= np.abs(kernel).max(0) / 254 * (1 + 1e-6)).all()
        assert dense.bias is bias  # of two axes, and no kernel


def matrices(ranker):
    return [
        weight
        for tower in ranker.towers
        for weight in tower.weights
        if weight.shape.rank >= 2 and weight.dtype == tf.float32
    ]


def features(shop):
    lists = shop.lists("test")
    rows = lists.item_rows[lists.of(0)]
    items = {name: tf.constant(value[None]) for name, value in shop.catalogue.rows(rows).items() if name != "image"}
    return {"query": as_bytes([lists.queries["query"][0]]), **items, "num_items": [len(rows)]}


def scores(ranker, shop, precision):
    """Op by op: of what the functions of an export are traced with."""
    small = SmallWeights(ranker, precision)
    signatures = Signatures(ranker, RawColumns.of(ranker), None, "")
    with small.in_place():
        return signatures.rank_features({k: tf.constant(v) for k, v in features(shop).items()})["scores"].numpy()[0]


# Relative to the largest score. float16 has 11 bits and int8 some 7; sums of a few dozen terms make up for a part.
# Observed: 2e-4 and 1e-2.
@pytest.mark.parametrize(("precision", "least", "most"), [("float16", 1e-7, 2e-3), ("int8", 1e-4, 5e-2)])
def test_scores_move_as_far_as_the_precision_goes(ranker, shop, precision, least, most):
    exact = scores(ranker, shop, "float32")
    moved = np.abs(scores(ranker, shop, precision) - exact).max() / np.abs(exact).max()
    assert least < moved < most
    np.testing.assert_array_equal(scores(ranker, shop, "float32"), exact)  # the ranker itself is as it was


def test_a_table_is_looked_up_before_it_is_brought_back(ranker):
    """Else every request would bring a whole vocabulary to float32."""
    (table,) = (layer for layer in ranker.towers[0].submodules if type(layer) is keras.layers.Embedding)
    small = SmallWeights(ranker, "int8")
    with small.in_place():
        graph = tf.function(lambda ids: table(ids), autograph=False).get_concrete_function(
            tf.TensorSpec([None], tf.int32)
        )
    casts = [op for op in graph.graph.get_operations() if op.type == "Cast" and op.get_attr("SrcT") == tf.int8]
    assert [op.inputs[0].op.type for op in casts] == ["ResourceGather"]
    got = graph(tf.constant([3, 3, 7])).numpy()
    exact = table.embeddings.numpy()[[3, 3, 7]]
    assert (np.abs(got - exact) <= np.abs(exact).max(1, keepdims=True) / 254 * (1 + 1e-6)).all()


def test_an_exported_version_takes_less_room(ranker, shop, tmp_path):
    matrix_numbers = sum(int(np.prod(weight.shape)) for weight in {id(w): w for w in matrices(ranker)}.values())
    lists = shop.lists("test")
    ids = as_bytes(shop.catalogue.ids[lists.item_rows[lists.of(0)]])[None]
    asked = {"query": lists.queries["query"][:1], "item_ids": ids, "num_items": np.array([ids.shape[1]], np.int32)}
    path = export(ranker, shop, tmp_path / "shop", progress=False, weights="int8")
    version = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    kept = sum(version.get_tensor(name).nbytes for name in version.get_variable_to_shape_map() if name[0] != "_")
    tokens = (6 + 1) * (2 * 8 + 1)  # of an item's title and facts, float16 and 8 wide, with their masks
    whole = sum(weight.numpy().nbytes for weight in ranker.weights) + 40 * (tokens + 4)  # and its clicks
    saved = (whole - kept) / matrix_numbers
    assert 2 < saved < 3  # bytes a number: three less the scales, of matrices this small a good part
    servable = Servable(path)
    found = servable.run("rank", asked)["scores"][0]
    servable.close()
    expected = shop.scores(ranker)[0, : ids.shape[1]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-2 * np.abs(expected).max())


def test_what_float16_does_not_hold_stays_as_it_is(ranker):
    layer = next(layer for layer in ranker.towers[0].submodules if type(layer) is keras.layers.Dense)
    before = layer.kernel.numpy()
    wild = np.full_like(before, 1e6)
    layer.kernel.assign(wild)
    try:
        with SmallWeights(ranker, "float16").in_place():
            np.testing.assert_array_equal(layer.kernel, wild)
    finally:
        layer.kernel.assign(before)


def test_an_unknown_precision_is_told(ranker):
    with pytest.raises(ValueError, match='weights is "int4"; expected one of float32, float16, int8'):
        SmallWeights(ranker, "int4")
