"""Choosing among settings by the validation lists: the same way, and the same measure, for every learnt baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmmrank.evaluation.metrics import ndcg
from tfmmrank.evaluation.scoring import labels_of, split_lists

VALID = "valid"


@dataclass(frozen=True)
class Trial:
    """One setting tried.

    Attributes:
        settings: what was tried.
        valid: NDCG@10 on the validation lists, at the best round.
        rounds: trees or epochs until then.
    """

    settings: dict[str, Any]
    valid: float
    rounds: int

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        return f"{settings}; {self.rounds} rounds; NDCG@10 {self.valid:.4f} on {VALID}"


def measure(data: Any, name: str) -> Callable[[np.ndarray], float]:
    """A function of the validation pairs' scores ``[R]`` to the mean NDCG@10, ties worst first, as tables have it.

    Libraries' own NDCG puts tied items in the order given, and judgements often come best first: a model that ties
    all would then look perfect.

    Raises:
        ValueError: when there is nothing to choose by.
    """
    if VALID not in data.splits:
        raise ValueError(f'{name}: dataset {data.path} has no split "{VALID}" to choose settings and stop by')
    lists, labels = data.lists(VALID), labels_of(data, VALID)
    if not (lists.labels > 0).any():
        raise ValueError(f'{name}: no query of split "{VALID}" of dataset {data.path} has a positive grade')
    return lambda scores: ndcg(labels, split_lists(lists, scores)).mean


def can_choose(data: Any) -> bool:
    """Whether a dataset has validation lists to choose by."""
    return VALID in data.splits and bool((data.lists(VALID).labels > 0).any())
