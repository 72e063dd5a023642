"""Scores with one modality hidden: what a trained ranker gives where a tower's columns are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.evaluation.scoring import batches_of, cut_to_lists
from tfmmrank.stack import tf


def masked_scores(
    ranker: Any,
    data: Any,
    split: str,
    names: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> dict[str, list[np.ndarray]]:
    """Scores every list of a split with each modality hidden in turn, from the fusion and from matches; untrained.

    They are the scores of a dataset whose columns of that tower, and of that tower alone, are empty.

    Args:
        ranker: an adapted ``Ranker``.
        data: a ``Prepared`` dataset.
        split: name of the split.
        names: item or slot towers; default: all of them.
        batch_size: lists scored at once; default: as ``scores_of``.
        progress: whether to show progress bars.

    Returns:
        By tower what ``scores_of`` gives.

    Raises:
        ValueError: for a name that no item or slot tower has, or a score that is not finite.
    """
    if names is None:
        names = [tower.name for tower in ranker.towers if tower.side != "query"]
    # A function of its own: Keras's predict keeps what it once traced, with everything shown.
    score = tf.function(lambda batch: ranker.scores_hiding(batch, names), autograph=False, reduce_retracing=True)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    batches = batches_of(ranker, data, split, batch_size, progress)
    for batch, _, _ in tqdm(batches, desc="hiding modalities", unit="batch", leave=False, disable=not progress):
        for name, scores in score(batch).items():
            parts[name].append(scores.numpy())
    lists = data.lists(split)
    return {
        name: cut_to_lists(lists, np.concatenate(some), f'split "{split}", "{name}" hidden')
        for name, some in parts.items()
    }
