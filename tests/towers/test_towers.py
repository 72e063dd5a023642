import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encode_picture
from tfmmrank.stack import keras, tf
from tfmmrank.towers import BehaviourTower, ImageTower, TextTower, Tower, towers

TEXTS = [
    t.encode()
    for t in ["red striped shirt", "blue shoes for men", "红色 衬衫", "café crème shirt", "red red dress"] * 4
]


@pytest.fixture(scope="module")
def text():
    tower = TextTower(["query"], side="query", vocab_size=200, max_tokens=8, name="query")
    tower.adapt([{"query": np.array(TEXTS, object)}])
    return tower


def test_text_empty_is_masked_and_padding_is_zero(text):
    ids = text.preprocess({"query": tf.constant(["red shirt", ""])})["ids"].numpy()
    assert ids.shape == (2, 8)
    assert (ids[0] > 0).sum() == 2
    assert (ids[1] == 0).all()
    tokens = text({"ids": tf.constant(ids)})
    assert tokens.values.shape == (2, 8, 64)
    assert tokens.mask.numpy().sum(1).tolist() == [2, 0]
    assert np.isfinite(tokens.values.numpy()).all()


def test_text_folds_case_and_accents_and_splits_chinese(text):
    ids = text.preprocess(
        {"query": tf.constant(["RED Shirt", "red shirt", "CAFÉ", "cafe", "红色衬衫", "红 色 衬 衫"])}
    )["ids"].numpy()
    assert (ids[0] == ids[1]).all()
    assert (ids[2] == ids[3]).all()
    assert (ids[4] == ids[5]).all()
    assert (ids[4] > 0).sum() == 4
    unknown = text.vocabulary.index("[UNK]")
    assert unknown not in ids[4][ids[4] > 0]


def test_text_unseen_characters_become_unknown(text):
    ids = text.preprocess({"query": tf.constant(["ж"])})["ids"].numpy()[0]
    assert ids[0] == text.vocabulary.index("[UNK]")


def test_text_does_not_see_padding(text):
    """The same text in a longer sequence gives the same tokens."""
    longer = TextTower(["query"], side="query", share=text, max_tokens=20, name="longer")
    short = text(text.preprocess({"query": tf.constant(["red striped shirt"])})).values.numpy()[0, :3]
    long = longer(longer.preprocess({"query": tf.constant(["red striped shirt"])})).values.numpy()[0, :3]
    np.testing.assert_allclose(short, long, atol=1e-5)  # float32 sums of another length


def test_text_joins_columns_with_a_separator(text):
    both = TextTower(["title", "text"], share=text, max_tokens=8, name="both")
    ids = both.preprocess({"title": tf.constant(["red", "red"]), "text": tf.constant(["shirt", ""])})["ids"].numpy()
    separator = text.vocabulary.index("[SEP]")
    assert ids[0, 1] == separator
    assert (ids[0] > 0).sum() == 3
    assert separator not in ids[1]


def test_text_pooled_gives_one_token(text):
    pooled = TextTower(["query"], side="query", share=text, pooled=True, max_tokens=8, name="pooled")
    raw = {"query": tf.constant(["red shirt", ""])}
    tokens = pooled(pooled.preprocess(raw))
    expected = text(text.preprocess(raw)).values.numpy()[0, :2].mean(0)
    np.testing.assert_allclose(tokens.values.numpy()[0, 0], expected, atol=1e-5)
    assert tokens.mask.numpy().tolist() == [[True], [False]]


def _jpeg_of(image):
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def test_image_missing_and_broken_are_masked(picture):
    tower = ImageTower(["image"], size=32, name="image")
    good = picture()
    raw = {"image": tf.constant([good, b"", b"not a picture, though long enough to be one", picture(form="JPEG")])}
    features = tower.preprocess(raw)
    assert features["pixels"].shape == (4, 32, 32, 3)
    assert features["present"].numpy().tolist() == [True, False, False, True]
    np.testing.assert_array_equal(features["pixels"][0, 5, 5], [200, 30, 30])
    tokens = tower(features)
    junk = dict(features, pixels=tf.where(features["present"][:, None, None, None], features["pixels"], 77))
    np.testing.assert_array_equal(tokens.values, tower(junk).values)
    assert not tokens.values.numpy()[1].any()


