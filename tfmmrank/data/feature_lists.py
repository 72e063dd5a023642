"""LETOR and TF-Ranking files to lists on disk: lists that carry their features, without a catalogue."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.formats import read_lists
from tfmmrank.data.libsvm import FEATURES, highest_index
from tfmmrank.data.lists import ListWriter
from tfmmrank.data.splits import SPLITS, leak_message
from tfmmrank.data.table_lists import note_one_grade
from tfmmrank.data.text import normalize_query
from tfmmrank.schema import ExampleLists, LibSVM, Recipe


def write_feature_lists(
    recipe: Recipe, writers: dict[str, ListWriter], report: Report, progress: bool
) -> dict[str, int]:
    """Writes the lists of a recipe's files, by split.

    Returns:
        Slot columns and their widths.

    Raises:
        DataError: for a file that is missing, empty, malformed or listed twice, or a query id or text that stands in
            two splits.
    """
    labels = recipe.data.labels
    assert isinstance(labels, (LibSVM, ExampleLists))
    named: Any = labels.files
    parts = {split: [recipe.path(file) for file in named.get(split, [])] for split in SPLITS}
    _check_files(parts)
    if isinstance(labels, LibSVM) and labels.num_features is None:  # one width for all splits
        labels = labels.model_copy(update={"num_features": highest_index([file for s in SPLITS for file in parts[s]])})
    sides = _Sides()
    for split, files in parts.items():
        bar = tqdm(desc=split, unit="list", disable=not progress, leave=False)
        for number, made in enumerate(read_lists(labels, files, report), 1):
            report.read["lists"] += 1
            bar.update()
            query_id = made.query_id or f"{split}-{number}"
            where = f'labels.files.{split}: list "{query_id}"'
            if len(made.labels) == 0:
                report.bad_row("empty list", f"{where}: has no item; expected at least one")
                continue
            if made.query_id and sides.repeated(where, made.query_id, split):
                report.bad_row(
                    "duplicate query id", f"{where}: stands in an earlier list; expected ids that are unique"
                )
                continue
            text = made.query.get("query")
            if text is not None:
                sides.refuse_text(where, text.decode(), query_id, split)
                if not text:
                    report.note(f"empty text in {getattr(labels, 'query_text', 'query')}", f"{where}: is empty")
            note_one_grade(query_id, made.labels, report)
            rows = [-1] * len(made.labels)
            writers[split].write(query_id, made.query, rows, made.labels, made.weights, made.features)
        bar.close()
    return {FEATURES: labels.num_features or 0} if isinstance(labels, LibSVM) else dict(labels.features)


def _check_files(parts: dict[str, list[Path]]) -> None:
    """Refuses files that are missing, empty, or listed twice. Raises DataError."""
    seen: dict[str, str] = {}
    for split, files in parts.items():
        for file in files:
            if not file.is_file():
                raise DataError(f"{file}: there is no such file (labels.files.{split})")
            if file.stat().st_size == 0:
                raise DataError(f"{file}: is empty, 0 bytes (labels.files.{split})")
            real = os.path.realpath(file)
            if real in seen:
                where = f"labels.files.{seen[real]} and labels.files.{split}"
                raise DataError(f"{file}: is listed twice, in {where}; expected each file once")
            seen[real] = split


class _Sides:
    """Which split has which query id and text; a few bytes of each are remembered."""

    def __init__(self) -> None:
        self._ids: dict[bytes, str] = {}
        self._texts: dict[bytes, tuple[str, str]] = {}

    def repeated(self, where: str, query_id: str, split: str) -> bool:
        """Whether this split has an earlier list of the id. Raises DataError where another split has."""
        key = _digest(query_id)
        other = self._ids.get(key)
        self._ids.setdefault(key, split)
        if other not in (None, split):
            raise DataError(
                f"{where}: query id is in splits {other} and {split}; expected one side only, or what was trained on "
                "would be tested"
            )
        return other == split

    def refuse_text(self, where: str, text: str, query_id: str, split: str) -> None:
        """Raises DataError for a text that an earlier split has."""
        text = normalize_query(text)
        if text:
            other = self._texts.setdefault(_digest(text), (query_id, split))
            if other[1] != split:
                raise DataError(leak_message(where, text, (query_id, split), other))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
