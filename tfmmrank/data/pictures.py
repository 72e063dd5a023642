"""Pictures as the shop has them to bytes that the serving graph decodes."""

from __future__ import annotations

import functools
import io
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

_CACHE_BYTES = 32 * 2**20
_CACHE_FILES = 10_000
_JPEG, _PNG, _RIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"
_SIGNATURES = (_JPEG, _PNG, _RIFF, b"GIF8")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
#: What shops have. Not all that Pillow knows: some of its formats start other programs, or hold no pictures of goods.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "ICO", "JPEG2000", "PPM", "TGA")


class Picture(NamedTuple):
    """An encoded JPEG, PNG or WebP that serving decodes, or why there is none; and what was done to it, if anything."""

    content: bytes
    cause: str | None = None
    converted: str | None = None


def read_picture(path: Path, max_pixels: int) -> Picture:
    """Reads and checks one picture file.

    JPEGs, PNGs and WebPs that are whole are kept byte for byte, so that serving, which gets the shop's bytes, sees the
    same pixels (``tfmmrank.encoders.decoding``). Animated WebPs (first frame), 16-bit greys, other formats, and damaged
    pictures that can be read still, become RGB PNGs, with white behind what is transparent. The size is read from the
    header, before anything is decoded.

    Args:
        path: the file.
        max_pixels: pictures of more pixels are refused.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Picture(b"", "picture file missing")
    except (OSError, ValueError):  # a folder, a file without permission, a name with a null character
        return Picture(b"", "picture file unreadable")
    return check_picture(content, max_pixels)


def check_picture(content: bytes, max_pixels: int) -> Picture:
    """Checks encoded bytes; see ``read_picture``."""
    if not content:
        return Picture(b"", "picture of zero bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures, ours is an error; and of odd metadata
        try:
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                if image.width * image.height > max_pixels:
                    return Picture(b"", "picture of too many pixels")
                image.load()
                conversion = _conversion(image, content)
                if conversion is None:
                    return Picture(content)
                return Picture(_plain(image), converted=f"picture converted: {conversion}")
        except Image.DecompressionBombError:
            return Picture(b"", "picture of too many pixels")
        except UnidentifiedImageError:
            return Picture(b"", "picture truncated or broken" if content.startswith(_SIGNATURES) else "not a picture")
        except Exception:  # Pillow's decoders raise nearly every kind for broken bytes
            return Picture(b"", "picture truncated or broken")


@functools.cache
def _formats() -> list[str]:
    """The formats that are read, of those that this Pillow knows."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _conversion(image: Image.Image, content: bytes) -> str | None:
    """Why a picture cannot be kept as it is; None when it can."""
    if image.mode.startswith("I"):
        return "16-bit"
    if content.startswith(_JPEG):  # Pillow calls some "MPO": several in one file, as telephones write them
        return None if _sound_jpeg(content) else "damaged"
    if content.startswith(_PNG):
        return None if _sound_png(content) else "damaged"
    if getattr(image, "is_animated", False) or _is_animated_webp(content):
        return "animated"
    if image.format == "WEBP":
        return None if _sound_webp(content) else "damaged"
    return f"format {image.format}"


def _sound_png(content: bytes) -> bool:
    """Whether every part of a PNG is there with its checksum. Pillow loads less; what serves pictures does not."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
    except Exception:
        return False
    return content.endswith(_PNG_END)


def _sound_jpeg(content: bytes) -> bool:
    """Whether a JPEG's markers lead to its end. What cameras write behind it does no harm."""
    at = 2
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        marker = content[at + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:  # a filler
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # a byte of the scan, or a marker without content
            at += 2
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return False


def _is_animated_webp(content: bytes) -> bool:
    """Whether a WebP's header says so: serving refuses it then, be it of one frame."""
    return content.startswith(_RIFF) and content[12:16] == b"VP8X" and bool(content[20] & 2)


def _sound_webp(content: bytes) -> bool:
    """Whether a WebP is as long as it says, and of a kind that serving knows. What is behind it does no harm."""
    return int.from_bytes(content[4:8], "little") + 8 <= len(content) and content[8:15] == b"WEBPVP8"


def _plain(image: Image.Image) -> bytes:
    """The picture as an RGB PNG, transparency over white."""
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    out = io.BytesIO()
    image.convert("RGB").save(out, "PNG")
    return out.getvalue()


class PictureReader:
    """Reads pictures, remembering the last ones: many rows may name one file.

    Args:
        max_pixels: pictures of more pixels are refused.
    """

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self._known: OrderedDict[Path, Picture] = OrderedDict()
        self._bytes = 0

    def __call__(self, path: Path) -> Picture:
        """The picture at a path."""
        if path in self._known:
            self._known.move_to_end(path)
            return self._known[path]
        picture = read_picture(path, self.max_pixels)
        self._known[path] = picture
        self._bytes += len(picture.content)
        while self._bytes > _CACHE_BYTES or len(self._known) > _CACHE_FILES:
            self._bytes -= len(self._known.popitem(last=False)[1].content)
        return picture
