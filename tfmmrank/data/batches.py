"""Lists to batches: B lists × L slots and the distinct items among them, as a ``tf.data.Dataset``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data.feature_rows import FeatureRows
from tfmmrank.data.feature_store import item_rows
from tfmmrank.data.gather import gathered
from tfmmrank.data.item_sizes import few_sizes, fitting
from tfmmrank.stack import tf

LABEL_PADDING = -1.0
_COUNTED = 256  # batches whose distinct items are counted ahead
_WORKERS = 2  # batches assembled at once, while others are computed with
_SAMPLED = 256  # items, about, whose features stand for all
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
        static: whether batches are of few shapes, as XLA, TPUs and GPUs' choice of kernels want: B lists (the last
            batch is padded with empty ones) and one of the numbers of items in ``item_sizes``; default: as ``shuffle``.
            False: as many lists and items as there are.
        epochs: of how many epochs the batches are counted ahead, so that all are of one shape, as several replicas
            want; None: of a part of the first.
        progress: whether preprocessing and counting show progress bars.

    Attributes:
        item_sizes: what the distinct items of a batch are padded to: the smallest that has room. Learnt from the
            batches of the first epoch, the last holds whatever any other epoch brings; with ``epochs`` there is one.

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
        epochs: int | None = None,
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
        self._known_order: tuple[int, np.ndarray] = -1, np.arange(0)
        num_items = len(prepared.catalogue) if prepared.catalogue is not None else 0
        limit = max(1, min(batch_size * self.list_size, num_items))
        self.item_sizes = self._item_sizes(limit, epochs, progress) if self.static else []
        self.query = _in_parts(model.preprocess_query, {c: self.lists.queries[c] for c in prepared.query_columns})
        self.slot = _numpy(model.preprocess_slots(_tensors(self.lists.slots, prepared.slot_columns)))
        self.item: dict[str, np.ndarray] = {}
        self._made_of: list[tuple[Any, FeatureRows]] = []
        for tower in model.side("item"):
            rows = item_rows(prepared, tower, progress)
            self.item.update({f"item/{tower.name}/{name}": array for name, array in rows.features.items()})
            self._made_of.append((tower, rows))

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.lists) // self.batch_size)

    def epoch(
        self, epoch: int, skip: int = 0, multiple_of: int = 1
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        """The batches of one epoch from number ``skip`` on: (features, labels [B, L], weights [B, L]).

        Batches without a list make their number a multiple of ``multiple_of``, the number of replicas.
        """
        for number in range(skip, self._rounded(multiple_of)):
            yield self.at(epoch, number)

    def at(self, epoch: int, number: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """One batch of an epoch; past the last one, a batch without a list."""
        return self.batch(self._which(epoch, number), epoch)

    def batch(self, which: np.ndarray, epoch: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """One batch of the lists numbered ``which``."""
        places, slot_mask = self._places(which, epoch)
        rows = np.where(slot_mask, self.lists.item_rows[places], -1)
        distinct = np.unique(rows[rows >= 0])
        item_index = np.searchsorted(distinct, rows).clip(0, max(0, len(distinct) - 1)).astype(np.int32)
        size = fitting(len(distinct), self.item_sizes) if self.static else max(1, len(distinct))
        features: dict[str, np.ndarray] = {"item_index": item_index, "slot_mask": slot_mask}
        for name, array in self.item.items():
            features[name] = gathered(array, distinct, size)
        for name, array in self.query.items():
            features[name] = gathered(array, which, len(slot_mask))
        for name, array in self.slot.items():
            features[name] = np.where(_spread(slot_mask, array.ndim + 1), array[places], array.dtype.type(0))
        labels = np.where(slot_mask, self.lists.labels[places], LABEL_PADDING).astype(np.float32)
        weights = np.where(slot_mask, self.lists.weights[places], 0.0).astype(np.float32)
        return features, labels, weights

    def state(self) -> Iterator[bytes]:
        """What tells this split's batches from others, in parts: their numbers, and what items' features are made of.

        Of the features themselves some are read, in case that the code has changed that makes them: all may be more
        than memory holds.
        """
        lists = self.lists
        for array in (
            lists.offsets, lists.item_rows, lists.labels, lists.weights, *self.query.values(), *self.slot.values()
        ):  # fmt: skip
            yield array.tobytes()
        items = np.unique(lists.item_rows)
        items = items[items >= 0]
        for tower, rows in self._made_of:
            yield tower.embed_state()
            yield rows.digests[items].tobytes()
            for array in rows.features.values():
                yield array[items[:: max(1, len(items) // _SAMPLED)]].tobytes()

    def _rounded(self, multiple_of: int) -> int:
        """Batches an epoch, with those that make them a multiple."""
        return -(-len(self) // multiple_of) * multiple_of

    def _which(self, epoch: int, number: int) -> np.ndarray:
        """The lists of an epoch's batch."""
        return self._order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]

    def _order(self, epoch: int) -> np.ndarray:
        """The lists in an epoch's order; the last epoch's is remembered."""
        known, order = self._known_order
        if known != epoch:
            order = np.arange(len(self.lists))
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch]).permutation(order)
            self._known_order = epoch, order
        return order

    def _item_sizes(self, limit: int, epochs: int | None, progress: bool) -> list[int]:
        numbers = np.unique(np.linspace(0, len(self) - 1, _COUNTED).astype(int))
        sizes = few_sizes((self._count(0, number) for number in numbers), limit)
        if epochs is None:
            return sizes
        everything = ((epoch, number) for epoch in range(epochs if self.shuffle else 1) for number in range(len(self)))
        total = len(self) * (epochs if self.shuffle else 1)
        with tqdm(everything, "count items", total, unit="batch", disable=not progress, leave=False) as bar:
            return [fitting(max(self._count(*at) for at in bar), sizes)]

    def _count(self, epoch: int, number: int) -> int:
        """Number of distinct items of a batch."""
        places, slot_mask = self._places(self._which(epoch, number), epoch)
        rows = np.unique(self.lists.item_rows[places[slot_mask]])
        return int((rows >= 0).sum())

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

        def next_epoch() -> Iterator[tuple[int, int]]:
            epoch, first = state["epoch"], state["skip"]
            state.update(epoch=epoch + 1, skip=0)
            yield epoch, first

        signature = self._signature()
        specs = tf.nest.flatten(signature)

        def assemble(epoch: Any, number: Any) -> Any:
            flat = tf.numpy_function(
                lambda *at: tf.nest.flatten(self.at(*map(int, at))),
                [epoch, number],
                [spec.dtype for spec in specs],
            )
            return tf.nest.pack_sequence_as(
                signature, [tf.ensure_shape(part, spec.shape) for part, spec in zip(flat, specs, strict=True)]
            )

        # A generator of epochs alone: it would make batches one after another, and each with more ado.
        epochs = tf.data.Dataset.from_generator(next_epoch, output_signature=(tf.TensorSpec([], tf.int64),) * 2)
        last = self._rounded(multiple_of)
        numbers = epochs.flat_map(
            lambda epoch, first: tf.data.Dataset.range(first, last).map(lambda number: (epoch, number))
        )
        dataset = numbers.map(assemble, num_parallel_calls=_WORKERS, deterministic=True)
        if skip == 0 and multiple_of == 1:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(self)))
        options = tf.data.Options()
        options.autotune.enabled = False  # there is nothing to tune, and watching takes time
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return dataset.with_options(options).prefetch(2)

    def _signature(self) -> Any:
        """The batches' types, and their shapes as far as all have the same."""
        features, *others = self.at(0, 0)

        def spec(array: np.ndarray, fixed: bool) -> Any:
            return tf.TensorSpec(array.shape if fixed else [None, *array.shape[1:]], tf.as_dtype(array.dtype))

        one_size = len(self.item_sizes) == 1
        of_features = {
            name: spec(array, self.static and (one_size or name not in self.item)) for name, array in features.items()
        }
        return of_features, *(spec(array, self.static) for array in others)


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


def _spread(mask: np.ndarray, ndim: int) -> np.ndarray:
    """A ``[B, L]`` mask with axes of size 1 appended."""
    return mask.reshape(*mask.shape, *[1] * (ndim - mask.ndim))
