"""Encoded pictures to pixels, with graph ops that stock TF Serving knows."""

from __future__ import annotations

from typing import Any

from tfmmrank.stack import tf

MAX_PIXELS = 50_000_000  # as ``max_image_pixels`` of a recipe; a few bytes must not ask for gigabytes
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_HEADER = 26  # signature, then width, height, bits a channel and colour type


def decode_pictures(encoded: Any, size: int) -> tuple[Any, Any]:
    """Decodes and resizes JPEG and PNG pictures of any size and kind; transparent pixels show a white ground.

    What is neither, has more than ``MAX_PIXELS`` or cannot be decoded counts as missing: one broken picture must not
    fail the request, or the training, that it is in.

    Args:
        encoded: string ``[n]``; empty: missing.
        size: height and width of the result in pixels; the aspect ratio is not kept.

    Returns:
        pixels uint8 ``[n, size, size, 3]`` in RGB, zeros where missing; present bool ``[n]``.
    """
    count = tf.size(encoded, out_type=tf.int64)
    # A graph has no try and except; a dataset can drop what raises. The last element stands for "none left".
    rows = tf.data.Dataset.zip((tf.data.Dataset.range(count), tf.data.Dataset.from_tensor_slices(encoded)))
    rows = rows.filter(lambda _, picture: _starts(picture, _PNG) | _starts(picture, _JPEG))
    rows = rows.map(lambda row, picture: (row, _decode(picture, size))).ignore_errors()
    last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3], tf.uint8)))
    index, pixels = rows.concatenate(last).batch(count + 1).get_single_element()
    pixels = tf.scatter_nd(index[:, None], pixels, tf.stack([count + 1, size, size, 3]))[:-1]
    present = tf.scatter_nd(index[:, None], tf.ones_like(index, tf.int32), count[None] + 1)[:-1]
    return tf.ensure_shape(pixels, [encoded.shape[0], size, size, 3]), tf.equal(present, 1)


def _starts(picture: Any, magic: bytes) -> Any:
    return tf.equal(tf.strings.substr(picture, 0, len(magic)), magic)


def _decode(picture: Any, size: int) -> Any:
    pixels = tf.cond(_starts(picture, _PNG), lambda: _decode_png(picture, size), lambda: _decode_jpeg(picture, size))
    return tf.ensure_shape(pixels, [size, size, 3])


def _decode_jpeg(picture: Any, size: int) -> Any:
    with tf.control_dependencies([_bounded(tf.image.extract_jpeg_shape(picture))]):
        return _resize(tf.image.decode_jpeg(picture, channels=3), size)


def _decode_png(picture: Any, size: int) -> Any:
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(picture, 0, _PNG_HEADER), tf.uint8), tf.int64)
    places = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    shape = tf.stack([tf.reduce_sum(header[20:24] * places), tf.reduce_sum(header[16:20] * places)])
    # Asked for four channels, TensorFlow fills in a wrong alpha for pictures of fewer than 8 bits; those have none.
    deep = header[24] >= 8
    with tf.control_dependencies([_bounded(shape)]):
        return tf.cond(
            deep,
            lambda: _resize(_on_white(tf.image.decode_png(picture, channels=4)), size),
            lambda: _resize(tf.image.decode_png(picture, channels=3), size),
        )


def _bounded(shape: Any) -> Any:
    height, width = tf.cast(shape[0], tf.int64), tf.cast(shape[1], tf.int64)
    return tf.debugging.assert_less_equal(height * width, tf.constant(MAX_PIXELS, tf.int64))


def _on_white(pixels: Any) -> Any:
    colours, alpha = tf.cast(pixels[..., :3], tf.float32), tf.cast(pixels[..., 3:], tf.float32) / 255.0
    return colours * alpha + 255.0 * (1.0 - alpha)


def _resize(pixels: Any, size: int) -> Any:
    pixels.set_shape([None, None, 3])
    resized = tf.image.resize(pixels, [size, size], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
