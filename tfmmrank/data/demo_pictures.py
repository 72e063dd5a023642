"""The demo shop's pictures: silhouettes drawn in a colour and a pattern, with natural jitter."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
SIZE = 64
_MASK_SIZE = 2 * SIZE  # silhouettes are drawn at twice the size and shrunk, which softens their edges

_RGB = (
    (205, 35, 40), (240, 130, 25), (242, 212, 45), (40, 150, 65),
    (40, 85, 200), (130, 55, 160), (35, 35, 38), (245, 245, 242),
)  # fmt: skip
#: The pattern's second colour: light on most, dark on yellow, grey on black and white (or a black item with white
#: checks would look like a white one with black checks).
_SECOND_RGB = ((235, 232, 225),) * 2 + ((60, 60, 65),) + ((235, 232, 225),) * 3 + ((125, 125, 130), (150, 152, 160))


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _disc(x: float, y: float, width: float, height: float, start: float = 0.0, end: float = 360.0) -> list[Point]:
    angles = [math.radians(start + (end - start) * step / 24) for step in range(25)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


#: Per type, polygons in the unit square (y downwards), each to add (True) or to cut away (False), in that order.
_SILHOUETTES: tuple[tuple[tuple[list[Point], bool], ...], ...] = (
    (  # shirt
        ([(0.3, 0.12), (0.7, 0.12), (0.98, 0.32), (0.88, 0.5), (0.74, 0.42), (0.74, 0.92), (0.26, 0.92), (0.26, 0.42),
          (0.12, 0.5), (0.02, 0.32)], True),
        ([(0.4, 0.11), (0.6, 0.11), (0.5, 0.25)], False),
    ),
    (  # dress
        ([(0.36, 0.06), (0.43, 0.06), (0.45, 0.18), (0.55, 0.18), (0.57, 0.06), (0.64, 0.06), (0.66, 0.28),
          (0.59, 0.42), (0.86, 0.95), (0.14, 0.95), (0.41, 0.42), (0.34, 0.28)], True),
    ),
    (  # trousers
        ([(0.28, 0.06), (0.72, 0.06), (0.8, 0.95), (0.58, 0.95), (0.5, 0.36), (0.42, 0.95), (0.2, 0.95)], True),
    ),
    (  # hat
        (_disc(0.5, 0.68, 0.48, 0.14), True),
        (_disc(0.5, 0.62, 0.27, 0.42, 180, 360), True),
    ),
    (  # shoe
        ([(0.06, 0.36), (0.34, 0.34), (0.46, 0.5), (0.8, 0.58), (0.95, 0.68), (0.95, 0.8), (0.06, 0.8)], True),
    ),
    (  # bag
        (_disc(0.5, 0.38, 0.24, 0.3, 180, 360), True),
        (_disc(0.5, 0.38, 0.16, 0.21, 180, 360), False),
        ([(0.16, 0.38), (0.84, 0.38), (0.95, 0.92), (0.05, 0.92)], True),
    ),
    (  # mug
        (_disc(0.72, 0.5, 0.24, 0.24), True),
        (_disc(0.72, 0.5, 0.13, 0.13), False),
        (_box(0.14, 0.2, 0.7, 0.85), True),
    ),
    (  # lamp
        ([(0.32, 0.06), (0.68, 0.06), (0.9, 0.5), (0.1, 0.5)], True),
        (_box(0.45, 0.5, 0.55, 0.86), True),
        (_box(0.27, 0.84, 0.73, 0.95), True),
    ),
    (  # umbrella
        (_disc(0.5, 0.5, 0.47, 0.42, 180, 360), True),
        (_box(0.465, 0.48, 0.535, 0.92), True),
        (_box(0.36, 0.86, 0.535, 0.93), True),
    ),
    (  # chair
        (_box(0.14, 0.05, 0.36, 0.95), True),
        (_box(0.14, 0.46, 0.88, 0.68), True),
        (_box(0.7, 0.6, 0.88, 0.95), True),
    ),
)  # fmt: skip


def _place(polygon: Sequence[Point], turn: float, scale: float, shift: Point, mirror: bool) -> list[Point]:
    """Unit-square points to mask pixels: turned about the middle, scaled, moved."""
    cos, sin = math.cos(turn), math.sin(turn)
    placed = []
    for x, y in polygon:
        x, y = ((1 - x) if mirror else x) - 0.5, y - 0.5
        placed.append(
            (
                (0.5 + shift[0] + scale * (x * cos - y * sin)) * _MASK_SIZE,
                (0.5 + shift[1] + scale * (x * sin + y * cos)) * _MASK_SIZE,
            )
        )
    return placed


def _silhouette(kind: int, rng: np.random.Generator) -> np.ndarray:
    """An item's outline as opacity ``[SIZE, SIZE]`` in [0, 1]."""
    turn, scale = math.radians(rng.normal(0, 5)), rng.uniform(0.72, 0.95)
    room = (1 - scale) / 2
    shift = (rng.uniform(-room, room), rng.uniform(-room, room))
    mirror = bool(rng.random() < 0.5)
    mask = Image.new("L", (_MASK_SIZE, _MASK_SIZE), 0)
    draw = ImageDraw.Draw(mask)
    for polygon, add in _SILHOUETTES[kind]:
        draw.polygon(_place(polygon, turn, scale, shift, mirror), fill=255 if add else 0)
    return np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255


