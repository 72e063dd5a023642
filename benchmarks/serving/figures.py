"""What a section of the benchmark found."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

#: A number; whether something held; a median or mean with what lies around it; None where a row has no such figure.
Value = float | bool | str | list[float] | None
#: By what was measured, then by the figure's name. Rows that follow one another with the same names are one table.
Figures = dict[str, dict[str, Value]]


def spread(values: Iterable[float]) -> list[float]:
    """Median, least and greatest of several rounds."""
    found = np.array(list(values))
    return [float(np.median(found)), float(found.min()), float(found.max())]


def times(slow: Iterable[float], fast: Iterable[float]) -> list[float]:
    """How many times longer one takes than the other, round by round: median, least and greatest."""
    return spread(np.array(list(slow)) / np.array(list(fast)))
