"""Encoded pictures to pixels, with graph ops that stock TF Serving knows."""

from __future__ import annotations

from typing import Any

from tfmmrank.stack import tf

_NONE, _JPEG, _PNG, _OTHER = range(4)
_PNG_DEPTH = 24  # where a PNG's header says how many bits a channel has


def decode_pictures(encoded: Any, size: int) -> tuple[Any, Any]:
    """Decodes and resizes pictures of any size and kind, one by one.

    Transparent PNG pixels show a white ground. A JPEG cut short gives what is there, the rest grey. What is not a JPEG,
    PNG, GIF (its first frame), BMP or WebP, judged by its first bytes, counts as missing.

    Args:
        encoded: string ``[n]``; empty: missing.
        size: height and width of the result in pixels; the aspect ratio is not kept.

    Returns:
        pixels uint8 ``[n, size, size, 3]`` in RGB, zeros where missing; present bool ``[n]``.

    Raises:
        tf.errors.InvalidArgumentError: when run on a picture whose first bytes are right and whose rest is broken.
    """

    def decode(picture: Any) -> tuple[Any, Any]:
        kind = _kind(picture)
        pixels = tf.switch_case(
            kind,
            [
                lambda: tf.zeros([size, size, 3], tf.uint8),
                lambda: _resize(tf.image.decode_jpeg(picture, channels=3, try_recover_truncated=True), size),
                lambda: _resize(_decode_png(picture), size),
                lambda: _resize(tf.io.decode_image(picture, channels=3, expand_animations=False), size),
            ],
        )
        return tf.ensure_shape(pixels, [size, size, 3]), tf.not_equal(kind, _NONE)

    return tf.map_fn(
        decode,
        encoded,
        fn_output_signature=(tf.TensorSpec([size, size, 3], tf.uint8), tf.TensorSpec([], tf.bool)),
    )


def _kind(picture: Any) -> Any:
    def starts(*magics: bytes) -> Any:
        return tf.reduce_any([tf.equal(tf.strings.substr(picture, 0, len(magic)), magic) for magic in magics])

    webp = starts(b"RIFF") & tf.strings.regex_full_match(tf.strings.substr(picture, 0, 12), r"RIFF(?s:.*)WEBP")
    kind = tf.where(starts(b"GIF87a", b"GIF89a", b"BM") | webp, _OTHER, _NONE)
    kind = tf.where(starts(b"\x89PNG\r\n\x1a\n"), _PNG, kind)
    return tf.where(starts(b"\xff\xd8\xff"), _JPEG, kind)


def _decode_png(picture: Any) -> Any:
    head = tf.strings.join([tf.strings.substr(picture, 0, _PNG_DEPTH + 1), b"\0" * (_PNG_DEPTH + 1)])
    deep = tf.strings.regex_full_match(tf.strings.substr(head, _PNG_DEPTH, 1), r"\x08|\x10")
    # Asked for four channels, TensorFlow fills in a wrong alpha for pictures of fewer than 8 bits; those have none.
    return tf.cond(
        deep,
        lambda: _on_white(tf.image.decode_png(picture, channels=4)),
        lambda: tf.cast(tf.image.decode_png(picture, channels=3), tf.float32),
    )


def _on_white(pixels: Any) -> Any:
    colours, alpha = tf.cast(pixels[..., :3], tf.float32), tf.cast(pixels[..., 3:], tf.float32) / 255.0
    return colours * alpha + 255.0 * (1.0 - alpha)


def _resize(pixels: Any, size: int) -> Any:
    pixels.set_shape([None, None, 3])
    resized = tf.image.resize(pixels, [size, size], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
