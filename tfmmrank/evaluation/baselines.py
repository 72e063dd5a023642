"""Rankers to be beaten, on the same lists: from random to what a shop would run; and the oracle, which cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from tfmmrank.evaluation.scoring import split_lists
from tfmmrank.registry import nearest

SYSTEMS = ("simple", "all")
POPULARITY_COLUMNS = ("past_clicks", "past_purchases", "past_carts", "past_impressions")


class Baseline(Protocol):
    """Something that scores lists: ``fit`` on a split, then ``scores`` of any."""

    name: str

    def fit(self, data: Any, split: str = "train") -> Baseline:
        """Learns what it needs from a ``Prepared`` dataset's catalogue and one split; returns itself."""
        ...

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """float32 scores, one array a list, in the order of ``data.lists(split)``."""
        ...


class Random:
    """A random order, the same for one seed.

    Args:
        seed: seeds the order.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, data: Any, split: str = "train") -> Random:
        """Learns nothing."""
        return self

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """Uniform numbers in [0, 1)."""
        lists = data.lists(split)
        return split_lists(lists, np.random.default_rng(self.seed).random(len(lists.item_rows)).astype(np.float32))


class Oracle:
    """Scores equal to the labels: the best any ranker can do."""

    name = "oracle"

    def fit(self, data: Any, split: str = "train") -> Oracle:
        """Learns nothing."""
        return self

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """The labels."""
        lists = data.lists(split)
        return split_lists(lists, lists.labels)


class Popularity:
    """What is liked, whatever the query.

    Args:
        column: a slot feature of width 1, or a number of the catalogue. Default: the first there is of
            ``past_clicks``, ``past_purchases``, ``past_carts``, ``past_impressions`` among the slot features (what was
            known at the time of the list); without any, an item's popularity is the sum of label × weight over the
            training lists.
    """

    name = "popularity"

    def __init__(self, column: str | None = None) -> None:
        self.column = column
        self.source: str | None = None
        self._by_item: np.ndarray | None = None

    def fit(self, data: Any, split: str = "train") -> Popularity:
        """Finds its column, or adds up training labels by item.

        Raises:
            ValueError: for a column that the dataset lacks, or when there is nothing to count by.
        """
        slots = [name for name, width in data.slot_columns.items() if width == 1]
        numeric = [name for name, kind in data.item_columns.items() if kind == "numeric"]
        self._by_item = None
        for name in [self.column] if self.column else POPULARITY_COLUMNS:
            if name in slots:
                self.source = name
                return self
        if self.column in numeric:
            self.source = self.column
            columns = [batch[self.column] for batch in data.catalogue.batches(65_536, columns=[self.column])]
            self._by_item = np.concatenate(columns)
            return self
        if self.column:
            known = slots + numeric
            raise ValueError(
                f'popularity: dataset {data.path} has no numeric slot or catalogue column "{self.column}"'
                f"{nearest(self.column, known)}; columns: {', '.join(known) or 'none'}"
            )
        if not len(data.catalogue):
            raise ValueError(
                f"popularity: dataset {data.path} has no catalogue and no column such as {POPULARITY_COLUMNS[0]}; "
                "name the feature to count by: Popularity(column=...)"
            )
        lists = data.lists(split)
        self.source = f"{split} labels"
        self._by_item = np.bincount(lists.item_rows, lists.labels * lists.weights, minlength=len(data.catalogue))
        return self

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """The column's values; a missing one ranks with the lowest."""
        if self.source is None:
            raise ValueError("popularity: call fit(data) before scores")
        lists = data.lists(split)
        values = lists.slots[self.source] if self._by_item is None else self._by_item[lists.item_rows]
        values = np.asarray(values, np.float32)
        lowest = np.min(values, initial=np.inf, where=np.isfinite(values))
        return split_lists(lists, np.where(np.isfinite(values), values, lowest if np.isfinite(lowest) else 0.0))


def fit_baselines(
    data: Any,
    ranker: Any = None,
    seed: int = 0,
    split: str = "train",
    progress: bool = False,
    systems: str = "simple",
) -> list[Baseline]:
    """The baselines that a dataset and a ranker allow, fitted.

    ``simple``: random, popularity, BM25, the ranker's ``cosine`` matches by themselves (``ZeroShot``), oracle; seconds.
    ``all``: besides, what is learnt from the ranker's match features (at least BM25's score), the dataset's columns
    and the frozen encoders' vectors: ``LambdaMART`` without and, where queries and items have such, with the vectors,
    ``DNN``; minutes. Those need a split ``valid``; without it, or without LightGBM, they are left out with a warning.

    Args:
        data: a ``Prepared`` dataset.
        ranker: an adapted ``Ranker``, whose towers and matches the baselines read by; None: what goes without one.
        seed: seeds the random order, searches and networks.
        split: what may be learnt from.
        progress: whether to show progress bars.
        systems: ``simple`` or ``all``.

    Raises:
        ValueError: for other ``systems``.
    """
    from tfmmrank.evaluation.bm25 import BM25

    if systems not in SYSTEMS:
        raise ValueError(f'baselines: systems is "{systems}"; expected one of {", ".join(SYSTEMS)}')
    found: list[Baseline] = [Random(seed).fit(data, split)]
    bm25 = None
    slots = [name for name, width in data.slot_columns.items() if width == 1]
    if len(data.catalogue) or any(name in slots for name in POPULARITY_COLUMNS):
        found.append(Popularity().fit(data, split))
    if len(data.catalogue) and "text" in data.item_columns.values() and data.query_columns.get("query") == "text":
        bm25 = BM25().fit(data, split, progress=progress)
        found.append(bm25)
    if ranker is not None or systems == "all":
        made = _of_features(data, ranker, bm25, seed, progress, systems)
        found += [baseline.fit(data, split) for baseline in made]
    found.append(Oracle().fit(data, split))
    return found


def _of_features(data: Any, ranker: Any, bm25: Any, seed: int, progress: bool, systems: str) -> Iterator[Baseline]:
    """The baselines on a ranker's features, which they share; not fitted."""
    from tfmmrank.evaluation.choosing import VALID, can_choose
    from tfmmrank.evaluation.dnn import DNN
    from tfmmrank.evaluation.lambdamart import LambdaMART, load_lightgbm
    from tfmmrank.evaluation.pair_features import PairFeatures
    from tfmmrank.evaluation.zero_shot import ZeroShot

    with warnings.catch_warnings():
        if systems == "simple":
            warnings.simplefilter("ignore")  # of towers that are left out: nothing here would read them
        features = PairFeatures(ranker, data, progress, bm25)
    for match in features.cosines:
        yield ZeroShot(features, match)
    if systems == "simple":
        return
    some = bool(features.match_names or features.columns.names)
    if not (some or features.towers):
        return
    if not can_choose(data):
        warnings.warn(f'baselines leave out LambdaMART and the DNN: no split "{VALID}" to choose by', stacklevel=3)
        return
    try:
        load_lightgbm()
    except ImportError as error:
        warnings.warn(f"baselines leave out LambdaMART: {error}", stacklevel=3)
    else:
        if some:
            yield LambdaMART(features, seed=seed, progress=progress)
        if features.comparable:
            yield LambdaMART(features, embeddings=True, seed=seed, progress=progress)
    yield DNN(features, seed=seed, progress=progress)
