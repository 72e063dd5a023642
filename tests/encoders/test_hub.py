import json
import shutil

import numpy as np
import pytest

from tests.conftest import encode_picture
from tfmmrank.encoders.base import text_encoders
from tfmmrank.encoders.hub import HubImageEncoder, HubTextEncoder
from tfmmrank.encoders.image_sources import load_image_encoder
from tfmmrank.stack import keras, tf


class _HashedWords(tf.Module):
    """The mean of a text's words' vectors, found by hash."""

    def __init__(self, lower=False):
        self.lower = lower
        self.table = tf.Variable(np.random.default_rng(1).normal(size=(50, 6)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        words = tf.strings.split(tf.strings.lower(texts) if self.lower else texts)
        vectors = tf.gather(self.table, tf.strings.to_hash_bucket_fast(words.flat_values, 50))
        return tf.math.divide_no_nan(
            tf.math.unsorted_segment_sum(vectors, words.value_rowids(), words.nrows()),
            tf.cast(words.row_lengths(), tf.float32)[:, None],
        )


@pytest.fixture(scope="module")
def text_path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("text"))
    tf.saved_model.save(_HashedWords(), path)
    return path


@pytest.fixture(scope="module")
def image_path(tmp_path_factory):
    """A convolution, batch normalisation and the mean: float [n, 32, 32, 3] to [n, 4]."""
    path = str(tmp_path_factory.mktemp("image"))
    pixels = keras.Input([32, 32, 3])
    values = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, strides=2)(pixels))
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(values)).save(path, save_format="tf")
    return path


def _features(count=3):
    pixels = np.random.default_rng(2).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return {"pixels": tf.constant(pixels), "present": tf.ones([count], tf.bool)}


def test_text_runs_on_the_host_and_is_frozen(text_path):
    encoder = HubTextEncoder(text_path)
    texts = ["red shirt", "", "  ", "shirt"]
    features = next(iter(tf.data.Dataset.from_tensors(tf.constant(texts)).map(encoder.preprocess)))
    assert features["vectors"].shape == (4, 6)
    tokens = tf.function(lambda kept: encoder(encoder.lower(kept)), jit_compile=True)(features)
    expected = _HashedWords()(tf.constant(texts))
    np.testing.assert_allclose(tokens.values[:, 0], expected * [[1], [0], [0], [1]], atol=1e-6)
    assert tokens.mask.numpy()[:, 0].tolist() == [True, False, False, True]
    assert not encoder.trainable_weights
    assert text_encoders["hub"] is HubTextEncoder


def test_text_is_the_same_in_an_export(text_path, tmp_path):
    encoder = HubTextEncoder.from_config(json.loads(json.dumps(HubTextEncoder(text_path).get_config())))
    module = tf.Module()
    module.encoder = encoder
    module.preprocess = tf.function(encoder.preprocess, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path / "export"))
    texts = tf.constant(["blue shoes", ""])
    served = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(served.preprocess(texts)["vectors"], encoder.preprocess(texts)["vectors"], atol=1e-6)


def _state(path):
    return HubTextEncoder(str(path)).embed_state()


def test_a_module_s_state_tells_of_its_graph_and_its_weights(text_path, tmp_path):
    """Also of weights that the module does not list, as this one's."""
    of = _state(text_path)
    assert _state(shutil.copytree(text_path, tmp_path / "copy")) == of
    retrained = _HashedWords()
    retrained.table.assign(retrained.table + 1)
    tf.saved_model.save(retrained, str(tmp_path / "retrained"))
    weights = shutil.copytree(text_path, tmp_path / "weights")
    shutil.copytree(tmp_path / "retrained" / "variables", weights / "variables", dirs_exist_ok=True)
    assert _state(weights) != of
    asset = shutil.copytree(text_path, tmp_path / "asset") / "assets" / "words" / "list.txt"
    asset.parent.mkdir(parents=True)
    asset.write_text("shirt")
    assert _state(tmp_path / "asset") != of
    tf.saved_model.save(_HashedWords(lower=True), str(tmp_path / "lower"))
    assert _state(tmp_path / "lower") != of


