"""What a ranker was trained on, in numbers: what a monitor compares live requests with."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data.text import SCRIPTS, script_of, word_count
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.export.versions import STATISTICS_FILE

FORMAT = 1
MOST_LISTS, MOST_PLACES = 2000, 20_000
BINS, SCORE_BINS, MOST_VALUES = 10, 20, 50

_READ = 1024  # items read at once: pictures are large
_SCORED = 16  # lists in a request


def training_statistics(data: Any, columns: RawColumns, servable: Any, seed: int = 0) -> dict[str, Any]:
    """Statistics of the training lists, of at most 2,000 lists and 20,000 places in them.

    Args:
        data: the ``Prepared`` dataset.
        columns: what the ranker reads.
        servable: the exported version, whose scores of the lists are counted.
        seed: of the samples.

    Returns:
        JSON values::

            {"version": 1,
             "lists": 2000, "places": 20000,     # how many were looked at
             "columns": {                        # query columns a list; item and slot columns a place
               "price": {"kind": "numeric", "missing": 0.1, "edges": [...], "shares": [...]},
               "brand": {"kind": "categorical", "missing": 0.0, "values": {"acme": 0.5, ...}, "other": 0.1},
               "query": {"kind": "text", "missing": 0.0, "characters": {"edges", "shares"},
                         "words": {"edges", "shares"}, "scripts": {"latin": 0.9, "han": 0.1, "other": 0.0}},
               "image": {"kind": "picture", "missing": 0.2}},
             "scores": {"edges": [...], "shares": [...], "unknown": 0.0},
             "list_length": {"edges": [...], "shares": [...]}}

        ``edges`` are the inner bounds of bins that hold equally many (10; scores 20), equal ones once; ``shares`` has
        one number more, see ``shares_of``. Shares of bins and scripts are of what is there, ``missing``, ``values`` and
        ``other`` of all. A categorical column's 50 most frequent values are named. A wide column's numbers are counted
        together. Scores are of ``rank`` (without a catalogue: ``rank_features``).
    """
    rng = np.random.default_rng(seed)
    lists = data.lists("train" if "train" in data.splits else data.splits[0])
    chosen = np.sort(rng.choice(len(lists), min(MOST_LISTS, len(lists)), replace=False))
    places = np.concatenate([np.arange(lists.offsets[q], lists.offsets[q + 1]) for q in chosen])
    some = np.sort(rng.choice(places, min(MOST_PLACES, len(places)), replace=False))
    found: dict[str, Any] = {}
    for column in columns.query:
        found[column.name] = describe(data.query_columns[column.name], lists.queries[column.name][chosen])
    kinds = {column.name: data.item_columns[column.name] for column in columns.item}
    for name, values in _item_values(data.catalogue, kinds, lists.item_rows[some]).items():
        found[name] = describe(kinds[name], values)
    for column in columns.slot:
        found[column.name] = describe("numeric", lists.slots[column.name][some].reshape(-1))
    known, scores = _scores(data, columns, servable, lists, chosen)
    lengths = np.diff(lists.offsets)[chosen]
    return {
        "version": FORMAT,
        "lists": len(chosen),
        "places": len(some),
        "columns": found,
        "scores": {**histogram(scores[known], SCORE_BINS), "unknown": _share(~known)},
        "list_length": histogram(lengths),
    }


def describe(kind: str, values: np.ndarray) -> dict[str, Any]:
    """One column's part of the statistics.

    Args:
        kind: ``numeric``, ``categorical``, ``text`` or ``image``, as in a dataset's columns.
        values: raw values ``[n]``: float32, or bytes; of pictures also whether they are there, bool.
    """
    if kind == "numeric":
        there = np.isfinite(values)
        return {"kind": "numeric", "missing": _share(~there), **histogram(values[there])}
    there = values.astype(bool)
    if kind == "image":
        return {"kind": "picture", "missing": _share(~there)}
    texts = [value.decode("utf-8", "replace") for value in values[there]]
    if kind == "categorical":
        most = Counter(texts).most_common(MOST_VALUES)
        shares = {value: count / len(values) for value, count in sorted(most, key=lambda each: (-each[1], each[0]))}
        other = (len(texts) - sum(count for _, count in most)) / max(1, len(values))
        return {"kind": "categorical", "missing": _share(~there), "values": shares, "other": other}
    return {
        "kind": "text",
        "missing": _share(~there),
        "characters": histogram([len(text) for text in texts]),
        "words": histogram([word_count(text) for text in texts]),
        "scripts": script_shares(texts),
    }


def histogram(values: Sequence[float] | np.ndarray, bins: int = BINS) -> dict[str, list[float]]:
    """Inner edges of bins that hold equally many, and what each holds; both empty without values."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return {"edges": [], "shares": []}
    # Values that occur, so that few different ones, such as lengths, are not parted between two of them.
    edges = np.unique(np.quantile(array, np.arange(1, bins) / bins, method="higher"))
    return {"edges": edges.tolist(), "shares": shares_of(array, edges)}


