"""Lists to batches: B lists × L slots and the distinct items among them, as a ``tf.data.Dataset``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfmmrank.data.feature_store import item_features
from tfmmrank.stack import tf

LABEL_PADDING = -1.0
_QUERIES = 256  # preprocessed at once: what a pretrained encoder makes of all might not fit in memory


class ListBatches:
    """Assembles batches of one split for one model.

    Epoch e's order and sampling depend on (seed, e) alone, so that training can resume in the middle.

    Args:
        prepared: a ``Prepared`` dataset.
        split: name of the split.
        model: a ``Ranker``: its towers decide which features there are.
        batch_size: B, lists a batch.
        list_size: L, slots a list; default: the split's longest list. A longer list is sampled anew every epoch when
            shuffling; otherwise it is an error, because a list cut short would be evaluated wrongly.
        shuffle: whether to shuffle the lists every epoch.
        seed: seeds shuffling and sampling.
        static: whether every batch has the same shapes (the last one padded with empty lists, items padded to
            min(B·L, catalogue)), as XLA and TPUs need; default: as ``shuffle``.
        progress: whether preprocessing shows a progress bar.

    Raises:
        ValueError: for an unknown split, a column that the dataset lacks, or a list longer than ``list_size`` when not
            shuffling.
    """

    def __init__(
        self,
        prepared: Any,
        split: str,
        model: Any,
        batch_size: int = 32,
        list_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        static: bool | None = None,
        progress: bool = True,
    ) -> None:
        model.columns_in(prepared)
        self.lists = prepared.lists(split)
        self.lengths = np.diff(self.lists.offsets)
        if len(self.lists) == 0:
            raise ValueError(f'{prepared.path}: split "{split}" has no lists')
        longest = int(self.lengths.max())
        self.list_size = min(list_size, longest) if list_size and not shuffle else (list_size or longest)
        if longest > self.list_size and not shuffle:
            raise ValueError(
                f'{prepared.path}: split "{split}" has a list of {longest} items and list_size is {list_size}; '
                "leave list_size out when not shuffling"
            )
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.static = shuffle if static is None else static
        self.num_items = len(prepared.catalogue) if prepared.catalogue is not None else 0
        self.item_limit = max(1, min(batch_size * self.list_size, self.num_items))
        self.query = _in_parts(model.preprocess_query, {c: self.lists.queries[c] for c in prepared.query_columns})
        self.slot = _numpy(model.preprocess_slots(_tensors(self.lists.slots, prepared.slot_columns)))
        self.item = {
            f"item/{tower.name}/{name}": array
            for tower in model.side("item")
            for name, array in item_features(prepared, tower, progress).items()
        }

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.lists) // self.batch_size)

    def epoch(
        self, epoch: int, skip: int = 0, multiple_of: int = 1
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        """The batches of one epoch from number ``skip`` on: (features, labels [B, L], weights [B, L]).

        Batches without a list make their number a multiple of ``multiple_of``, the number of replicas.
        """
        order = np.arange(len(self.lists))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        for number in range(skip, -(-len(self) // multiple_of) * multiple_of):
            yield self.batch(order[number * self.batch_size : (number + 1) * self.batch_size], epoch)

    def batch(self, which: np.ndarray, epoch: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """One batch of the lists numbered ``which``."""
        places, slot_mask = self._places(which, epoch)
        rows = np.where(slot_mask, self.lists.item_rows[places], -1)
        distinct = np.unique(rows[rows >= 0])
        item_index = np.searchsorted(distinct, rows).clip(0, max(0, len(distinct) - 1)).astype(np.int32)
        size = self.item_limit if self.static else max(1, len(distinct))
        features: dict[str, np.ndarray] = {"item_index": item_index, "slot_mask": slot_mask}
        for name, array in self.item.items():
            features[name] = _padded(array[distinct], size)
        for name, array in self.query.items():
            features[name] = _padded(array[which], len(slot_mask))
        for name, array in self.slot.items():
            features[name] = np.where(_spread(slot_mask, array.ndim + 1), array[places], array.dtype.type(0))
        labels = np.where(slot_mask, self.lists.labels[places], LABEL_PADDING).astype(np.float32)
        weights = np.where(slot_mask, self.lists.weights[places], 0.0).astype(np.float32)
        return features, labels, weights

    def _places(self, which: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each slot's values stand in the flat arrays, int64 ``[B, L]``, and which slots are real."""
        lists = self.batch_size if self.static else len(which)
        places = np.zeros((lists, self.list_size), np.int64)
        mask = np.zeros((lists, self.list_size), bool)
        for b, number in enumerate(which):
            chosen = np.arange(self.lists.offsets[number], self.lists.offsets[number + 1])
            if len(chosen) > self.list_size:
                rng = np.random.default_rng([self.seed, epoch, int(number)])
                chosen = np.sort(rng.choice(chosen, self.list_size, replace=False))
            places[b, : len(chosen)] = chosen
            mask[b, : len(chosen)] = True
        return places, mask

    def dataset(self, initial_epoch: int = 0, skip: int = 0, multiple_of: int = 1) -> Any:
        """A ``tf.data.Dataset`` that gives one epoch each time it is iterated, from ``initial_epoch`` on.

        Args:
            initial_epoch: the first iteration's epoch.
            skip: batches to leave out of the first iteration.
            multiple_of: see ``epoch``; needs static shapes.
        """
        state = {"epoch": initial_epoch, "skip": skip}

        def one_epoch() -> Iterator[Any]:
            epoch, first = state["epoch"], state["skip"]
            state.update(epoch=epoch + 1, skip=0)
            yield from self.epoch(epoch, first, multiple_of)

        example = self.batch(np.arange(min(self.batch_size, len(self.lists))))
        signature = tf.nest.map_structure(
            lambda a: tf.TensorSpec(a.shape if self.static else [None, *a.shape[1:]], tf.as_dtype(a.dtype)), example
        )
        dataset = tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
        if skip == 0 and multiple_of == 1:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(self)))
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return dataset.with_options(options).prefetch(2)


def make_dataset(prepared: Any, split: str, model: Any, **options: Any) -> Any:
    """``ListBatches(...).dataset()``: what ``Prepared.dataset`` returns.

    Raises:
        ValueError: under a strategy of several replicas: Keras would cut a batch's distinct items along with its lists.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError(
            "dataset() is for one replica; under a strategy of several train with tfmmrank.fit, which gives each "
            "replica whole batches, and predict or evaluate outside of the strategy's scope"
        )
    return ListBatches(prepared, split, model, **options).dataset()


def _in_parts(preprocess: Callable[[Any], dict[str, Any]], raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Raw columns ``[n]`` to features ``[n, ...]``, some rows at a time."""
    count = max((len(values) for values in raw.values()), default=0)
    parts = [
        _numpy(preprocess({name: tf.constant(values[start : start + _QUERIES]) for name, values in raw.items()}))
        for start in range(0, max(count, 1), _QUERIES)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tensors(raw: Mapping[str, np.ndarray], columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tf.constant(raw[name]) for name in columns}


def _numpy(features: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in features.items()}


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """The array with zeros appended up to ``size`` rows."""
    if len(array) == size:
        return np.ascontiguousarray(array)
    out = np.zeros((size, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def _spread(mask: np.ndarray, ndim: int) -> np.ndarray:
    """A ``[B, L]`` mask with axes of size 1 appended."""
    return mask.reshape(*mask.shape, *[1] * (ndim - mask.ndim))
