import io
import json
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encode_picture
from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.colours import ColourEncoder
from tfmmrank.encoders.image_sources import load_image_encoder
from tfmmrank.stack import keras, tf

PURE = {"red": (255, 0, 0), "yellow": (255, 255, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def _vectors(encoder, *pictures, **options):
    tokens = encoder(encoder.lower(encoder.preprocess(tf.constant(pictures)), **options), **options)
    return tokens.values.numpy(), tokens.mask.numpy()


def _bin(hue, saturation, value):
    return (hue * 4 + saturation) * 4 + value


def _half_red(*others):
    """A PNG of 64 x 64: red above, blue below; the frame of ``others`` around it, an eighth of the side."""
    image = Image.new("RGB", (64, 64), others[0] if others else (255, 0, 0))
    image.paste((255, 0, 0), (8, 8, 56, 32) if others else (0, 0, 64, 32))
    image.paste((0, 0, 255), (8, 32, 56, 56) if others else (0, 32, 64, 64))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_histogram_of_two_colours_by_hand():
    (values,), mask = _vectors(ColourEncoder(crop=None), _half_red())
    expected = np.zeros(192)
    expected[[_bin(0, 3, 3), _bin(8, 3, 3)]] = np.sqrt(0.5)  # blue is at 240 degrees, the eighth bin of 30
    np.testing.assert_allclose(values[0], expected, atol=1e-6)
    assert mask.tolist() == [[True]]


def _bin_of(red, green, blue):
    """By the textbook, in fractions; hues are shifted by half a bin."""
    red, green, blue = (Fraction(int(channel), 255) for channel in (red, green, blue))
    value, chroma = max(red, green, blue), max(red, green, blue) - min(red, green, blue)
    if chroma == 0:
        hue = Fraction(0)
    elif value == red:
        hue = (green - blue) / chroma % 6
    else:
        hue = (blue - red) / chroma + 2 if value == green else (red - green) / chroma + 4
    saturation = chroma / value if value else Fraction(0)
    return _bin(floor(hue * 2 + Fraction(1, 2)) % 12, min(floor(saturation * 4), 3), min(floor(value * 4), 3))


def test_it_is_what_counting_by_hand_gives(rng):
    """Few levels a channel, so that many pixels are on the border of two bins."""
    pixels = np.concatenate([rng.integers(0, 256, (1, 32, 16, 3)), rng.integers(0, 6, (1, 32, 16, 3)) * 51], 2)
    encoder = ColourEncoder(size=32, grid=2)
    features = {"pixels": tf.constant(pixels.astype(np.uint8)), "present": tf.constant([True])}
    got = encoder(encoder.lower(features, "tokens"), output="tokens").values.numpy()[0]
    expected = np.zeros((4, 192))
    for y, x in np.ndindex(32, 32):
        expected[2 * (y // 16) + x // 16, _bin_of(*pixels[0, y, x])] += 1
    np.testing.assert_allclose(got, np.sqrt(expected / 256), atol=1e-6)
    compiled = tf.function(lambda batch: encoder.lower(batch, "tokens"), jit_compile=True)(features)
    np.testing.assert_array_equal(compiled["vectors"][0], got)


def test_a_vector_has_length_one_and_the_pooled_one_is_the_whole(rng):
    noise = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(noise, "PNG")
    encoder = ColourEncoder()
    (values,), _ = _vectors(encoder, noise.getvalue(), output="both")
    assert values.shape == (17, 192)
    np.testing.assert_allclose(np.linalg.norm(values, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(values[0] ** 2, (values[1:] ** 2).mean(0), atol=1e-6)


@pytest.mark.parametrize("name", PURE)
def test_noise_moves_no_pure_colour_out_of_its_bin(name):
    """Red is at both ends of the circle of hues."""
    encoder = ColourEncoder()
    noisy = [np.clip(np.array(PURE[name]) + shift, 0, 255) for shift in ([0, 0, 12], [0, 12, 0], [12, 0, 0])]
    values, _ = _vectors(encoder, *(encode_picture(tuple(color)) for color in (PURE[name], *noisy)))
    hues = values[:, 0].reshape(4, 12, 4, 4).sum((2, 3))
    assert (hues.argmax(1) == hues[0].argmax()).all()


def test_the_crop_leaves_the_frame_out():
    whole, _ = _vectors(ColourEncoder(), _half_red((0, 255, 0)))
    np.testing.assert_allclose(whole[0, 0, _bin(4, 3, 3)], 0, atol=1e-6)
    framed, _ = _vectors(ColourEncoder(crop=None), _half_red((0, 255, 0)))
    assert framed[0, 0, _bin(4, 3, 3)] > 0.5


def test_missing_is_masked_and_a_picture_is_seen_alone():
    encoder = ColourEncoder()
    pictures = [encode_picture(color) for color in PURE.values()]
    values, mask = _vectors(encoder, pictures[0], b"", *pictures[1:], output="both")
    assert mask[:, 0].tolist() == [True, False, True, True, True]
    assert not values[1].any()
    np.testing.assert_array_equal(values[2], _vectors(encoder, pictures[1], output="both")[0][0])


def test_half_precision_policies_count_alike():
    """bfloat16 counts to 256, a picture of 64 pixels a side has 4096."""
    expected, _ = _vectors(ColourEncoder(), _half_red())
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        encoder = ColourEncoder()
        kept = encoder.lower(encoder.preprocess(tf.constant([_half_red()])))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_allclose(tf.cast(kept["vectors"], tf.float32), expected, atol=0.01)  # bfloat16 has 8 bits


def test_config_and_names():
    encoder = load_image_encoder("colours", size=32, grid=2, output="tokens")
    again = image_encoders["colours"].from_config(json.loads(json.dumps(encoder.get_config())))
    assert again.get_config() == encoder.get_config()
    assert (again.grid, again.size, again.width) == (2, 32, 192)
    assert not encoder.weights


def test_options_are_checked():
    with pytest.raises(ValueError, match="grid is 5, which does not divide size 64"):
        ColourEncoder(grid=5)
    with pytest.raises(ValueError, match="trainable_blocks is None, and colours have nothing to train"):
        ColourEncoder(trainable_blocks=None)
    with pytest.raises(ValueError, match='ColourEncoder has no option "bins"'):
        ColourEncoder(bins=3)
