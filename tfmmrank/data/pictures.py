"""Pictures as the shop has them to bytes that the serving graph decodes."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

_CACHE_BYTES = 32 * 2**20
_CACHE_FILES = 10_000
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF")
_PNG_DEPTH_AT = 24  # a PNG's header says its bits a channel there


class Picture(NamedTuple):
    """An encoded 8-bit RGB or grey JPEG or PNG, or why there is none; and what was done to it, if anything."""

    content: bytes
    cause: str | None = None
    converted: str | None = None


def read_picture(path: Path, max_pixels: int) -> Picture:
    """Reads and checks one picture file.

    Plain 8-bit JPEGs and PNGs, RGB or grey, are kept byte for byte, so that serving, which gets the shop's bytes, sees
    the same pixels. CMYK, 16-bit, palette, alpha (over white) and animated (first frame) pictures, and other formats,
    become RGB PNGs. The size is read from the header, before anything is decoded.

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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; ours is an error
            image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:
        return Picture(b"", "picture of too many pixels")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return Picture(b"", "picture truncated or broken" if content.startswith(_SIGNATURES) else "not a picture")
    with image:
        if image.width * image.height > max_pixels:
            return Picture(b"", "picture of too many pixels")
        try:
            image.load()
            conversion = _conversion(image, content)
            if conversion is None:
                return Picture(content)
            return Picture(_plain(image), converted=f"picture converted: {conversion}")
        except (OSError, SyntaxError, ValueError, EOFError, IndexError):
            return Picture(b"", "picture truncated or broken")


def _conversion(image: Image.Image, content: bytes) -> str | None:
    """Why a picture cannot be kept as it is; None when it can."""
    if getattr(image, "is_animated", False):
        return "animated"
    if image.has_transparency_data:
        return "alpha"
    if image.mode.startswith("I") or (image.format == "PNG" and content[_PNG_DEPTH_AT] == 16):
        return "16-bit"
    if image.mode not in ("RGB", "L"):
        return f"mode {image.mode}"
    return None if image.format in ("JPEG", "PNG") else f"format {image.format}"


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
