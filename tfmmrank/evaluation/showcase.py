"""Ranked pictures of a few queries, before and after."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from tfmmrank.evaluation.bm25 import CHINESE
from tfmmrank.evaluation.metrics import PerQuery
from tfmmrank.evaluation.scoring import check_scores, split_lists
from tfmmrank.evaluation.tables import Table

_THUMBNAIL = 176  # pixels: twice what is shown, for dense screens
_GRADES = ["#e4e7eb", "#bfe3d0", "#7cc9a5", "#2f9e74", "#0b6e4f"]

Scored = tuple[str, Sequence[np.ndarray]]


def choose_queries(before: PerQuery, after: PerQuery, texts: Sequence[str], count: int) -> list[int]:
    """Picks queries at equal steps of change, from the one that lost most to the one that gained most.

    Where there are queries in Chinese and in others, each gets its share, at least one. No hand picks them, so that
    what is shown is not what flatters.

    Args:
        before: a metric per query ``[Q]``; queries that it skips are not picked.
        after: of the same queries.
        texts: the queries ``[Q]``.
        count: how many to pick.

    Returns:
        Numbers of queries, the greatest gain first.
    """
    change = after.values - before.values
    candidates = np.flatnonzero(~np.isnan(change))
    if count < 1 or not len(candidates):
        return []
    chinese = np.array([CHINESE.search(texts[int(number)]) is not None for number in candidates])
    share = round(count * chinese.mean())
    if count > 1 and chinese.any() and not chinese.all():
        share = int(np.clip(share, 1, count - 1))
    picked: list[int] = []
    for group, places in ((candidates[chinese], share), (candidates[~chinese], count - share)):
        ordered = group[np.argsort(change[group], kind="stable")]
        if places and len(ordered):
            steps = np.linspace(0, len(ordered) - 1, min(places, len(ordered)))
            picked += ordered[np.round(steps).astype(int)].tolist()
    return sorted(picked, key=lambda number: -change[number])


def showcase(data: Any, table: Table, before: Scored, after: Scored, count: int, shown: int) -> list[dict[str, Any]]:
    """What the report's template shows of the chosen queries.

    Args:
        data: a ``Prepared`` dataset.
        table: of the same split; must hold both systems.
        before: name and scores of the system shown first.
        after: name and scores of the other.
        count: queries to show.
        shown: ranks to show of each.

    Raises:
        ValueError: when the table lacks a system, or scores do not fit the lists.
    """
    lists = data.lists(table.split)
    for name, scores in (before, after):
        if name not in table.rows:
            raise ValueError(f'report: the table has no system "{name}"; systems: {", ".join(table.rows)}')
        check_scores(lists, scores, f'system "{name}"')
    texts = query_texts(lists)
    labels, rows = split_lists(lists, lists.labels), split_lists(lists, lists.item_rows)
    highest = float(lists.labels.max(initial=1.0))
    thumbnails: dict[int, dict[str, Any]] = {}
    cards = []
    chosen = choose_queries(table.per_query(before[0]), table.per_query(after[0]), texts, count)
    for number in chosen:
        rankings: list[dict[str, Any]] = []
        for name, scores in (before, after):
            order = np.lexsort((labels[number], -np.asarray(scores[number], np.float64)))[:shown]  # ties: worst first
            _look_up(data, rows[number][order], thumbnails)
            tiles = [
                {
                    **_tile(data, int(rows[number][place]), int(place), thumbnails),
                    "rank": rank,
                    "grade": f"{labels[number][place]:g}",
                    "colour": _grade_colour(float(labels[number][place]), highest),
                    "dark": labels[number][place] / highest > 0.6,
                    "score": f"{scores[number][place]:.4g}",
                }
                for rank, place in enumerate(order, start=1)
            ]
            value = float(table.per_query(name).values[number])
            rankings.append({"name": name, "value": value, "tiles": tiles})
        change = rankings[1]["value"] - rankings[0]["value"]
        cards.append({"query": texts[number], "items": len(labels[number]), "rankings": rankings, "change": change})
    return cards


def query_texts(lists: Any) -> list[str]:
    """What stands for each query: its text, or its id where there is none."""
    texts = lists.queries.get("query")
    if texts is None:
        return [str(name) for name in lists.query_ids]
    return [text.decode("utf-8") or str(name) for text, name in zip(texts, lists.query_ids, strict=True)]


def thumbnail(encoded: bytes) -> str | None:
    """A small picture as a data URI; None for one that is missing or cannot be read."""
    if not encoded:
        return None
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            picture.draft("RGB", (2 * _THUMBNAIL, 2 * _THUMBNAIL))
            picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
            small = ImageOps.exif_transpose(picture).convert("RGBA")
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        Image.DecompressionBombError,
    ):  # what Pillow raises for spoilt files
        return None
    flat = Image.new("RGB", small.size, "white")
    flat.paste(small, mask=small)
    out = io.BytesIO()
    flat.save(out, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _columns(data: Any, kind: str) -> list[str]:
    return [name for name, its in data.item_columns.items() if its == kind]


def _look_up(data: Any, rows: np.ndarray, known: dict[int, dict[str, Any]]) -> None:
    """Reads titles and pictures of catalogue rows that are not known yet."""
    new = [int(row) for row in rows if row >= 0 and int(row) not in known]
    texts, images = _columns(data, "text")[:1], _columns(data, "image")[:1]
    if not new:
        return
    values = data.catalogue.rows(new, columns=texts + images)
    for place, row in enumerate(new):
        known[row] = {
            "title": values[texts[0]][place].decode("utf-8", "replace") if texts else str(data.catalogue.ids[row]),
            "picture": thumbnail(values[images[0]][place]) if images else None,
        }


def _tile(data: Any, row: int, place: int, known: dict[int, dict[str, Any]]) -> dict[str, Any]:
    if row < 0:
        return {"title": f"item {place + 1} of the list", "picture": None, "id": ""}
    return {**known[row], "id": str(data.catalogue.ids[row])}


def _grade_colour(grade: float, highest: float) -> str:
    return _GRADES[round(min(1.0, grade / highest) * (len(_GRADES) - 1))] if highest > 0 else _GRADES[0]
