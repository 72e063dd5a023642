"""Ranking metrics, one value a query, on ragged or padded lists. NumPy only.

Every metric takes ``labels`` and ``scores`` as sequences of arrays (one a query, any lengths) or as padded arrays
``[Q, L]``; a place whose label is negative is padding and is left out, whatever its score. Items of equal score are
ranked **worst first**, so that a model that scores everything alike gains nothing by it; AUC alone counts a tie as a
half, which is what the area under the curve is. Where a metric is undefined for a query (no relevant item) the query is
skipped and counted, or given zero or one by ``empty``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Gain = Literal["exp2", "linear"] | Sequence[float]
Empty = Literal["skip", "zero", "one"]
TIES_AVERAGED = " ties averaged"
_EMPTY = {"skip": np.nan, "zero": 0.0, "one": 1.0}


@dataclass(frozen=True)
class PerQuery:
    """A metric's value for each query.

    Attributes:
        values: float64 ``[Q]``; NaN where the query is skipped.
        name: such as ``ndcg@10``.
        convention: what the number rests on, in words: gain, ties, threshold.
    """

    values: np.ndarray
    name: str
    convention: str = ""

    @property
    def used(self) -> int:
        """Queries that have a value."""
        return int(np.count_nonzero(~np.isnan(self.values)))

    @property
    def skipped(self) -> int:
        """Queries for which the metric is undefined."""
        return len(self.values) - self.used

    @property
    def mean(self) -> float:
        """Mean over the queries used; NaN when there is none."""
        return float(np.nanmean(self.values)) if self.used else float("nan")

    def __str__(self) -> str:
        conditions = [self.convention] if self.convention else []
        conditions += [f"{self.used} queries", f"{self.skipped} skipped"]
        return f"{self.name} {self.mean:.4f} ({', '.join(conditions)})"


class _Judged:
    """Judged items of all queries, flat: query number, label, score; padding left out."""

    def __init__(self, labels: Any, scores: Any) -> None:
        if len(labels) != len(scores):
            raise ValueError(
                f"labels have {len(labels)} queries and scores {len(scores)}; expected one list each a query"
            )
        self.queries = len(labels)
        lengths = np.zeros(self.queries, np.int64)
        for number, (some_labels, some_scores) in enumerate(zip(labels, scores, strict=True)):
            if np.ndim(some_labels) != 1 or np.shape(some_labels) != np.shape(some_scores):
                raise ValueError(
                    f"query {number}: labels have shape {np.shape(some_labels)} and scores {np.shape(some_scores)}; "
                    "expected one score for each label"
                )
            lengths[number] = len(some_labels)
        label = np.concatenate([np.asarray(part, np.float64) for part in labels] or [np.empty(0)])
        score = np.concatenate([np.asarray(part, np.float64) for part in scores] or [np.empty(0)])
        query = np.repeat(np.arange(self.queries), lengths)
        endless = ~np.isfinite(label)
        if endless.any():
            raise ValueError(
                f"query {query[endless][0]}: a label is {label[endless][0]}; expected a grade, or −1 for padding"
            )
        real = label >= 0
        self.query, self.label, self.score = query[real], label[real], score[real]
        if np.isnan(self.score).any():
            raise ValueError(f"query {self.query[np.isnan(self.score)][0]}: a score is NaN; expected a number")
        self.counts = np.bincount(self.query, minlength=self.queries)
        self.starts = np.cumsum(self.counts) - self.counts

    def ranked(self, merit: np.ndarray) -> np.ndarray:
        """Order by falling score within each query; equal scores by rising merit, the worst case."""
        return np.lexsort((merit, -self.score, self.query))

    @property
    def ranks(self) -> np.ndarray:
        """1, 2, … within each query, for values in the order of ``ranked``."""
        return np.arange(len(self.query)) - np.repeat(self.starts, self.counts) + 1

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums by query ``[Q]``, for values in the order of ``ranked``."""
        return np.bincount(self.query, values, minlength=self.queries)


