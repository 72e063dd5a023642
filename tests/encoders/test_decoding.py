"""Pictures decoded in a graph, against Pillow."""

import contextlib
import ctypes
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.picture_kinds import SIZE, animated_webp, encode, on_white, picture_kinds
from tfmmrank.encoders import decoding
from tfmmrank.encoders.decoding import decode_pictures
from tfmmrank.stack import tf

KINDS = picture_kinds()


def decode_one(content: bytes, size: int):
    """Op by op, with the module's limits as they are now; traced, decoding keeps those that it was traced with."""
    return decoding._decode(tf.constant(content), size, None, "bilinear")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_what_pillow_sees(name):
    pixels, present = decode_pictures(tf.constant([KINDS[name]]), 40)
    assert present.numpy().tolist() == [True]
    expected = tf.image.resize(on_white(KINDS[name]).astype(np.float32), [40, 40], antialias=True)
    # TensorFlow decodes JPEG by the faster of two cosine transforms; transparency is rounded once instead of twice.
    atol = 4 if name.startswith("JPEG") else 1.01
    np.testing.assert_allclose(pixels[0], expected, atol=atol)


@pytest.mark.parametrize("name", [name for name in KINDS if "alpha" in name])
def test_laid_on_white_in_parts_or_at_once_is_the_same(name, monkeypatch):
    whole = decode_one(KINDS[name], 40)
    monkeypatch.setattr(decoding, "_AT_ONCE", 3 * SIZE[0])  # three rows, the last time one
    np.testing.assert_array_equal(decode_one(KINDS[name], 40), whole)


def memory(what):
    """VmRSS: MiB of memory that the process has now; VmHWM: had at most."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


@pytest.mark.parametrize("form", ["JPEG", "PNG"])  # the small one first: what it took is used again
def test_a_large_picture_takes_little_more_memory_than_its_bytes(form):
    """16 megapixels: 61 MiB as RGBA, 46 as RGB, and four times that as floats."""
    content = encode(Image.new("RGBA" if form == "PNG" else "RGB", (4000, 4000), (9, 8, 7)), form)
    decode = tf.function(lambda encoded: decode_pictures(encoded, 40))
    decode(tf.constant([KINDS["PNG, alpha"]]))
    ctypes.CDLL(None).malloc_trim(0)  # memory kept from other tests would be used again
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    if memory("VmHWM") > memory("VmRSS") + 1:
        pytest.skip("this system does not measure memory anew")
    before = memory("VmRSS")
    assert decode(tf.constant([content]))[1].numpy().all()
    assert memory("VmHWM") - before < {"PNG": 240, "JPEG": 120}[form]


def webp_sizes(content: bytes, width: int, height: int) -> bytes:
    """The same WebP, whose header says another size."""
    kind = content[15:16]
    if kind == b" ":
        return content[:26] + struct.pack("<HH", width, height) + content[30:]
    if kind == b"L":
        bits = (width - 1) | (height - 1) << 14 | struct.unpack("<I", content[21:25])[0] & 0xF0000000
        return content[:21] + struct.pack("<I", bits) + content[25:]
    return content[:24] + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3] + content[30:]


WEBPS = {"VP8 ": KINDS["WebP"], "VP8L": KINDS["WebP, lossless"], "VP8X": KINDS["WebP, alpha"]}


@pytest.mark.parametrize("kind", WEBPS)
def test_a_webp_has_its_size_read_before_it_is_decoded(kind, monkeypatch):
    content = WEBPS[kind]
    assert content[12:16] == kind.encode()
    sizes = [(1, 1), SIZE, (255, 256), (3, 1025), (1025, 3)]
    pictures = [encode(Image.new("RGBA", size, (9, 8, 7, 200)), "WEBP", lossless=True) for size in sizes]
    if kind != "VP8L":
        mode = "RGB" if kind == "VP8 " else "RGBA"
        pictures = [encode(Image.new("RGBA", size, (9, 8, 7, 200)).convert(mode), "WEBP") for size in sizes]
    assert {picture[12:16] for picture in pictures} == {kind.encode()}
    for (width, height), picture in zip(sizes, pictures, strict=True):
        monkeypatch.setattr(decoding, "MAX_PIXELS", width * height)
        decode_one(picture, 8)
        monkeypatch.setattr(decoding, "MAX_PIXELS", width * height - 1)
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_one(picture, 8)


@pytest.mark.parametrize("kind", WEBPS)
def test_a_header_of_the_greatest_size_is_refused(kind):
    greatest = 1 << 24 if kind == "VP8X" else (1 << 14) - 1
    pictures = tf.constant([webp_sizes(WEBPS[kind], greatest, greatest), WEBPS[kind]])
    assert decode_pictures(pictures, 8)[1].numpy().tolist() == [False, True]


@pytest.mark.parametrize("alpha", [False, True])
def test_an_animated_webp_is_missing(alpha):
    content = animated_webp(alpha)
    assert content[20] & 2
    assert decode_pictures(tf.constant([KINDS["WebP"], content]), 8)[1].numpy().tolist() == [True, False]


@pytest.mark.parametrize("kind", WEBPS)
def test_a_webp_cut_short_is_missing_and_costs_no_other(kind):
    content = WEBPS[kind]
    cut = [content[:size] for size in (8, 12, 15, 16, 20, 24, 29, 30, len(content) // 2, len(content) - 3)]
    present = decode_pictures(tf.constant([*cut, content]), 8)[1].numpy().tolist()
    assert present == [False] * len(cut) + [True]
