"""A user's values as the raw arrays that signatures take."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_PICTURE_PATH = re.compile(r"\S+\.(jpe?g|png|webp|gif|bmp|tiff?)", re.IGNORECASE)


def table_columns(items: Any) -> tuple[dict[str, list[Any]], int]:
    """Rows as columns.

    Args:
        items: a DataFrame, or a sequence of ``{column: value}``; a row that lacks a column has None.

    Returns:
        Values by column, and the number of rows.

    Raises:
        ValueError: for a row that is no mapping.
    """
    if hasattr(items, "columns"):
        return {str(name): items[name].tolist() for name in items.columns}, len(items)
    rows = list(items)
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not hasattr(row, "keys"):
            raise ValueError(f"items[{number}] is {row!r}; expected a mapping of column to value")
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows] for name in names}, len(rows)


def raw_array(name: str, values: Sequence[Any], dtype: str, width: tuple[int, ...]) -> np.ndarray:
    """One column's values as float32 (NaN missing) or bytes (empty missing).

    Args:
        name: the column, for errors.
        values: ``[n]``; str, bytes, a number, or a sequence of numbers for a wide column; None and NaN are missing.
        dtype: ``string`` or ``float``.
        width: the shape of one value.

    Returns:
        ``[n, *width]``.

    Raises:
        ValueError: for a value of the wrong kind, or of the wrong width.
    """
    if dtype == "string":
        out = np.empty(len(values), object)
        for number, value in enumerate(values):
            out[number] = _as_bytes(name, number, value)
        return out
    numbers = np.full((len(values), *width), np.nan, np.float32)
    for number, value in enumerate(values):
        if value is None:
            continue
        try:
            if isinstance(value, (str, bytes)):
                raise ValueError
            numbers[number] = value
        except (TypeError, ValueError) as error:
            what = f"{width[0]} numbers" if width else "a number"
            raise ValueError(f'column "{name}", row {number}: got {value!r}; expected {what}') from error
    return numbers


def refuse_picture_paths(name: str, values: Sequence[Any]) -> None:
    """Raises ValueError for a str that looks like a picture's file name: a signature takes texts and pictures alike."""
    for number, value in enumerate(values):
        if isinstance(value, str) and _PICTURE_PATH.fullmatch(value):
            raise ValueError(
                f'column "{name}", row {number}: got the str {value!r}; expected the picture\'s bytes: read the '
                "file first (a text that ends so can be given as UTF-8 bytes)"
            )


def _as_bytes(name: str, number: int, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    if value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType":
        return b""
    got = f"{value!r} ({type(value).__name__})"
    raise ValueError(f'column "{name}", row {number}: got {got}; expected text, or the bytes of a picture')