def test_a_trained_module_s_state_is_not_its_files(image_path):
    frozen, trained = (HubImageEncoder(image_path, size=32, trainable_blocks=blocks) for blocks in (0, None))
    assert frozen.embed_state().startswith(frozen._files())
    assert frozen._files() not in trained.embed_state()


def test_image_frozen_and_trained_give_the_same(image_path):
    frozen = load_image_encoder(f"hub:{image_path}", size=32)
    trained = HubImageEncoder(image_path, size=32, trainable_blocks=None)
    features = _features()
    expected = keras.models.load_model(image_path)(tf.cast(features["pixels"], tf.float32) / 255, training=False)
    for encoder in (frozen, trained):
        tokens = encoder(encoder.lower(features), training=True)
        np.testing.assert_allclose(tokens.values[:, 0], expected, atol=1e-5)
    assert set(frozen.lower(features)) == {"vectors", "present"}
    assert not frozen.trainable_weights


@pytest.mark.parametrize("frozen", [True, False])
def test_image_trains_with_batch_norm_frozen_unless_told(image_path, frozen):
    encoder = HubImageEncoder(image_path, size=32, trainable_blocks=None, frozen_batch_norm=frozen)
    statistics = [variable.numpy() for variable in encoder.non_trainable_weights]
    with tf.GradientTape() as tape:
        values = encoder(encoder.lower(_features()), training=True).values
        loss = tf.reduce_sum(values * tf.range(12.0)[:, None][: values.shape[0], None])
    gradients = tape.gradient(loss, encoder.trainable_weights)
    assert len(gradients) == 4
    assert all(gradient is not None for gradient in gradients)
    kept = [np.array_equal(old, new) for old, new in zip(statistics, encoder.non_trainable_weights, strict=True)]
    assert kept == [frozen, frozen]


def test_image_missing_round_trip_and_xla(image_path):
    encoder = HubImageEncoder(image_path, size=32, trainable_blocks=None)
    encoder.trainable_weights[0].assign_add(tf.ones_like(encoder.trainable_weights[0]))
    again = HubImageEncoder.from_config(json.loads(json.dumps(encoder.get_config())))
    again.set_weights(encoder.get_weights())
    features = encoder.preprocess(tf.constant([encode_picture(form="JPEG"), b"", encode_picture()]))
    tokens = encoder(features)
    assert tokens.mask.numpy()[:, 0].tolist() == [True, False, True]
    assert not tokens.values.numpy()[1].any()
    np.testing.assert_allclose(tokens.values, again(features).values, atol=1e-6)
    compiled = tf.function(lambda batch: encoder(batch), jit_compile=True)(features)
    np.testing.assert_allclose(tokens.values, compiled.values, rtol=1e-5)  # XLA rounds differently


def test_errors_say_what_to_do(text_path, image_path, tmp_path):
    with pytest.raises(ValueError, match="hub module /no/such: no such folder"):
        HubTextEncoder("/no/such")
    with pytest.raises(ValueError, match="cannot be loaded"):
        HubImageEncoder(str(tmp_path))
    with pytest.raises(ValueError, match=r"does not take strings \[n\]"):
        HubTextEncoder(image_path)
    with pytest.raises(ValueError, match=r"does not take pixels \[n, 48, 48, 3\]"):
        HubImageEncoder(image_path, size=48)
    with pytest.raises(ValueError, match=r"reads strings runs on the host; expected 0"):
        HubTextEncoder(text_path, trainable_blocks=None)
    with pytest.raises(ValueError, match="cannot be split"):
        HubImageEncoder(image_path, size=32, trainable_blocks=1)
    with pytest.raises(ValueError, match='output is "both", and a hub module gives one vector'):
        HubImageEncoder(image_path, size=32, output="both")
