"""Encoded pictures to pixels, with graph ops that stock TF Serving knows."""

from __future__ import annotations

import functools
from typing import Any

from tfmmrank.stack import tf

MAX_PIXELS = 50_000_000  # as ``max_image_pixels`` of a recipe; a few bytes must not ask for gigabytes
_AT_ONCE = 1 << 20  # pixels laid on white as floats
_PNG, _JPEG, _RIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"
_WEBP_KINDS = (b"WEBPVP8 ", b"WEBPVP8L", b"WEBPVP8X")
_PNG_HEADER = 26  # signature, then width, height, bits a channel and colour type
_WEBP_HEADER = 30  # until the height, in the longest of its three kinds
_WEBP_ANIMATED = 2  # the flag's bit


def decode_pictures(encoded: Any, size: int, crop: float | None = None, method: str = "bilinear") -> tuple[Any, Any]:
    """Decodes and resizes JPEG, PNG and WebP pictures of any size and kind; transparent pixels show a white ground.

    What is none of these, has more than ``MAX_PIXELS``, is an animated WebP or cannot be decoded counts as missing: one
    broken picture must not fail the request, or the training, that it is in. TensorFlow Serving decodes WebP from 2.20
    on; earlier ones count it as missing.

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
    rows = rows.filter(lambda _, picture: _starts(picture, _PNG) | _starts(picture, _JPEG) | _is_webp(picture))
    decode = _decoder(size, crop, method)
    rows = rows.map(lambda row, picture: (row, decode(picture))).ignore_errors()
    last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3], tf.uint8)))
    index, pixels = rows.concatenate(last).batch(count + 1).get_single_element()
    pixels = tf.scatter_nd(index[:, None], pixels, tf.stack([count + 1, size, size, 3]))[:-1]
    present = tf.scatter_nd(index[:, None], tf.ones_like(index, tf.int32), count[None] + 1)[:-1]
    return tf.ensure_shape(pixels, [encoded.shape[0], size, size, 3]), tf.equal(present, 1)


def _starts(picture: Any, magic: bytes) -> Any:
    return tf.equal(tf.strings.substr(picture, 0, len(magic)), magic)


def _is_webp(picture: Any) -> Any:
    start = tf.strings.join([tf.strings.substr(picture, 0, 16), b"\0" * 16])  # of a shorter one there is no byte 8
    return _starts(picture, _RIFF) & tf.reduce_any(tf.equal(tf.strings.substr(start, 8, 8), _WEBP_KINDS))


@functools.cache
def _decoder(size: int, crop: float | None, method: str) -> Any:
    """``_decode`` as one function: traced once, and held once by a graph that decodes in several places."""
    return tf.function(
        lambda picture: _decode(picture, size, crop, method), [tf.TensorSpec([], tf.string)], autograph=False
    )


def _decode(picture: Any, size: int, crop: float | None, method: str) -> Any:
    pixels = tf.case(
        [(_starts(picture, _PNG), lambda: _decode_png(picture)), (_is_webp(picture), lambda: _decode_webp(picture))],
        default=lambda: _decode_jpeg(picture),
    )
    pixels.set_shape([None, None, 3])
    # Bytes until here: of a large picture, floats would take four times as much memory.
    resized = tf.image.resize(_middle(pixels, crop), [size, size], method, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(tf.cast(resized, tf.float32)), 0.0, 255.0), tf.uint8)


def _decode_jpeg(picture: Any) -> Any:
    picture = _if(_fits(tf.image.extract_jpeg_shape(picture)), picture)
    return tf.image.decode_jpeg(picture, channels=3)


def _decode_png(picture: Any) -> Any:
    header = _bytes(picture, _PNG_HEADER)
    places = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    picture = _if(_fits([tf.reduce_sum(header[20:24] * places), tf.reduce_sum(header[16:20] * places)]), picture)
    # Asked for four channels, TensorFlow fills in a wrong alpha for pictures of fewer than 8 bits. Not asked, it leaves
    # out a grey's or a colour's that stands for transparent.
    return tf.cond(
        header[24] >= 8,
        lambda: _on_white(tf.image.decode_png(picture, channels=4)),
        lambda: _of_any_channels(tf.image.decode_png(picture)),
    )


def _decode_webp(picture: Any) -> Any:
    """Its size is where its first chunk's kind has it: "VP8 " lossy, "VP8L" lossless, "VP8X" anything.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    header = _bytes(picture, _WEBP_HEADER)
    kind = header[15]
    lossy = [header[at] + (header[at + 1] % 64) * 256 for at in (28, 26)]
    bits = tf.reduce_sum(header[21:25] * tf.constant([1, 1 << 8, 1 << 16, 1 << 24], tf.int64))
    lossless = [bits // 2**14 % 2**14 + 1, bits % 2**14 + 1]
    extended = [header[at] + header[at + 1] * 2**8 + header[at + 2] * 2**16 + 1 for at in (27, 24)]
    shape = tf.where(kind == ord("X"), extended, tf.where(kind == ord("L"), lossless, lossy))
    # An animated one without transparency corrupts the memory of TensorFlow 2.21.
    animated = (kind == ord("X")) & (header[20] // _WEBP_ANIMATED % 2 == 1)
    picture = _if(_fits(shape) & ~animated, picture)
    return _of_any_channels(tf.io.decode_image(picture, expand_animations=False))


def _if(fit: Any, picture: Any) -> Any:
    """The picture, or nothing, at which decoders raise: unlike an assertion, no optimiser can put it off."""
    return tf.where(fit, picture, b"")


def _bytes(picture: Any, count: int) -> Any:
    """A picture's first bytes as int64 ``[count]``, zeros behind its end."""
    start = tf.strings.join([tf.strings.substr(picture, 0, count), b"\0" * count])
    return tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)[:count]


def _fits(shape: Any) -> Any:
    height, width = tf.unstack(tf.cast(shape, tf.int64)[:2])
    return height * width <= MAX_PIXELS


def _of_any_channels(pixels: Any) -> Any:
    """Grey, RGB or RGBA to RGB, uint8."""
    return tf.cond(
        tf.equal(tf.shape(pixels)[2], 4),
        lambda: _on_white(pixels),
        lambda: tf.broadcast_to(pixels, tf.concat([tf.shape(pixels)[:2], [3]], 0)),
    )


def _on_white(pixels: Any) -> Any:
    """RGBA to RGB, uint8. Some rows at a time, since all of a large picture as floats would take a gigabyte."""
    height, width = tf.unstack(tf.shape(pixels)[:2])
    rows = tf.maximum(_AT_ONCE // width, 1)

    def add(number: Any, done: Any) -> tuple[Any, Any]:
        part = tf.cast(pixels[number * rows : (number + 1) * rows], tf.float32)
        alpha = part[..., 3:] / 255.0
        laid = part[..., :3] * alpha + 255.0 * (1.0 - alpha)
        return number + 1, done.write(number, tf.cast(tf.round(laid), tf.uint8))

    count = (height + rows - 1) // rows
    done = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None, 3])
    return tf.while_loop(lambda number, _: number < count, add, (0, done), parallel_iterations=1)[1].concat()


def _middle(pixels: Any, crop: float | None) -> Any:
    if crop is None:
        return pixels
    height, width = tf.unstack(tf.shape(pixels)[:2])
    side = tf.maximum(tf.cast(crop * tf.cast(tf.minimum(height, width), tf.float32), tf.int32), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return pixels[top : top + side, left : left + side]
