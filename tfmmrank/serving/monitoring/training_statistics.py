"""What a model was trained on, as histograms: ``assets.extra/training_statistics.json`` in a version's folder.

    {"version": 1,
     "lists": 2000,
     "columns": {
       "price":   {"kind": "numeric", "edges": […], "shares": […], "missing": 0.1},
       "season":  {"kind": "categorical", "values": {"summer": 0.4, …}, "other": 0.1, "missing": 0.2},
       "query":   {"kind": "text", "characters": {"edges": […], "shares": […]},
                   "scripts": {"latin": 0.7, "han": 0.2, "other": 0.1}, "missing": 0.0},
       "picture": {"kind": "picture", "missing": 0.05}},
     "scores":      {"edges": […], "shares": […]},
     "list_length": {"edges": […], "shares": […]}}

``shares[i]`` counts values from ``edges[i - 1]`` on and below ``edges[i]``, unbounded below the first edge and from the
last on: there is one share more than edges. Shares are brought to a sum of 1, which leaves the missing values aside.
``lists``, how many were counted, may be left out, and so may scores, list lengths and a text's parts.
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
    """

    kind: str
    missing: float
    histogram: Histogram | None
    categories: dict[str, float]


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
        _histogram("scores", content["scores"]) if content.get("scores") else None,
        _histogram("list_length", content["list_length"]) if content.get("list_length") else None,
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
        characters = column.get("characters")
        histogram = _histogram(name, characters) if characters else None
        return Column(kind, missing, histogram, _categories(name, column.get("scripts") or {}, 0.0))
    if kind == "categorical":
        return Column(kind, missing, None, _categories(name, column["values"], column["other"]))
    return Column(kind, missing, None, {})


def _histogram(name: str, content: Any) -> Histogram | None:
    """None where nothing was counted."""
    edges, shares = np.asarray(content["edges"], float), np.asarray(content["shares"], float)
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
