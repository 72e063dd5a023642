"""Pairs of lists as a network's inputs: numbers on one scale, vectors gathered batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfmmrank import stack
from tfmmrank.evaluation.pair_features import Vectors

_MOST_INDICATED = 32  # categories with an input of their own


class Scale:
    """Numbers onto one scale, and categories to indicators, as the training pairs have them."""

    def learn(self, numbers: np.ndarray, categorical: np.ndarray) -> Scale:
        """From the training pairs' columns ``[R, F]`` and which of them hold categories ``[F]``."""
        self.categorical = categorical
        plain = _log(numbers[:, ~categorical])
        there = np.isfinite(plain)
        count = np.maximum(there.sum(0), 1)
        self.mean = np.where(there, plain, 0).sum(0, dtype=np.float64) / count
        deviation = np.sqrt((np.where(there, plain - self.mean, 0) ** 2).sum(0, dtype=np.float64) / count)
        self.deviation = np.where(deviation > 1e-6, deviation, 1.0)
        codes = numbers[:, categorical]
        self.indicated = [np.unique(column[column < _MOST_INDICATED]) for column in codes.T]
        return self

    def apply(self, numbers: np.ndarray) -> np.ndarray:
        """Columns ``[R, F]`` to float32 ``[R, F']``."""
        plain = (_log(numbers[:, ~self.categorical]) - self.mean) / self.deviation
        parts = [np.nan_to_num(plain)]
        for column, codes in zip(numbers[:, self.categorical].T, self.indicated, strict=True):
            parts.append(column[:, None] == codes)
        return np.concatenate(parts, 1).astype(np.float32)


def _log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


class Inputs:
    """What the network reads of a split, list by list.

    Args:
        lists: the lists.
        numbers: float32 ``[R, F]``.
        vectors: of query and item, by tower.
    """

    def __init__(self, lists: Any, numbers: np.ndarray, vectors: dict[str, Vectors]) -> None:
        self.lists, self.numbers, self.vectors = lists, numbers, vectors
        self.lengths = np.diff(lists.offsets)
        self.weighted = bool((lists.weights != 1).any())

    @property
    def widths(self) -> dict[str, int]:
        """Widths of the inputs."""
        found = {name: vectors.values.shape[1] for name, vectors in self.vectors.items()}
        return {**({"numbers": self.numbers.shape[1]} if self.numbers.shape[1] else {}), **found}

    def epoch(self, batch_size: int, list_size: int, seed: int, epoch: int) -> Any:
        """A ``tf.data.Dataset`` of one epoch: inputs, labels and weights, lists shuffled and long ones sampled."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self.lists))
        size = min(list_size, int(self.lengths.max()))
        starts = range(0, len(order), batch_size)

        def batches() -> Iterator[Any]:
            for start in starts:
                places, mask = self._places(order[start : start + batch_size], size, rng)
                labels = np.where(mask, self.lists.labels[places], -1.0).astype(np.float32)
                weights = np.where(mask, self.lists.weights[places], 0.0).astype(np.float32)
                yield (self._gather(places, mask), labels, weights) if self.weighted else (
                    self._gather(places, mask), labels,
                )  # fmt: skip

        tf = stack.tf
        listwise = tf.TensorSpec([None, size], tf.float32)
        signature = {name: tf.TensorSpec([None, size, width], tf.float32) for name, width in self.widths.items()}
        signature["mask"] = tf.TensorSpec([None, size], tf.bool)
        outputs = (signature, listwise, listwise) if self.weighted else (signature, listwise)
        dataset = tf.data.Dataset.from_generator(batches, output_signature=outputs)
        return dataset.apply(tf.data.experimental.assert_cardinality(len(starts))).prefetch(2)

    def score(self, network: Any, cells: int = 8192) -> np.ndarray:
        """Scores of all pairs, float32 ``[R]``; pairs do not depend on each other, so they go as lists of one."""
        found = []
        for start in range(0, len(self.numbers), cells):
            places = np.arange(start, min(start + cells, len(self.numbers)))[:, None]
            inputs = self._gather(places, np.ones(places.shape, bool))
            found.append(network.predict_on_batch(inputs)[:, 0])
        return np.concatenate(found)

    def _places(self, which: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Where the pairs of the lists numbered ``which`` stand, int64 ``[B, size]``, and which slots are real."""
        places, mask = np.zeros((len(which), size), np.int64), np.zeros((len(which), size), bool)
        for row, number in enumerate(which):
            chosen = np.arange(self.lists.offsets[number], self.lists.offsets[number + 1])
            if len(chosen) > size:
                chosen = rng.choice(chosen, size, replace=False)
            places[row, : len(chosen)], mask[row, : len(chosen)] = chosen, True
        return places, mask

    def _gather(self, places: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {"mask": mask}
        if self.numbers.shape[1]:
            found["numbers"] = self.numbers[places]
        for name, vectors in self.vectors.items():
            found[name] = vectors.values[vectors.places[places]].astype(np.float32)
        return found