def test_image_cut_short_is_missing_as_when_preparing(rng):
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    whole = _jpeg_of(noise)
    tower = ImageTower(["image"], size=32, name="image")
    features = tower.preprocess({"image": tf.constant([whole, whole[: len(whole) // 2]])})
    assert features["present"].numpy().tolist() == [True, False]


def test_image_token_depends_on_its_picture_alone(picture, rng):
    tower = ImageTower(["image"], size=32, name="image")
    pixels = rng.integers(0, 255, (5, 32, 32, 3)).astype(np.uint8)
    there = np.ones(5, bool)
    together = tower({"pixels": pixels, "present": there}, training=False).values.numpy()
    alone = tower({"pixels": pixels[:1], "present": there[:1]}).values.numpy()
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)  # other batch sizes take other convolution kernels


def test_image_regions_are_cells_of_sixteen_pixels(picture):
    tower = ImageTower(["image"], size=48, tokens="regions", name="image")
    assert tower(tower.preprocess({"image": tf.constant([picture()])})).mask.shape == (1, 9)


def test_behaviour_quantile_equals_numpy_interpolation(rng):
    values = rng.lognormal(size=500).astype(np.float32)
    tower = BehaviourTower(["price"], name="attributes")
    tower.adapt([{"price": values}])
    learnt = tower.learnt.numbers
    probe = np.array([values.min() - 1, *np.quantile(values, [0.1, 0.5, 0.77]), values.max() + 1], np.float32)
    got = tower.preprocess({"price": tf.constant(probe)})["numeric"].numpy()[:, 0]
    np.testing.assert_allclose(got, np.interp(probe, learnt["knots"][0], learnt["levels"][0]), atol=1e-5)
    assert got[0] == -1
    assert abs(got[2]) < 0.01  # the median stands in the middle
    assert got[-1] == 1


def test_behaviour_bins_tell_how_far_a_value_has_gone_through_each():
    tower = BehaviourTower(["price"], bins=4, hidden=(), name="b")
    tower.adapt([{"price": np.arange(101, dtype=np.float32)}])
    read = []
    tower.build(None)
    tower.norm = lambda hidden: read.append(hidden.numpy()) or hidden
    tower(tower.preprocess({"price": tf.constant([-5.0, 0.0, 50.0, 62.5, 100.0, 999.0, np.nan])}))
    spread, missing = read[0][:, :4], read[0][:, 4]
    expected = [[-1] * 4, [-1] * 4, [1, 1, -1, -1], [1, 1, 0, -1], [1] * 4, [1] * 4, [0] * 4]
    np.testing.assert_allclose(spread, expected, atol=1e-5)
    assert missing.tolist() == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bins": 4, "normalize": "log"}, 'bins are of normalize "quantile", not of "log"'), ({"bins": 0}, "bins is 0")],
)
def test_behaviour_bins_out_of_place(options, message):
    with pytest.raises(ValueError, match=message):
        BehaviourTower(["price"], name="b", **options)


def test_behaviour_log_and_standard():
    tower = BehaviourTower(["clicks"], normalize="log", name="b")
    tower.adapt([{"clicks": np.array([0, np.e - 1, np.nan], np.float32)}])  # logs 0 and 1: mean 0.5, deviation 0.5
    got = tower.preprocess({"clicks": tf.constant([0.0, np.e - 1, np.nan])})
    np.testing.assert_allclose(got["numeric"][:, 0], [-1, 1, 0], atol=1e-6)
    assert got["present"].numpy()[:, 0].tolist() == [1, 1, 0]


def test_behaviour_categories_missing_unknown_known():
    tower = BehaviourTower(["brand"], categorical=["brand"], name="b")
    tower.adapt([{"brand": np.array([b"Acme", b"Acme", b"Zenit", b""], object)}])
    index = tower.preprocess({"brand": tf.constant(["", "Other", "Acme", "Zenit"])})["categories"].numpy()[:, 0]
    assert index.tolist() == [0, 1, 2, 3]


def test_behaviour_row_of_missing_values_is_masked():
    tower = BehaviourTower(["price", "brand"], categorical=["brand"], name="b")
    tower.adapt([{"price": np.array([1, 2], np.float32), "brand": np.array([b"a", b"b"], object)}])
    raw = {"price": tf.constant([1.0, np.nan, np.nan]), "brand": tf.constant(["", "a", ""])}
    assert tower(tower.preprocess(raw)).mask.numpy()[:, 0].tolist() == [True, True, False]


def test_behaviour_wide_column(rng):
    tower = BehaviourTower(["features"], side="slot", name="letor")
    tower.adapt([{"features": rng.normal(size=(50, 46)).astype(np.float32)}])
    assert tower.preprocess({"features": tf.zeros([7, 46])})["numeric"].shape == (7, 46)


def _towers(text, rng):
    behaviour = BehaviourTower(["price", "brand"], categorical=["brand"], name="b")
    behaviour.adapt(
        [{"price": rng.normal(size=9).astype(np.float32), "brand": np.array([b"x", b"y", b""] * 3, object)}]
    )
    return [
        (text, {"query": ["red shirt", ""]}),
        (ImageTower(["image"], size=32, name="image"), {"image": [b"", b""]}),
        (behaviour, {"price": np.array([0.5, np.nan], np.float32), "brand": ["x", ""]}),
    ]


@pytest.mark.parametrize("which", range(3))
def test_config_round_trip_and_xla(text, rng, which):
    tower, raw = _towers(text, rng)[which]
    raw = {name: tf.constant(value) for name, value in raw.items()}
    config = json.loads(json.dumps(tower.get_config()))
    again = type(tower).from_config(config)
    features = tf.function(tower.preprocess)(raw)
    for name, value in again.preprocess(raw).items():
        np.testing.assert_array_equal(features[name], value)
    tokens = tower(features)
    compiled = tf.function(lambda f: tower(f), jit_compile=True)(features)
    np.testing.assert_allclose(tokens.values, compiled.values, atol=1e-5)  # XLA fuses, and so rounds, differently


def test_base_checks_its_arguments(text):
    with pytest.raises(ValueError, match='side is "left"'):
        TextTower(["title"], side="left")
    with pytest.raises(ValueError, match="columns is empty"):
        TextTower([])
    with pytest.raises(ValueError, match="only towers of one class share"):
        ImageTower(["image"], share=text)
    assert set(towers) >= {"text", "image", "behaviour"}
    assert issubclass(TextTower, Tower)
    assert issubclass(Tower, keras.layers.Layer)


def test_a_picture_that_cannot_be_decoded_is_missing_and_the_others_are_not():
    from tfmmrank.encoders.decoding import decode_pictures

    red, green = (encode_picture(color, form="PNG") for color in ((255, 0, 0), (0, 255, 0)))
    jpeg = encode_picture(size=(200, 200), form="JPEG")
    huge = red[:16] + b"\x00\x01\x00\x00" * 2 + red[24:]  # the header says 65,536 x 65,536
    broken = [red[:-20], red[:24], red[:40], huge, b"GIF89a", b"\xff\xd8\xff", jpeg[:300], b"no picture", b""]
    pictures = tf.constant([broken[0], red, *broken[1:], green])
    pixels, present = decode_pictures(pictures, 8)
    assert present.numpy().tolist() == [False, True, *[False] * 8, True]
    assert (pixels.numpy()[[1, 10]] == [[[[255, 0, 0]]], [[[0, 255, 0]]]]).all()
    assert not pixels.numpy()[~present.numpy()].any()
    for none in (tf.constant([b"", broken[0]]), tf.constant([], tf.string)):
        assert not decode_pictures(none, 8)[1].numpy().any()
    mapped = tf.data.Dataset.from_tensors(pictures).map(lambda batch: decode_pictures(batch, 8))
    np.testing.assert_array_equal(next(iter(mapped))[0], pixels)
