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


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    "content",
    [PNG[:-12], PNG[:-16], PNG[:-1], flipped(PNG, len(PNG) - 13), PNG + b"\0"],
    ids=["no end", "no checksum", "half an end", "a wrong checksum", "more behind the end"],
)
def test_a_damaged_picture_that_can_be_read_is_written_anew(content):
    """What decodes pictures in a graph is stricter than Pillow."""
    picture = check_picture(content, LIMIT)
    assert picture.converted == "picture converted: damaged"
    np.testing.assert_array_equal(decode(picture.content), decode(PNG))


def test_a_jpeg_must_end_but_may_have_more_behind():
    assert check_picture(JPEG + b"\0\0trailer", LIMIT) == (JPEG + b"\0\0trailer", None, None)
    start = JPEG.index(b"\xff\xda") + 200
    hidden = JPEG[:start] + b"\xff\xdc\xff\xff" + JPEG[start + 4 :]  # a marker that says: skip what follows
    assert check_picture(hidden, LIMIT).content != hidden


def test_any_failure_of_a_decoder_is_a_broken_picture():
    avif = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)), "AVIF")
    for at in range(0, len(avif), 3):
        check_picture(flipped(avif, at), LIMIT)
    dds = (
        b"DDS "
        + struct.pack("<7I", 124, 0x1007, 8, 8, 0, 0, 0)
        + bytes(44)
        + struct.pack("<2I4s", 32, 4, b"ZZZZ")
        + bytes(60)
    )
    assert check_picture(dds, LIMIT).cause == "not a picture"
    assert check_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", LIMIT).cause == "not a picture"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PNG", "JPEG", "progressive", "restarts", "GIF", "WEBP", "AVIF", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_is_accepted_decodes_whatever_happened_to_its_bytes(form, mode):
    rng = np.random.default_rng(0)
    values = np.add.outer(np.arange(24) * 5, np.arange(32) * 3)[..., None] + rng.integers(0, 60, 3)
    image = Image.fromarray(values.astype(np.uint8)).convert(mode)
    jpeg = {"progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 2}}
    whole = encode(image, "JPEG", **jpeg[form]) if form in jpeg else encode(image, form)
    accepted = 0
    for _ in range(3000):
        content = bytearray(whole)
        at, how = int(rng.integers(len(content))), int(rng.integers(4))
        if how == 0:
            del content[-int(rng.integers(1, 60)) :]
        elif how == 1:
            content[at : at + 8] = bytes(len(content[at : at + 8]))
        elif how == 2:
            del content[at : at + int(rng.integers(1, 5))]
        else:
            content[at] ^= 1 << int(rng.integers(8))
        picture = check_picture(bytes(content), LIMIT)
        assert bool(picture.content) == (picture.cause is None)
        if picture.content:
            decode(picture.content)
            accepted += 1
    assert accepted


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
