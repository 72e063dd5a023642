import io

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encode_picture
from tfmmrank.encoders.decoding import decode_pictures
from tfmmrank.encoders.pictures import PictureEncoder, WholePictureEncoder
from tfmmrank.stack import keras, tf


class _Raw(WholePictureEncoder):
    """Pixels are the feature map: what the tokens are can be worked out by hand."""

    width = 3

    def feature_map(self, pixels, training):
        return keras.layers.AveragePooling2D(16)(pixels)


def _halves(form):
    """A picture of 80 x 40, red on the left and blue on the right."""
    image = Image.new("RGB", (80, 40), (255, 0, 0))
    image.paste((0, 0, 255), (40, 0, 80, 40))
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def test_crop_keeps_the_middle_square():
    image = Image.new("RGB", (100, 40), (0, 0, 255))
    image.paste((0, 255, 0), (30, 0, 70, 40))  # the middle square
    image.paste((255, 0, 0), (40, 10, 60, 30))  # half of its side
    out = io.BytesIO()
    image.save(out, "PNG")
    encoded = tf.constant([out.getvalue()])
    for crop, colors in [(0.5, {(255, 0, 0)}), (1.0, {(0, 255, 0), (255, 0, 0)})]:
        pixels = decode_pictures(encoded, 40, crop)[0].numpy()[0]
        seen = {tuple(int(channel) for channel in pixel) for pixel in pixels[::8, ::8].reshape(-1, 3)}
        assert seen == colors
    whole = decode_pictures(encoded, 40)[0].numpy()[0]
    assert whole[20, 2].tolist() == [0, 0, 255]
    one = tf.constant([encode_picture(size=(1, 1))])
    assert decode_pictures(one, 8, 0.5, "bicubic")[0].numpy()[0, 3, 3].tolist() == [200, 30, 30]


def test_tokens_are_cells_row_by_row_and_the_pooled_one_first():
    encoded = tf.constant([_halves("PNG"), b"", b"no picture"])
    red, blue = [255, 0, 0], [0, 0, 255]
    expected = {"pooled": [[127.5, 0, 127.5]], "tokens": [red, blue] * 2, "both": [[127.5, 0, 127.5], *[red, blue] * 2]}
    for output, values in expected.items():
        for blocks in (0, None):
            encoder = _Raw(size=32, trainable_blocks=blocks, output=output)
            tokens = encoder(encoder.lower(encoder.preprocess(encoded)))
            np.testing.assert_allclose(tokens.values[0], values, atol=12)  # the resized edge is blurred
            assert tokens.mask.numpy().tolist() == [[there] * len(values) for there in (True, False, False)]
            assert not tokens.values.numpy()[1:].any()


def test_frozen_keeps_only_what_output_asks_for():
    features = {"pixels": tf.zeros([2, 32, 32, 3], tf.uint8), "present": tf.constant([True, True])}
    kept = _Raw(size=32).lower(features)
    assert {name: value.shape.as_list() for name, value in kept.items()} == {"vectors": [2, 1, 3], "present": [2]}
    assert set(_Raw(size=32, trainable_blocks=None).lower(features)) == {"pixels", "present"}


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_preprocessing_is_the_same_in_a_dataset_and_in_a_saved_model(form, tmp_path):
    encoder = _Raw(size=48, crop=0.875)
    encoded = tf.constant([_halves(form), b"", encode_picture(form=form)])
    here = encoder.preprocess(encoded)
    mapped = next(iter(tf.data.Dataset.from_tensors(encoded).map(encoder.preprocess)))
    module = tf.Module()
    module.preprocess = tf.function(encoder.preprocess, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path)).preprocess(encoded)
    assert here["present"].numpy().tolist() == [True, False, True]
    for name, value in here.items():
        np.testing.assert_array_equal(value, mapped[name])
        np.testing.assert_array_equal(value, served[name])


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"size is 8; expected at least 32"):
        PictureEncoder(size=8)
    with pytest.raises(ValueError, match=r"crop is 1\.5; expected a part"):
        PictureEncoder(crop=1.5)
    with pytest.raises(ValueError, match=r"trainable_blocks is 2, and _Raw cannot be split"):
        _Raw(trainable_blocks=2)
    with pytest.raises(ValueError, match=r'output is "cells"'):
        _Raw(output="cells")
