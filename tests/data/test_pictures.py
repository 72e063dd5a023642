"""Every kind of picture a shop may have."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tfmmrank.data import pictures
from tfmmrank.data.pictures import PictureReader, check_picture, read_picture
from tfmmrank.stack import tf

LIMIT = 50_000_000


def encode(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def decode(content: bytes) -> np.ndarray:
    """As the serving graph does."""
    return tf.io.decode_image(content, channels=3, expand_animations=False).numpy()


RED = Image.new("RGB", (12, 8), (220, 20, 20))


@pytest.mark.parametrize("image", [RED, RED.convert("L")], ids=["rgb", "grey"])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_plain_pictures_are_kept_byte_for_byte(image, form):
    content = encode(image, form)
    assert check_picture(content, LIMIT) == (content, None, None)
    np.testing.assert_allclose(decode(content)[4, 4], np.asarray(image.convert("RGB"))[4, 4], atol=3)  # JPEG's loss


def sixteen_bit_rgb_png() -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + struct.pack(">3H", 0xDC00, 0x1400, 0x1400) * 12 for _ in range(8))
    header = struct.pack(">IIBBBBB", 12, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def with_alpha() -> Image.Image:
    image = RED.convert("RGBA")
    image.putpixel((0, 0), (0, 0, 255, 0))
    return image


CONVERTED = {
    "CMYK JPEG": (encode(RED.convert("CMYK"), "JPEG", quality=95), "mode CMYK", (220, 20, 20)),
    "16-bit grey": (encode(Image.fromarray(np.full((8, 12), 0x8000, np.uint16)), "PNG"), "16-bit", (128, 128, 128)),
    "16-bit colour": (sixteen_bit_rgb_png(), "16-bit", (220, 20, 20)),
    "alpha": (encode(with_alpha(), "PNG"), "alpha", (220, 20, 20)),
    "palette": (encode(RED.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), "mode P", (220, 20, 20)),
    "one bit": (encode(Image.new("1", (12, 8), 1), "PNG"), "mode 1", (255, 255, 255)),
    "animated GIF": (
        encode(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (12, 8), (0, 0, 255))]),
        "animated",
        (220, 20, 20),
    ),
    "animated PNG": (
        encode(RED, "PNG", save_all=True, append_images=[Image.new("RGB", (12, 8), (0, 0, 255))]),
        "animated",
        (220, 20, 20),
    ),
    "WebP": (encode(RED, "WEBP", lossless=True), "format WEBP", (220, 20, 20)),
    "BMP": (encode(RED, "BMP"), "format BMP", (220, 20, 20)),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_other_pictures_become_plain_ones(name):
    content, why, color = CONVERTED[name]
    picture = check_picture(content, LIMIT)
    assert (picture.cause, picture.converted) == (None, f"picture converted: {why}")
    assert check_picture(picture.content, LIMIT).converted is None  # what comes out is plain
    pixels = decode(picture.content)
    assert pixels.shape == (8, 12, 3)
    np.testing.assert_allclose(pixels[4, 4], color, atol=4)  # JPEG's and the palette's loss


def test_what_is_transparent_becomes_white():
    picture = check_picture(encode(with_alpha(), "PNG"), LIMIT)
    np.testing.assert_array_equal(decode(picture.content)[0, 0], [255, 255, 255])


JPEG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
PNG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "PNG")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "picture of zero bytes"),
        (b"<html>404</html>", "not a picture"),
        (JPEG[: len(JPEG) // 2], "picture truncated or broken"),
        (PNG[: len(PNG) // 2], "picture truncated or broken"),
        (PNG[:500] + bytes(200) + PNG[700:], "picture truncated or broken"),
        (JPEG[:3], "picture truncated or broken"),
    ],
    ids=["zero bytes", "not a picture", "truncated JPEG", "truncated PNG", "damaged PNG", "three bytes"],
)
def test_broken_pictures_have_a_cause(content, cause):
    assert check_picture(content, LIMIT) == (b"", cause, None)


def test_the_size_is_read_from_the_header_before_anything_is_decoded(monkeypatch):
    content = encode(Image.new("1", (10_000, 10_000)), "PNG")  # 100 megapixels in 12 kB
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert check_picture(content, LIMIT).cause == "picture of too many pixels"


def test_a_decompression_bomb_is_too_many_pixels():
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    content += struct.pack(">I", 100) + b"IDAT" + bytes(100)
    assert check_picture(content, 10**10).cause == "picture of too many pixels"  # Pillow's own limit, 179 megapixels


def test_files(tmp_path):
    assert read_picture(tmp_path / "none.jpg", LIMIT).cause == "picture file missing"
    assert read_picture(tmp_path, LIMIT).cause == "picture file unreadable"
    (tmp_path / "a.jpg").write_bytes(JPEG)
    assert read_picture(tmp_path / "a.jpg" / "b.jpg", LIMIT).cause == "picture file missing"
    assert read_picture(tmp_path / "a.jpg", LIMIT).content == JPEG


def test_one_file_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    reads = []
    original = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda path, limit: reads.append(path) or original(path, limit))
    reader = PictureReader(LIMIT)
    assert [reader(tmp_path / "a.jpg").content for _ in range(3)] == [JPEG] * 3
    assert reader(tmp_path / "b.jpg").cause == reader(tmp_path / "b.jpg").cause == "picture file missing"
    assert len(reads) == 2


def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_CACHE_BYTES", 3 * len(JPEG))
    reader = PictureReader(LIMIT)
    for number in range(10):
        (tmp_path / f"{number}.jpg").write_bytes(JPEG)
        reader(tmp_path / f"{number}.jpg")
    assert reader._bytes == 3 * len(JPEG)
    assert len(reader._known) == 3
