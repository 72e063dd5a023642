"""Every kind of picture a shop may have."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.picture_kinds import animated_webp, encode, noisy, on_white, picture_kinds
from tfmmrank.data import pictures
from tfmmrank.data.pictures import PictureReader, check_picture, read_picture
from tfmmrank.encoders.decoding import decode_pictures
from tfmmrank.stack import tf

LIMIT = 50_000_000


def decode(content: bytes) -> np.ndarray:
    """A plain picture's pixels."""
    return tf.io.decode_image(content, channels=3, expand_animations=False).numpy()


def serving_decodes(contents: list[bytes]) -> list[bool]:
    return decode_pictures(tf.constant(contents), 8)[1].numpy().tolist()


KINDS = picture_kinds()
RED = Image.new("RGB", (12, 8), (220, 20, 20))


@pytest.mark.parametrize("name", KINDS)
def test_what_serving_decodes_is_kept_byte_for_byte(name):
    assert check_picture(KINDS[name], LIMIT) == (KINDS[name], None, None)


def test_serving_decodes_what_is_kept():
    assert all(serving_decodes(list(KINDS.values())))


def with_alpha() -> Image.Image:
    image = RED.convert("RGBA")
    image.putpixel((0, 0), (0, 0, 255, 0))
    return image


CONVERTED = {
    "16-bit grey": (encode(Image.fromarray(np.full((8, 12), 0x8000, np.uint16)), "PNG"), "16-bit", (128, 128, 128)),
    "animated GIF": (
        encode(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (12, 8), (0, 0, 255))]),
        "animated",
        (220, 20, 20),
    ),
    "animated WebP": (
        encode(RED, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (12, 8), (0, 0, 255))]),
        "animated",
        (220, 20, 20),
    ),
    "GIF": (encode(RED, "GIF"), "format GIF", (220, 20, 20)),
    "BMP": (encode(RED, "BMP"), "format BMP", (220, 20, 20)),
    "CMYK TIFF": (encode(RED.convert("CMYK"), "TIFF"), "format TIFF", (220, 20, 20)),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_other_pictures_become_plain_ones(name):
    content, why, color = CONVERTED[name]
    picture = check_picture(content, LIMIT)
    assert (picture.cause, picture.converted) == (None, f"picture converted: {why}")
    assert check_picture(picture.content, LIMIT).converted is None  # what comes out is plain
    pixels = decode(picture.content)
    assert pixels.shape == (8, 12, 3)
    np.testing.assert_allclose(pixels[4, 4], color, atol=4)  # the palette's loss


def test_serving_sees_a_converted_grey_of_16_bits_as_the_original():
    grey = encode(Image.fromarray(np.random.default_rng(0).integers(0, 65536, (40, 56)).astype(np.uint16)), "PNG")
    pixels = decode_pictures(tf.constant([grey, check_picture(grey, LIMIT).content]), 40)[0]
    np.testing.assert_array_equal(pixels[0], pixels[1])


def test_an_animation_of_one_frame_is_one():
    """Pillow says it is not animated; the graph believes the header."""
    one = encode(noisy(), "WEBP", save_all=True)
    plain = KINDS["WebP, alpha"]
    frame = b"ANMF" + (16 + len(one) - 12).to_bytes(4, "little") + bytes(6) + b"7\0\0\x27\0\0" + bytes(4) + one[12:]
    header = plain[12:20] + b"\x02\0\0\0" + b"7\0\0\x27\0\0" + b"ANIM\x06\0\0\0" + bytes(6)
    content = b"RIFF" + (4 + len(header) + len(frame)).to_bytes(4, "little") + b"WEBP" + header + frame
    assert not Image.open(io.BytesIO(content)).is_animated
    assert not serving_decodes([content])[0]
    picture = check_picture(content, LIMIT)
    assert picture.converted == "picture converted: animated"
    np.testing.assert_array_equal(decode(picture.content), on_white(content))


@pytest.mark.parametrize("alpha", [False, True])
def test_of_an_animated_webp_the_first_frame_is_kept(alpha):
    content = animated_webp(alpha)
    np.testing.assert_array_equal(decode(check_picture(content, LIMIT).content), on_white(content))


def test_what_is_transparent_becomes_white():
    damaged = encode(with_alpha(), "PNG") + b"\0"
    np.testing.assert_array_equal(decode(check_picture(damaged, LIMIT).content)[0, 0], [255, 255, 255])


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


FUZZED = {
    **{name: KINDS[name] for name in KINDS if "several" not in name and "animated" not in name},
    "JPEG, restarts": encode(noisy(), "JPEG", restart_marker_blocks=2),
    "WebP, animated": animated_webp(True),
    **{form: encode(noisy(), form) for form in ("GIF", "AVIF", "BMP", "TIFF")},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZED)
def test_what_is_accepted_decodes_whatever_happened_to_its_bytes(name):
    rng = np.random.default_rng(0)
    accepted = []
    for _ in range(3000):
        content = bytearray(FUZZED[name])
        # Half of what is done is done to the first bytes, where the headers are.
        at = int(rng.integers(len(content) if rng.random() < 0.5 else min(len(content), 100)))
        how = int(rng.integers(4))
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
            accepted.append(picture.content)
    assert accepted
    assert all(serving_decodes(accepted))


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
