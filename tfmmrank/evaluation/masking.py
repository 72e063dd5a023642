"""Scores with one modality hidden: what a trained ranker gives where its towers' columns are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.evaluation.scoring import batches_of, cut_to_lists
from tfmmrank.stack import tf


def modalities(towers: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What an ablation takes away, each by its towers: every item or slot tower, and those that read the same together.

    Args:
        towers: by name, anything with ``side`` and ``columns``.

    Returns:
        ``{"title": ("title",), ...}``, and ``{"image + colours": ("image", "colours")}`` where two towers or more read
        the same columns: without one of them, what they read is still seen.
    """
    found = {name: (name,) for name, tower in towers.items() if tower.side != "query"}
    readers: dict[frozenset[str], list[str]] = {}
    for name in found:
        readers.setdefault(frozenset(towers[name].columns), []).append(name)
    return {**found, **{" + ".join(names): tuple(names) for names in readers.values() if len(names) > 1}}


def masked_scores(
    ranker: Any,
    data: Any,
    split: str,
    hidden: Mapping[str, Sequence[str]] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> dict[str, list[np.ndarray]]:
    """Scores every list of a split with each modality hidden in turn, from the fusion and from matches; untrained.

    They are the scores of a dataset in which what those towers read, and they alone, is empty.

    Args:
        ranker: an adapted ``Ranker``.
        data: a ``Prepared`` dataset.
        split: name of the split.
        hidden: by modality the item or slot towers hidden together; default: ``modalities``.
        batch_size: lists scored at once; default: as ``scores_of``.
        progress: whether to show progress bars.

    Returns:
        By modality what ``scores_of`` gives.

    Raises:
        ValueError: for a name that no item or slot tower has, or a score that is not finite.
    """
    if hidden is None:
        hidden = modalities({tower.name: tower for tower in ranker.towers})
    # A function of its own: Keras's predict keeps what it once traced, with everything shown.
    score = tf.function(lambda batch: ranker.scores_hiding(batch, hidden), autograph=False, reduce_retracing=True)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in hidden}
    batches = batches_of(ranker, data, split, batch_size, progress)
    for batch, _, _ in tqdm(batches, desc="hiding modalities", unit="batch", leave=False, disable=not progress):
        for name, scores in score(batch).items():
            parts[name].append(scores.numpy())
    lists = data.lists(split)
    return {
        name: cut_to_lists(lists, np.concatenate(some), f'split "{split}", "{name}" hidden')
        for name, some in parts.items()
    }
