"""Pictures as the shop has them to bytes that the serving graph decodes."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

_PLAIN = {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L")}
_CACHE_BYTES = 64 * 2**20


class Picture(NamedTuple):
    """An encoded 8-bit RGB or grey JPEG or PNG, or why there is none, and whether it was converted."""

    content: bytes
    cause: str | None = None
    converted: str | None = None


def read_picture(path: Path, max_pixels: int) -> Picture:
    """Reads and checks one picture file.

    Plain JPEGs and PNGs are kept byte for byte, so that serving, which gets the shop's bytes, sees the same pixels.
    CMYK, 16-bit, palette, alpha (over white) and animated (first frame) pictures become plain PNGs. The size is read from
    the header, before anything is decoded.

    Args:
        path: the file.
        max_pixels: pictures of more pixels are refused.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Picture(b"", "picture file missing")
    except OSError:
        return Picture(b"", "picture unreadable")
    if not content:
        return Picture(b"", "picture of zero bytes")
    return check_picture(content, max_pixels)


def check_picture(content: bytes, max_pixels: int) -> Picture:
    """Checks encoded bytes; see ``read_picture``."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > max_pixels:
                return Picture(b"", "picture of too many pixels")
            animated = getattr(image, "is_animated", False)
            image.load()
            if (image.format, image.mode) in _PLAIN and not animated and "transparency" not in image.info:
                return Picture(content)
            kind = "animated" if animated else {"CMYK": "CMYK"}.get(image.mode, "of another mode or format")
            return Picture(_plain(image), converted=f"picture {kind}, converted")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return Picture(b"", "not a picture" if content else "picture of zero bytes")
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError):
        return Picture(b"", "picture truncated or broken")


def _plain(image: Image.Image) -> bytes:
    """The picture as an RGB PNG, transparency over white."""
    if image.mode in ("I;16", "I", "F"):
        image = image.point(lambda value: value / 256).convert("L") if image.mode != "F" else image.convert("L")
    if image.mode in ("RGBA", "LA", "PA", "P") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    out = io.BytesIO()
    image.convert("RGB").save(out, "PNG")
    return out.getvalue()


class PictureReader:
    """Reads pictures, remembering the last ones: many rows may name one file."""

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
        while self._bytes > _CACHE_BYTES and self._known:
            self._bytes -= len(self._known.popitem(last=False)[1].content)
        return picture