def ndcg(
    labels: Any, scores: Any, k: int | None = 10, gain: Gain = "exp2", empty: Empty = "skip", ties: str = "worst"
) -> PerQuery:
    """Normalised discounted cumulative gain (Järvelin & Kekäläinen, 2002; exponential gain: Burges et al., 2005).

    DCG@k = sum over the first k ranks of gain(grade) / log2(rank + 1), divided by the DCG@k of the best order of the
    same judged items.

    Args:
        labels: grades, one array a query; negative is padding.
        scores: scores, shaped alike.
        k: cut-off; None ranks all.
        gain: ``exp2`` is 2^grade − 1, ``linear`` is the grade, a sequence gives the gain of grade 0, 1, ….
        empty: what a query without an item of positive gain counts as: ``skip``, ``zero`` or ``one``.
        ties: ``worst`` ranks items of equal score by rising gain; ``average`` takes the mean over all orders of tied
            items (McSherry & Najork, 2008), as scikit-learn does.

    Raises:
        ValueError: for shapes that differ, a label or score that is NaN, an infinite label, a bad k, a grade that a
            sequence of gains does not cover, or grades so high that their exponential gain is no number.
    """
    _check_k(k)
    judged = _Judged(labels, scores)
    gains = _gains(judged.label, gain, judged.query)
    if ties not in ("worst", "average"):
        raise ValueError(f'ties is "{ties}"; expected worst or average')
    ranks = judged.ranks
    discount = np.where(ranks <= (k or np.inf), 1 / np.log2(ranks + 1), 0.0)
    order = judged.ranked(gains)
    ranked_gains = gains[order]
    if ties == "average":
        ranked_gains = _group_means(ranked_gains, judged.query, judged.score[order])
    dcg = judged.total(ranked_gains * discount)
    ideal = judged.total(gains[np.lexsort((-gains, judged.query))] * discount)
    if not np.isfinite(ideal).all():
        number = int(np.flatnonzero(~np.isfinite(ideal))[0])
        grade = judged.label[judged.query == number].max()
        raise ValueError(
            f'query {number}: a grade of {grade:g} has too high a gain under gain="{gain}"; for grades such as these '
            'use gain="linear"'
        )
    convention = {"exp2": "gain 2^grade − 1", "linear": "gain = grade"}.get(str(gain)) or f"gains {list(gain)}"
    convention += ", ties worst first" if ties == "worst" else ", ties averaged"
    name = _named("ndcg", k) + (TIES_AVERAGED if ties == "average" else "")
    return PerQuery(_ratio(dcg, ideal, empty), name, convention + _empty_words(empty))


def mrr(labels: Any, scores: Any, k: int | None = None, threshold: float = 0.0, empty: Empty = "skip") -> PerQuery:
    """Reciprocal rank of the first item whose grade is over ``threshold``; 0 when it stands beyond ``k``.

    Equal scores are ranked worst first. A query without a relevant item is handled by ``empty``.
    """
    _check_k(k)
    judged, relevant, ranks = _binary(labels, scores, threshold)
    best = np.full(judged.queries, np.inf)
    np.minimum.at(best, judged.query[relevant], ranks[relevant])
    value = np.where(best <= (k or np.inf), 1 / best, 0.0)
    return _where_relevant("mrr", k, threshold, empty, value, judged.total(relevant))


def average_precision(
    labels: Any, scores: Any, k: int | None = None, threshold: float = 0.0, empty: Empty = "skip"
) -> PerQuery:
    """Mean of the precision at each relevant item (its mean over queries is MAP).

    Relevant is a grade over ``threshold``. With ``k``, items ranked beyond it count as not found; the sum is always
    divided by all relevant items of the query, as trec_eval's ``map_cut`` does. Equal scores are ranked worst first.
    """
    _check_k(k)
    judged, relevant, ranks = _binary(labels, scores, threshold)
    running = np.cumsum(relevant)
    before = np.concatenate([[0], running])[judged.starts] if judged.queries else np.empty(0)
    hits = running - np.repeat(before, judged.counts)
    total = judged.total(relevant)
    value = judged.total(np.where(relevant & (ranks <= (k or np.inf)), hits / ranks, 0.0)) / np.maximum(total, 1)
    return _where_relevant("map", k, threshold, empty, value, total)


def precision(labels: Any, scores: Any, k: int = 10, threshold: float = 0.0, empty: Empty = "skip") -> PerQuery:
    """Share of relevant items among the first ``k`` ranks; divided by k also where the list is shorter, as trec_eval.

    Relevant is a grade over ``threshold``. Equal scores are ranked worst first.
    """
    _check_k(k, needed=True)
    judged, relevant, ranks = _binary(labels, scores, threshold)
    value = judged.total(relevant & (ranks <= k)) / k
    return _where_relevant("precision", k, threshold, empty, value, judged.total(relevant))


