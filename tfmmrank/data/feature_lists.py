"""LETOR and TF-Ranking files to lists on disk: lists that carry their features, without a catalogue."""

from __future__ import annotations

import hashlib
from typing import Any

from tqdm import tqdm

from tfmmrank.data.errors import DataError, Report
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
        DataError: for a missing or malformed file, features that change their width, or, when a query has text, a text
            that stands in two splits.
    """
    labels = recipe.data.labels
    assert isinstance(labels, (LibSVM, ExampleLists))
    named: Any = labels.files
    parts = {split: [recipe.path(file) for file in named.get(split, [])] for split in SPLITS}
    for split, files in parts.items():
        for file in files:
            if not file.is_file():
                raise DataError(f"{file}: there is no such file (labels.files.{split})")
    from tfmmrank.data.formats import read_lists  # TensorFlow, which tables do without

    slots: dict[str, int] = {}
    sides: dict[bytes, tuple[str, str]] = {}
    for split, files in parts.items():
        bar = tqdm(desc=split, unit="list", disable=not progress, leave=False)
        for made in read_lists(labels, files):
            widths = {name: 1 if values.ndim == 1 else values.shape[1] for name, values in made.features.items()}
            slots = slots or widths
            where = f'labels.files.{split}: list "{made.query_id}"'
            if widths != slots:
                raise DataError(f"{where}: features have widths {widths}; expected {slots}, as in the lists before")
            if len(made.labels) == 0:
                report.bad_row("empty list", f"{where}: has no item; expected at least one")
                continue
            _refuse_leak(where, made, split, sides, report)
            note_one_grade(made.query_id, made.labels, report)
            rows = [-1] * len(made.labels)
            writers[split].write(made.query_id, made.query, rows, made.labels, made.weights, made.features)
            report.read["lists"] += 1
            bar.update()
        bar.close()
    return slots


def _refuse_leak(where: str, made: Any, split: str, sides: dict[bytes, tuple[str, str]], report: Report) -> None:
    """Refuses a query text that an earlier split has; a few bytes a text are remembered."""
    text = normalize_query(made.query.get("query", b"").decode("utf-8", "replace"))
    if text:
        key = hashlib.blake2b(text.encode(), digest_size=12).digest()
        other = sides.setdefault(key, (made.query_id, split))
        if other[1] != split:
            raise DataError(leak_message(where, text, (made.query_id, split), other))
