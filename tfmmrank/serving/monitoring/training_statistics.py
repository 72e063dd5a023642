"""A version's training statistics, read: what ``export.statistics.training_statistics`` describes.

``lists`` may be left out, and so may scores, list lengths and a text's parts. Shares are brought to a sum of 1, which
leaves the missing values aside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.export.versions import STATISTICS_FILE

_KINDS = ("numeric", "categorical", "text", "picture")


@dataclass(frozen=True)
class Histogram:
    """Edges ``[bins − 1]``, ascending, and shares ``[bins]`` that sum to 1."""

    edges: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class Column:
    """What one column held in training.

    Attributes:
        kind: ``numeric``, ``categorical``, ``text`` or ``picture``.
        missing: share of missing values.
        histogram: of a numeric column's values, or a text's characters; None where nothing was counted.
        categories: share by value of a categorical column, or by script of a text; others have what is left to 1.
        words: of a text's words; None where nothing was counted.
    """

    kind: str
    missing: float
    histogram: Histogram | None
    categories: dict[str, float]
    words: Histogram | None = None


@dataclass(frozen=True)
class TrainingStatistics:
    """The file's content.

    Attributes:
        columns: by name.
        scores: of items on lists, None where the file has none.
        list_length: likewise.
        lists: how many were counted; infinite where the file does not say.
    """

    columns: dict[str, Column]
    scores: Histogram | None
    list_length: Histogram | None
    lists: float

    @classmethod
    def read(cls, version_dir: str | Path) -> TrainingStatistics:
        """The statistics in a version's folder.

        Raises:
            FileNotFoundError: when there are none.
            ValueError: when the file is not what this module says.
        """
        file = Path(version_dir) / STATISTICS_FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: is not there; expected the folder of an exported version, such as models/shop/3, written "
                "by an export that keeps training statistics"
            )
        try:
            content = json.loads(file.read_text("utf-8"))
            return _statistics(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            told = f"has no key {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{file}: {told}; expected training statistics of version 1") from error


def _statistics(content: Any) -> TrainingStatistics:
    if content["version"] != 1:
        raise ValueError(f"has version {content['version']}")
    return TrainingStatistics(
        {name: _column(name, column) for name, column in content["columns"].items()},
        _histogram("scores", content.get("scores")),
        _histogram("list_length", content.get("list_length")),
        float(content.get("lists") or np.inf),
    )


def _column(name: str, column: Any) -> Column:
    kind = column["kind"]
    if kind not in _KINDS:
        raise ValueError(f'column "{name}" has kind "{kind}"; expected one of {", ".join(_KINDS)}')
    missing = float(column["missing"])
    if not 0 <= missing <= 1:
        raise ValueError(f'column "{name}" has missing {missing}; expected a share')
    if kind == "numeric":
        return Column(kind, missing, _histogram(name, column), {})
    if kind == "text":
        scripts = _categories(name, column.get("scripts") or {}, 0.0)
        return Column(
            kind, missing, _histogram(name, column.get("characters")), scripts, _histogram(name, column.get("words"))
        )
    if kind == "categorical":
        return Column(kind, missing, None, _categories(name, column["values"], column["other"]))
    return Column(kind, missing, None, {})


def _histogram(name: str, content: Any) -> Histogram | None:
    """None where it is left out, or nothing was counted."""
    if not content:
        return None
    edges, shares = np.asarray(content["edges"], float), np.asarray(content["shares"], float)
    if not edges.size and not shares.size:
        return None
    if edges.ndim != 1 or shares.shape != (len(edges) + 1,):
        raise ValueError(
            f'"{name}" has {edges.size} edges and {shares.size} shares; expected one share more than edges'
        )
    if not (np.diff(edges) > 0).all():
        raise ValueError(f'"{name}" has edges that do not ascend')
    if not (shares >= 0).all() or not np.isfinite(shares).all():
        raise ValueError(f'"{name}" has shares that are no shares')
    return Histogram(edges, shares / shares.sum()) if shares.sum() else None


def _categories(name: str, shares: dict[str, float], other: float) -> dict[str, float]:
    """Shares of all that is not missing."""
    if any(not share >= 0 for share in (*shares.values(), other)):
        raise ValueError(f'"{name}" has shares that are no shares')
    total = sum(shares.values()) + other
    return {value: share / total for value, share in shares.items()} if total else {}
