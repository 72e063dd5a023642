"""Scores of every list, and labels alike, as ragged lists: what metrics and tables take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_TARGET_CELLS = 4096  # (query, item) pairs scored at once


def labels_of(data: Any, split: str) -> list[np.ndarray]:
    """Labels of a split: one float32 array a query, in the order of ``data.lists(split)``."""
    lists = data.lists(split)
    return split_lists(lists, lists.labels)


def split_lists(lists: Any, values: np.ndarray) -> list[np.ndarray]:
    """Flat values ``[R]`` cut into one array a list."""
    return np.split(values, lists.offsets[1:-1]) if len(lists) else []


def scores_of(
    ranker: Any, data: Any, split: str, batch_size: int | None = None, progress: bool = False
) -> list[np.ndarray]:
    """Scores every list of a split with a ranker.

    Args:
        ranker: an adapted ``Ranker``.
        data: a ``Prepared`` dataset.
        split: name of the split.
        batch_size: lists scored at once; default: some 4,096 items' worth.
        progress: whether preprocessing shows a progress bar.

    Returns:
        float32 arrays, one a query, as long as its list, in the order of ``data.lists(split)``.

    Raises:
        ValueError: when a score is not finite.
    """
    lists = data.lists(split)
    if not len(lists):
        return []
    batches = batches_of(ranker, data, split, batch_size, progress)
    return cut_to_lists(lists, ranker.predict(batches, verbose=0), f'split "{split}"')


def batches_of(ranker: Any, data: Any, split: str, batch_size: int | None = None, progress: bool = False) -> Any:
    """The batches that a split is scored by; arguments as of ``scores_of``."""
    if batch_size is None:
        longest = int(np.diff(data.lists(split).offsets).max())
        batch_size = int(np.clip(_TARGET_CELLS // max(1, longest), 1, 256))
    return data.dataset(split, ranker, batch_size=batch_size, progress=progress)


def cut_to_lists(lists: Any, predicted: Any, what: str) -> list[np.ndarray]:
    """Scores ``[Q, L]`` without padding, one float32 array a list. Raises ValueError when they do not fit."""
    predicted, lengths = np.asarray(predicted, np.float32), np.diff(lists.offsets)
    if len(predicted) < len(lists) or predicted.shape[1] < lengths.max():
        raise ValueError(
            f"the ranker gave scores of shape {predicted.shape} for {len(lists)} lists of up to {lengths.max()} items"
        )
    scores = [row[:length] for row, length in zip(predicted, lengths, strict=False)]
    check_scores(lists, scores, what)
    return scores


def check_scores(lists: Any, scores: Sequence[np.ndarray], what: str) -> None:
    """Raises ValueError, naming the query, unless there is one finite score for each item of each list."""
    if len(scores) != len(lists):
        raise ValueError(f"{what}: {len(scores)} arrays of scores for {len(lists)} lists; expected one a list")
    for number, (length, some) in enumerate(zip(np.diff(lists.offsets), scores, strict=True)):
        where = f"{what}: query {lists.query_ids[number]}"
        if np.shape(some) != (length,):
            raise ValueError(
                f"{where}: scores have shape {np.shape(some)}; expected ({length},), one an item of the list"
            )
        if not np.isfinite(some).all():
            place = int(np.flatnonzero(~np.isfinite(some))[0])
            raise ValueError(f"{where}, item {place}: score is {some[place]}; expected a finite number")