def _pattern(pattern: int, rng: np.random.Generator) -> np.ndarray:
    """Where the pattern's second colour shows, ``[SIZE, SIZE]`` in [0, 1]."""
    if pattern == 0:
        return np.zeros((SIZE, SIZE), np.float32)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    turn = rng.normal(0, 0.12)
    period = rng.uniform(11, 14)
    across = (x * np.cos(turn) + y * np.sin(turn) + rng.uniform(0, period)) / period % 1
    down = (y * np.cos(turn) - x * np.sin(turn) + rng.uniform(0, period)) / period % 1
    if pattern == 1:
        shown = down < 0.45
    elif pattern == 2:
        shown = (across - 0.5) ** 2 + (down - 0.5) ** 2 < 0.28**2
    else:
        shown = (across < 0.5) != (down < 0.5)
    return shown.astype(np.float32)


def draw_item(attributes: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Draws an item: type, colour and pattern are visible, the material is not.

    Args:
        attributes: values of type, colour, pattern, material ``[4]`` (``demo_words.ATTRIBUTES``).
        rng: source of randomness: size, place, turn, light, background, noise.

    Returns:
        An RGB picture of ``SIZE`` x ``SIZE`` pixels.
    """
    kind, colour, pattern = (int(value) for value in attributes[:3])
    opacity = _silhouette(kind, rng)[..., None]
    first = np.array(_RGB[colour], np.float32) + rng.normal(0, 8, 3)
    second = np.array(_SECOND_RGB[colour], np.float32) + rng.normal(0, 8, 3)
    shown = _pattern(pattern, rng)[..., None]
    body = first * (1 - shown) + second * shown
    light = 1 + rng.uniform(-0.12, 0.06) + rng.uniform(-0.15, 0.15) * np.linspace(-0.5, 0.5, SIZE)[:, None, None]
    background = (
        rng.uniform(150, 205) + rng.normal(0, 5, 3) + np.linspace(-8, 8, SIZE)[:, None, None] * rng.uniform(-1, 1)
    )
    pixels = body * light * opacity + background * (1 - opacity) + rng.normal(0, 4, (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def encode(picture: Image.Image, png: bool) -> bytes:
    """A picture as the bytes of a PNG, or of a JPEG of quality 90."""
    buffer = io.BytesIO()
    if png:
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def broken_picture(good: bytes, way: int) -> bytes:
    """What stands in for a picture that cannot be read: 0 cut short, 1 empty, 2 no picture at all."""
    return (good[: len(good) // 3], b"", b"<html><body>404 Not Found</body></html>\n")[way % 3]
