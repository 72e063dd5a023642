"""The demo shop's words: what its items are called and asked for, in English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Attribute values as (English, Chinese). A query asks for some of them; a title names some of them.
TYPES = (
    ("shirt", "衬衫"), ("dress", "连衣裙"), ("trousers", "长裤"), ("hat", "帽子"), ("shoe", "鞋"),
    ("bag", "包"), ("mug", "杯子"), ("lamp", "台灯"), ("umbrella", "雨伞"), ("chair", "椅子"),
)  # fmt: skip
COLOURS = (
    ("red", "红色"), ("orange", "橙色"), ("yellow", "黄色"), ("green", "绿色"), ("blue", "蓝色"),
    ("purple", "紫色"), ("black", "黑色"), ("white", "白色"),
)  # fmt: skip
PATTERNS = (("plain", "纯色"), ("striped", "条纹"), ("dotted", "波点"), ("checked", "格子"))
MATERIALS = (
    ("cotton", "棉"), ("linen", "亚麻"), ("wool", "羊毛"), ("leather", "皮革"), ("canvas", "帆布"),
    ("ceramic", "陶瓷"), ("glass", "玻璃"), ("steel", "不锈钢"), ("wooden", "木"), ("nylon", "尼龙"),
)  # fmt: skip
#: Materials that each type comes in, by index: a picture cannot tell them apart.
MATERIALS_OF_TYPE = (
    (0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 2, 3), (3, 4, 9),
    (3, 4, 9), (5, 6, 7), (6, 7, 8), (0, 4, 9), (3, 7, 8),
)  # fmt: skip
CATEGORIES = (
    "clothing", "clothing", "clothing", "accessories", "footwear", "accessories", "home", "home", "outdoor", "home",
)  # fmt: skip
BRANDS = (
    "Nordvik", "Kalmar", "Lumen", "Brightwell", "Sora", "Haoyi", "Tamarind", "Ostra",
    "Meili", "Fjord", "Pemberly", "Zhuri",
)  # fmt: skip
SERIES = (
    "Aria", "Nova", "Delta", "Luna", "Orion", "Vega", "Terra", "Iris", "Atlas", "Echo", "Milo", "Sierra",
    "Tango", "Zephyr",
)  # fmt: skip
#: The attributes, in the order of an attribute array's columns.
ATTRIBUTES = ("type", "colour", "pattern", "material")
WORDS = (TYPES, COLOURS, PATTERNS, MATERIALS)
#: Word order of a noun phrase, as columns of an attribute array: colour, pattern, material, type.
_PHRASE = (1, 2, 3, 0)
_NAMED_IN_TITLE = (0.55, 0.35, 0.35, 0.85)


@dataclass(frozen=True)
class Need:
    """What a query asks for: an attribute's column and its value, and the language it is asked in."""

    wanted: tuple[tuple[int, int], ...]
    chinese: bool


def _phrase(values: dict[int, int], language: int, separator: str, order: tuple[int, ...] = _PHRASE) -> str:
    return separator.join(WORDS[column][values[column]][language] for column in order if column in values)


def title(attributes: np.ndarray, brand: int, rng: np.random.Generator) -> str:
    """Writes a title that names some of an item's attributes, in English, Chinese, or both.

    Args:
        attributes: values of type, colour, pattern, material ``[4]``.
        brand: index into ``BRANDS``.
        rng: source of randomness.
    """
    named = {column: int(value) for column, value in enumerate(attributes) if rng.random() < _NAMED_IN_TITLE[column]}
    head = f"{BRANDS[brand]} {SERIES[rng.integers(len(SERIES))]}"
    language = rng.choice(3, p=[0.25, 0.15, 0.6])
    parts = [head]
    if language != 1:
        parts.append(_phrase(named, 0, " "))
    if language != 0:
        parts.append(_phrase(named, 1, ""))
    return " ".join(part for part in parts if part)


def query_text(need: Need, rng: np.random.Generator) -> str:
    """Words a need as a user would: mostly in the usual order, sometimes with the product first."""
    order = (0, 1, 2, 3) if rng.random() < 0.2 else _PHRASE
    separator = " " if not need.chinese or rng.random() < 0.5 else ""
    return _phrase(dict(need.wanted), int(need.chinese), separator, order)
