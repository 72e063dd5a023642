"""Pictures of every kind of JPEG, PNG and WebP that shops have, 56 x 40 pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIZE = (56, 40)


def encode(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def noisy(seed: int = 0) -> Image.Image:
    """A slope of colours under some noise."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    slope = np.add.outer(np.arange(height) * 4, np.arange(width) * 3)[..., None] * (1 + seed % 5) / 4
    return Image.fromarray((slope + rng.integers(0, 60, (height, width, 3))).clip(0, 255).astype(np.uint8))


def sixteen_bits(channels: int, seed: int = 0) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write: grey with alpha, RGB or RGBA."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width, height = SIZE
    values = np.random.default_rng(seed).integers(0, 65536, (height, width * channels)).astype(">u2")
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")


def picture_kinds(seed: int = 0) -> dict[str, bytes]:
    """Those that are kept byte for byte, by what is special about them."""
    image = noisy(seed)
    clear = image.copy()
    clear.putalpha(noisy(seed + 1).convert("L"))
    turned = image.rotate(180)
    many, few = image.quantize(200), image.quantize(12)
    return {
        "JPEG": encode(image, "JPEG"),
        "JPEG, grey": encode(image.convert("L"), "JPEG"),
        "JPEG, progressive": encode(image, "JPEG", progressive=True),
        "JPEG, CMYK": encode(image.convert("CMYK"), "JPEG"),
        "JPEG, several": encode(image, "MPO", save_all=True, append_images=[turned]),
        "PNG": encode(image, "PNG"),
        "PNG, grey": encode(image.convert("L"), "PNG"),
        "PNG, one bit": encode(image.convert("1"), "PNG"),
        "PNG, alpha": encode(clear, "PNG"),
        "PNG, grey and alpha": encode(clear.convert("LA"), "PNG"),
        "PNG, palette": encode(many, "PNG"),
        "PNG, palette with alpha": encode(many, "PNG", transparency=bytes(range(200))),
        "PNG, small palette": encode(few, "PNG", bits=4),
        "PNG, small palette with alpha": encode(few, "PNG", bits=4, transparency=3),
        "PNG, a transparent colour": encode(image, "PNG", transparency=image.getpixel((3, 3))),
        "PNG, 16 bits": sixteen_bits(3, seed),
        "PNG, 16 bits, alpha": sixteen_bits(4, seed),
        "PNG, 16 bits, grey and alpha": sixteen_bits(2, seed),
        "PNG, animated": encode(image, "PNG", save_all=True, append_images=[turned]),
        "WebP": encode(image, "WEBP"),
        "WebP, lossless": encode(image, "WEBP", lossless=True),
        "WebP, alpha": encode(clear, "WEBP"),
        "WebP, lossless, alpha": encode(clear, "WEBP", lossless=True),
        "WebP, profile": encode(image, "WEBP", icc_profile=bytes(100), exif=Image.Exif()),
    }


def animated_webp(alpha: bool, seed: int = 0) -> bytes:
    frames = [noisy(seed), noisy(seed + 1)]
    for frame in frames if alpha else ():
        frame.putalpha(128)
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def on_white(content: bytes) -> np.ndarray:
    """What Pillow sees: RGB ``[40, 56, 3]``, white behind what is transparent."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
