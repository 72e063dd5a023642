"""Requests for a load test: a dataset's own queries with their candidates, or those of a JSON-lines file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmmrank.serving.client import questions
from tfmmrank.serving.client.answers import Signature
from tfmmrank.serving.client.questions import Target
from tfmmrank.serving.client.ranking_inputs import Part, query_inputs, rank_inputs

if TYPE_CHECKING:
    from tfmmrank.data import Prepared


def requests_of_dataset(
    data: Prepared,
    target: Target,
    signature: Signature,
    split: str = "test",
    candidates: int | None = None,
    count: int = 1000,
    seed: int = 0,
) -> list[bytes]:
    """Serialised ``rank`` requests of a dataset's queries.

    Args:
        data: a dataset with a catalogue.
        target: the model to ask.
        signature: its ``rank``.
        split: whose queries.
        candidates: items of each request: the query's own, and catalogue items drawn at random beside them; default:
            its own alone.
        count: different requests, at most: as many as the split has queries.
        seed: of what is drawn.

    Raises:
        ValueError: for a dataset without a catalogue, more candidates than it has items, or an unknown split.
    """
    items = len(data.catalogue)
    if not items:
        raise ValueError(f"{data.path}: the dataset has no catalogue, so there are no items to rank by id")
    if candidates is not None and candidates > items:
        raise ValueError(f"{data.path}: its catalogue has {items} items; expected at most as many candidates")
    lists, rng = data.lists(split), np.random.default_rng(seed)
    columns = [name for name in lists.queries if name in signature.inputs and name != "query"]
    requests = []
    for q in rng.permutation(len(lists))[:count]:
        rows = lists.item_rows[lists.of(q)]
        if candidates is not None:
            rows = _resample(rows, items, candidates, rng)
        query = lists.queries["query"][q] if "query" in lists.queries else ""
        context = {name: lists.queries[name][q] for name in columns}
        requests.append(_request(target, signature, query, data.catalogue.ids[rows].tolist(), context))
    return requests


def requests_of_file(path: str | Path, target: Target, signature: Signature) -> list[bytes]:
    """Serialised ``rank`` requests of a file with one ``{"query": …, "item_ids": […], column: value …}`` a line.

    Raises:
        OSError: when it cannot be read.
        ValueError: for a line that is no such object, with its number, or a file without any.
    """
    requests = []
    for number, line in _lines(path):
        try:
            requests.append(_request(target, signature, *_read_line(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not requests:
        raise ValueError(f'{path}: holds no request; expected {{"query": …, "item_ids": […]}} a line')
    return requests


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _read_line(line: str) -> tuple[str, list[str], dict[str, Any]]:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(f"got {line.strip()[:40]}; expected an object")
    ids = values.pop("item_ids", None)
    if not isinstance(ids, list) or not ids:
        raise ValueError(f'"item_ids" is {ids!r}; expected a list of ids')
    query = values.pop("query", "")
    if not isinstance(query, str):
        raise ValueError(f'"query" is {query!r}; expected text')
    return query, ids, values


def _resample(own: np.ndarray, items: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` different rows: the own ones, cut or filled up at random, in random order."""
    if len(own) < count:
        others = rng.choice(items, count, replace=False)
        own = np.concatenate([own, others[~np.isin(others, own)][: count - len(own)]])
    return rng.permutation(own)[:count]


def _request(
    target: Target, signature: Signature, query: str | bytes, ids: Sequence[str], context: Mapping[str, Any]
) -> bytes:
    columns = query_inputs(signature, [query], {name: [value] for name, value in context.items()})
    inputs = rank_inputs(columns, [ids], Part([0], slice(None)))
    return questions.predict(target, "rank", inputs).message
