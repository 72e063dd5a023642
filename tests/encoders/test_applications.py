import json

import numpy as np
import pytest

from tests.conftest import encode_picture
from tfmmrank.encoders.applications import ApplicationEncoder
from tfmmrank.encoders.image_sources import load_image_encoder
from tfmmrank.stack import keras, tf


def _features(count=2, size=32):
    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    return {"pixels": tf.constant(pixels), "present": tf.constant([True] * (count - 1) + [False])}


@pytest.fixture(scope="module")
def frozen():
    return ApplicationEncoder("MobileNetV2", size=32, output="both")


def test_features_are_those_of_keras(frozen):
    features = _features()
    tokens = frozen(frozen.lower(features))
    scaled = keras.applications.mobilenet_v2.preprocess_input(tf.cast(features["pixels"], tf.float32))
    expected = frozen.network(scaled, training=False)
    np.testing.assert_allclose(tokens.values[0, 1], expected[0, 0, 0], atol=1e-5)
    assert tokens.values.shape == (2, 2, 1280)
    assert not tokens.values.numpy()[1].any()
    assert not frozen.trainable_weights


def test_weights_from_a_file_and_config_round_trip(tmp_path):
    path = str(tmp_path / "network.weights.h5")
    first = ApplicationEncoder("MobileNet", size=32)
    first.network.save_weights(path)
    second = ApplicationEncoder("MobileNet", weights=path, size=32)
    config = json.loads(json.dumps(second.get_config()))
    assert config["weights"] is None
    third = ApplicationEncoder.from_config(config)
    third.set_weights(second.get_weights())
    for encoder in (second, third):
        np.testing.assert_array_equal(first.lower(_features())["vectors"], encoder.lower(_features())["vectors"])
    with pytest.raises(ValueError, match=r"weights absent\.h5: cannot be loaded"):
        ApplicationEncoder("MobileNet", weights="absent.h5", size=32)


def test_trained_whole_gives_the_same_and_moves_no_statistics(frozen):
    trained = ApplicationEncoder("MobileNetV2", size=32, trainable_blocks=None, output="both")
    trained.network.set_weights(frozen.network.get_weights())
    features = _features()
    expected = frozen(frozen.lower(features)).values
    before = trained.network.get_weights()
    with tf.GradientTape() as tape:
        values = trained(trained.lower(features), training=True).values
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert trained.trainable_weights
    assert all(gradient is not None for gradient in tape.gradient(values, trained.trainable_weights))
    for old, new in zip(before, trained.network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_compiles_with_xla():
    encoder = ApplicationEncoder("MobileNet", size=32, trainable_blocks=None)
    features = encoder.preprocess(tf.constant([encode_picture(), b""]))
    compiled = tf.function(lambda batch: encoder(batch), jit_compile=True)(features)
    np.testing.assert_allclose(encoder(features).values, compiled.values, atol=1e-4)  # XLA rounds differently


def test_unknown_sources_are_named():
    with pytest.raises(ValueError, match='did you mean "MobileNetV2"'):
        load_image_encoder("MobilNetV2")
    with pytest.raises(ValueError, match='did you mean "efficientnet_lite0"'):
        load_image_encoder("efficientnet_lite")
    with pytest.raises(ValueError, match="is not trained .* and has no weights"):
        load_image_encoder("MobileNetV2", size=32)
    with pytest.raises(ValueError, match="ApplicationEncoder cannot be split"):
        load_image_encoder("MobileNetV2", size=32, trainable_blocks=2)