def shares_of(values: Sequence[float] | np.ndarray, edges: Sequence[float] | np.ndarray) -> list[float]:
    """Shares of values in the bins between ``edges [k]``: ``k + 1``, the i-th of values from edge i − 1 to below i."""
    places = np.searchsorted(np.asarray(edges, np.float64), np.asarray(values, np.float64), side="right")
    return (np.bincount(places, minlength=len(edges) + 1) / max(1, len(places))).tolist()


def script_shares(texts: Sequence[str]) -> dict[str, float]:
    """Shares of some texts by the script that most of their letters are of, see ``script_of``."""
    counts = Counter(script_of(text) for text in texts)
    return {script: counts[script] / max(1, len(texts)) for script in SCRIPTS}


def write_statistics(directory: Path, statistics: Mapping[str, Any]) -> None:
    """Writes a version's statistics."""
    (directory / STATISTICS_FILE).write_text(json.dumps(statistics, ensure_ascii=False), "utf-8")


def copy_statistics(previous: Path, directory: Path) -> None:
    """Takes over an earlier version's statistics, where it has any: its ranker was trained on what it was."""
    if (previous / STATISTICS_FILE).is_file():
        shutil.copyfile(previous / STATISTICS_FILE, directory / STATISTICS_FILE)


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _item_values(catalogue: Any, kinds: Mapping[str, str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Raw values of catalogue rows; of pictures, whether they are there."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    for start in range(0, len(rows) if kinds else 0, _READ):
        raw = catalogue.rows(rows[start : start + _READ], columns=list(kinds))
        for name, kind in kinds.items():
            parts[name].append(raw[name].astype(bool) if kind == "image" else raw[name])
    return {name: np.concatenate(each) for name, each in parts.items() if each}


def _scores(
    data: Any, columns: RawColumns, servable: Any, lists: Any, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which places of the chosen lists are known, and their scores, ``[R]`` each."""
    by_id = "rank" in servable.signatures
    known, scores = [], []
    for inputs in _requests(data, columns, lists, chosen, by_id):
        asked = np.arange(inputs["num_items"].max())[None, :] < inputs["num_items"][:, None]
        found = servable.run("rank" if by_id else "rank_features", inputs)
        scores.append(found["scores"][asked])
        known.append(found["known"][asked] if by_id else np.ones(asked.sum(), bool))
    return np.concatenate(known), np.concatenate(scores)


def _requests(
    data: Any, columns: RawColumns, lists: Any, chosen: np.ndarray, by_id: bool
) -> Iterator[dict[str, np.ndarray]]:
    """Lists as a client would ask for them, some a request, padded to the longest with their first place."""
    for start in range(0, len(chosen), _SCORED):
        some = chosen[start : start + _SCORED]
        begins, sizes = lists.offsets[some], np.diff(lists.offsets)[some]
        width = np.arange(sizes.max())[None, :]
        places = begins[:, None] + np.where(width < sizes[:, None], width, 0)
        inputs = {column.name: lists.queries[column.name][some] for column in columns.query}
        inputs["num_items"] = sizes.astype(np.int32)
        if by_id:
            ids = data.catalogue.ids[lists.item_rows[places]]
            inputs["item_ids"] = np.array([[item.encode() for item in row] for row in ids], object)
        else:
            inputs.update({column.name: lists.slots[column.name][places] for column in columns.slot})
        yield inputs
