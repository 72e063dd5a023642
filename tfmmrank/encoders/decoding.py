"""Encoded pictures to pixels, with graph ops that stock TF Serving knows."""

from __future__ import annotations

from typing import Any

from tfmmrank.stack import tf

MAX_PIXELS = 50_000_000  # as ``max_image_pixels`` of a recipe; a few bytes must not ask for gigabytes
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_HEADER = 26  # signature, then width, height, bits a channel and colour type


def decode_pictures(encoded: Any, size: int, crop: float | None = None, method: str = "bilinear") -> tuple[Any, Any]:
    """Decodes and resizes JPEG and PNG pictures of any size and kind; transparent pixels show a white ground.

    What is neither, has more than ``MAX_PIXELS`` or cannot be decoded counts as missing: one broken picture must not
    fail the request, or the training, that it is in.

    Args:
        encoded: string ``[n]``; empty: missing.
        size: height and width of the result in pixels.
        crop: side of the middle square that is kept, as a part of the shorter side, in (0, 1]. None: the whole picture
            is kept, and its aspect ratio is not.
        method: of ``tf.image.resize``, antialiased.

    Returns:
        pixels uint8 ``[n, size, size, 3]`` in RGB, zeros where missing; present bool ``[n]``.
    """
    count = tf.size(encoded, out_type=tf.int64)
    # A graph has no try and except; a dataset can drop what raises. The last element stands for "none left".
    rows = tf.data.Dataset.zip((tf.data.Dataset.range(count), tf.data.Dataset.from_tensor_slices(encoded)))
    rows = rows.filter(lambda _, picture: _starts(picture, _PNG) | _starts(picture, _JPEG))
    rows = rows.map(lambda row, picture: (row, _decode(picture, size, crop, method))).ignore_errors()
    last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3], tf.uint8)))
    index, pixels = rows.concatenate(last).batch(count + 1).get_single_element()
    pixels = tf.scatter_nd(index[:, None], pixels, tf.stack([count + 1, size, size, 3]))[:-1]
    present = tf.scatter_nd(index[:, None], tf.ones_like(index, tf.int32), count[None] + 1)[:-1]
    return tf.ensure_shape(pixels, [encoded.shape[0], size, size, 3]), tf.equal(present, 1)


def _starts(picture: Any, magic: bytes) -> Any:
    return tf.equal(tf.strings.substr(picture, 0, len(magic)), magic)


def _decode(picture: Any, size: int, crop: float | None, method: str) -> Any:
    pixels = tf.cond(_starts(picture, _PNG), lambda: _decode_png(picture), lambda: _decode_jpeg(picture))
    pixels.set_shape([None, None, 3])
    resized = tf.image.resize(_middle(pixels, crop), [size, size], method, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def _decode_jpeg(picture: Any) -> Any:
    with tf.control_dependencies([_bounded(tf.image.extract_jpeg_shape(picture))]):
        return tf.cast(tf.image.decode_jpeg(picture, channels=3), tf.float32)


def _decode_png(picture: Any) -> Any:
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(picture, 0, _PNG_HEADER), tf.uint8), tf.int64)
    places = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    shape = tf.stack([tf.reduce_sum(header[20:24] * places), tf.reduce_sum(header[16:20] * places)])
    # Asked for four channels, TensorFlow fills in a wrong alpha for pictures of fewer than 8 bits; those have none.
    deep = header[24] >= 8
    with tf.control_dependencies([_bounded(shape)]):
        return tf.cond(
            deep,
            lambda: _on_white(tf.image.decode_png(picture, channels=4)),
            lambda: tf.cast(tf.image.decode_png(picture, channels=3), tf.float32),
        )


def _bounded(shape: Any) -> Any:
    height, width = tf.cast(shape[0], tf.int64), tf.cast(shape[1], tf.int64)
    return tf.debugging.assert_less_equal(height * width, tf.constant(MAX_PIXELS, tf.int64))


def _on_white(pixels: Any) -> Any:
    colours, alpha = tf.cast(pixels[..., :3], tf.float32), tf.cast(pixels[..., 3:], tf.float32) / 255.0
    return colours * alpha + 255.0 * (1.0 - alpha)


def _middle(pixels: Any, crop: float | None) -> Any:
    if crop is None:
        return pixels
    height, width = tf.unstack(tf.shape(pixels)[:2])
    side = tf.maximum(tf.cast(crop * tf.cast(tf.minimum(height, width), tf.float32), tf.int32), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return pixels[top : top + side, left : left + side]