def recall(labels: Any, scores: Any, k: int = 10, threshold: float = 0.0, empty: Empty = "skip") -> PerQuery:
    """Share of the query's relevant items that stand in the first ``k`` ranks.

    Relevant is a grade over ``threshold``. Equal scores are ranked worst first.
    """
    _check_k(k, needed=True)
    judged, relevant, ranks = _binary(labels, scores, threshold)
    total = judged.total(relevant)
    value = judged.total(relevant & (ranks <= k)) / np.maximum(total, 1)
    return _where_relevant("recall", k, threshold, empty, value, total)


def auc(labels: Any, scores: Any, threshold: float = 0.0) -> PerQuery:
    """Chance that a relevant item scores over one that is not, a tie counting a half (Mann and Whitney's U).

    Relevant is a grade over ``threshold``. A query with only relevant items, or with none, is skipped.
    """
    judged = _Judged(labels, scores)
    relevant = (judged.label > threshold).astype(np.float64)
    order = np.lexsort((judged.score, judged.query))
    from_below = _group_means(judged.ranks.astype(np.float64), judged.query, judged.score[order])  # ties: mid-ranks
    positives = judged.total(relevant)
    negatives = judged.counts - positives
    u = judged.total(from_below * relevant[order]) - positives * (positives + 1) / 2
    pairs = positives * negatives
    values = np.divide(u, pairs, out=np.full(judged.queries, np.nan), where=pairs > 0)
    return PerQuery(values, "auc", f"relevant: grade > {threshold:g}, a tie counts a half")


def _check_k(k: int | None, needed: bool = False) -> None:
    if (k is None and needed) or (k is not None and (k != int(k) or k < 1)):
        raise ValueError(
            f"k is {k!r}; expected a whole number from 1 up" + ("" if needed else ", or None for all ranks")
        )


def _gains(label: np.ndarray, gain: Gain, query: np.ndarray) -> np.ndarray:
    if isinstance(gain, str):
        if gain == "exp2":
            with np.errstate(over="ignore"):  # told by what it makes infinite
                return np.exp2(label) - 1
        if gain == "linear":
            return label
        raise ValueError(f'gain is "{gain}"; expected exp2, linear, or a sequence with the gain of each grade')
    table = np.asarray(gain, np.float64)
    if table.ndim != 1 or not np.isfinite(table).all() or (table < 0).any():
        raise ValueError(f"gain is {gain!r}; expected a flat sequence of finite numbers from 0 up")
    bad = (label != np.floor(label)) | (label >= len(table))
    if bad.any():
        raise ValueError(
            f"query {query[bad][0]}: grade {label[bad][0]:g} has no gain in {table.tolist()}; grades are its places"
        )
    return table[label.astype(np.int64)]


def _group_means(values: np.ndarray, query: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Each value replaced by the mean over its run of equal query and score."""
    new = np.ones(len(values), bool)
    new[1:] = (query[1:] != query[:-1]) | (score[1:] != score[:-1])
    group = np.cumsum(new) - 1
    return (np.bincount(group, values) / np.bincount(group))[group] if len(values) else values


def _binary(labels: Any, scores: Any, threshold: float) -> tuple[_Judged, np.ndarray, np.ndarray]:
    """Judged items, and in ranked order: whether relevant, and rank."""
    judged = _Judged(labels, scores)
    relevant = judged.label > threshold
    return judged, relevant[judged.ranked(relevant)], judged.ranks


def _where_relevant(
    name: str, k: int | None, threshold: float, empty: Empty, value: np.ndarray, relevant: np.ndarray
) -> PerQuery:
    _check_empty(empty)
    values = np.where(relevant > 0, value, _EMPTY[empty])
    return PerQuery(values, _named(name, k), f"relevant: grade > {threshold:g}, ties worst first" + _empty_words(empty))


def _ratio(numerator: np.ndarray, denominator: np.ndarray, empty: Empty) -> np.ndarray:
    _check_empty(empty)
    return np.divide(numerator, denominator, out=np.full(len(numerator), _EMPTY[empty]), where=denominator > 0)


def _check_empty(empty: str) -> None:
    if empty not in _EMPTY:
        raise ValueError(f'empty is "{empty}"; expected one of {", ".join(_EMPTY)}')


def _empty_words(empty: str) -> str:
    return "" if empty == "skip" else f", queries without a relevant item count as {empty}"


def _named(name: str, k: int | None) -> str:
    return name if k is None else f"{name}@{k}"
