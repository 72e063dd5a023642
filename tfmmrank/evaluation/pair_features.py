"""What a ranker's frozen parts and its dataset tell of (query, item) pairs, as arrays for other learners."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tfmmrank import stack
from tfmmrank.evaluation.pair_columns import PairColumns

_TARGET_CELLS = 4096  # (query, item) pairs compared at once
_ENCODED = 256  # queries or items at once


class Vectors(NamedTuple):
    """Vectors of the distinct queries or items of some pairs.

    Attributes:
        values: float16 ``[n, w]``; zeros where the text or picture is missing.
        present: bool ``[n]``.
        places: int64 ``[R]``: the place in ``values`` of each pair's vector.
    """

    values: np.ndarray
    present: np.ndarray
    places: np.ndarray


class PairFeatures:
    """Match features, frozen encoders' vectors and raw columns of a dataset's pairs, each computed once.

    What the model itself reads: matches and vectors made by the same towers, columns as they are in the dataset. Only
    what training leaves as it is: a tower whose encoder is trained is left out, with a warning, because what it gives
    is the model's own learning, not a pretrained encoder's.

    Kept in memory: 4 bytes a pair and match feature or column, and 2 bytes a number of the vectors of each distinct
    item of the lists (100,000 items by MiniLM and EfficientNet: 0.33 GB); not the whole catalogue's.

    Args:
        ranker: an adapted ``Ranker``, trained or not; None: raw columns only.
        data: a ``Prepared`` dataset.
        progress: whether to show progress bars.
        bm25: a fitted ``BM25``: its score is a match feature, the last, where the ranker has no lexical match; who
            learns to rank by features today has that one.

    Attributes:
        columns: the raw columns.
        match_names: names of the match features.
        cosines: names of the ``cosine`` matches.
        towers: names of the towers that have vectors, queries' first.
    """

    def __init__(self, ranker: Any, data: Any, progress: bool = False, bm25: Any = None) -> None:
        self.ranker, self.data, self.progress = ranker, data, progress
        self.columns = PairColumns(data)
        self.match_names: list[str] = []
        self.cosines: list[str] = []
        self._kept: list[int] = []  # places of the match features that stay
        self._towers: dict[str, Any] = {}
        if ranker is not None:
            self._look_at(ranker)
        self._bm25 = bm25 if not any(name.endswith("/bm25") for name in self.match_names) else None
        if self._bm25 is not None:
            self.match_names.append("bm25")
        self.towers = sorted(self._towers, key=lambda name: self._towers[name].side != "query")
        self._columns: dict[str, np.ndarray] = {}
        self._matches: dict[str, np.ndarray] = {}
        self._queries: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._items: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._rows: np.ndarray | None = None

    def _look_at(self, ranker: Any) -> None:
        from tfmmrank.matching import CosineMatch
        from tfmmrank.towers.pretrained import PretrainedTower

        ranker.columns_in(self.data)
        frozen = {tower.name for tower in ranker.towers if _is_frozen(tower)}
        trained = [t.name for t in ranker.towers if isinstance(t, PretrainedTower) and t.name not in frozen]
        if trained:
            warnings.warn(
                f"baselines leave out the towers {', '.join(trained)}, whose encoders are trained with the model",
                stacklevel=3,
            )
        for tower in ranker.towers:
            if isinstance(tower, PretrainedTower) and tower.name in frozen and tower.output_kind != "tokens":
                self._towers[tower.name] = tower
        names = ranker.matching.names if ranker.matching is not None else []
        for match in ranker.matching.matches if ranker.matching is not None else []:
            if {match.query, match.item} <= frozen:
                self.match_names += [f"{match.name}/{feature}" for feature in match.features]
                if isinstance(match, CosineMatch):
                    self.cosines.append(match.name)
        self._kept = [names.index(name) for name in self.match_names]

    @property
    def comparable(self) -> bool:
        """Whether there are vectors of queries and of items: those of one side alone tell nothing of a pair."""
        return {tower.side for tower in self._towers.values()} == {"query", "item"}

    def check(self, data: Any) -> None:
        """Raises ValueError when a dataset is not the one that the features are of."""
        if data is not self.data and (data.path, data.build) != (self.data.path, self.data.build):
            raise ValueError(f"the features are of dataset {self.data.path}, and {data.path} was given; make new ones")

    def of_columns(self, split: str) -> np.ndarray:
        """Raw columns of a split's pairs, float32 ``[R, F]``, as ``columns.names`` names them; NaN where missing."""
        if split not in self._columns:
            self._columns[split] = self.columns.of(split)
        return self._columns[split]

    def of_matches(self, split: str) -> np.ndarray:
        """Match features of a split's pairs as they come, float32 ``[R, M]``, as ``match_names`` names them."""
        if split not in self._matches:
            rows = len(self.data.lists(split).item_rows)
            found = self._compare(split) if self._kept else np.empty((rows, 0), np.float32)
            if self._bm25 is not None:
                found = np.column_stack([found, np.concatenate(self._bm25.scores(self.data, split))])
            self._matches[split] = found
        return self._matches[split]

    def _compare(self, split: str) -> np.ndarray:
        longest = int(np.diff(self.data.lists(split).offsets).max())
        size = int(np.clip(_TARGET_CELLS // longest, 1, 64))
        batches = self.data.dataset(split, self.ranker, batch_size=size, static=True, progress=self.progress)
        compare = stack.tf.function(self.ranker.match_features, autograph=False)
        found = [
            compare(batch).numpy()[batch["slot_mask"].numpy()][:, self._kept]
            for batch, _, _ in tqdm(batches, f"match {split}", unit="batch", disable=not self.progress, leave=False)
        ]
        return np.concatenate(found)

    def vectors(self, tower: str, split: str) -> Vectors:
        """A tower's pooled vectors of a split's pairs."""
        lists, of = self.data.lists(split), self._towers[tower]
        if of.side == "query":
            if (tower, split) not in self._queries:
                self._queries[tower, split] = self._pooled(of, len(lists), _of_queries(of, lists))
            return Vectors(*self._queries[tower, split], np.repeat(np.arange(len(lists)), np.diff(lists.offsets)))
        if self._rows is None:
            self._rows = np.unique(np.concatenate([self.data.lists(name).item_rows for name in self.data.splits]))
        if tower not in self._items:
            self._items[tower] = self._pooled(of, len(self._rows), self._of_items(of, self._rows))
        return Vectors(*self._items[tower], np.searchsorted(self._rows, lists.item_rows))

    def _of_items(self, tower: Any, rows: np.ndarray) -> Iterator[dict[str, Any]]:
        from tfmmrank.data.feature_store import item_features

        features = item_features(self.data, tower, self.progress)
        for start in range(0, len(rows), _ENCODED):
            some = rows[start : start + _ENCODED]
            yield {name: stack.tf.constant(array[some]) for name, array in features.items()}

    def _pooled(self, tower: Any, count: int, batches: Iterable[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """What ``embed`` gave, in batches, to pooled vectors ``[n, w]`` and which are there ``[n]``."""
        values, present = np.zeros((count, tower.match_width), np.float16), np.zeros(count, bool)
        start = 0
        with tqdm(total=count, desc=f"vectors {tower.name}", disable=not self.progress, leave=False) as bar:
            for batch in batches:
                tokens = tower.match_tokens(batch)
                stop = start + len(tokens.mask)
                present[start:stop] = tokens.mask[:, 0]  # of several tokens the pooled one is the first
                values[start:stop] = np.where(present[start:stop, None], tokens.values[:, 0], 0)
                bar.update(stop - start)
                start = stop
        return values, present


def _is_frozen(tower: Any) -> bool:
    """Whether training leaves what a tower offers for matching as it is."""
    from tfmmrank.towers.pretrained import PretrainedTower

    if isinstance(tower, PretrainedTower):
        return tower.encoder.trainable_blocks == 0
    return tower.match_width is not None and not tower.trainable_weights


def _of_queries(tower: Any, lists: Any) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(lists), _ENCODED):
        raw = {name: lists.queries[name][start : start + _ENCODED] for name in tower.columns}
        yield tower.embed(tower.preprocess({name: stack.tf.constant(values) for name, values in raw.items()}))
