"""All of a ranker's matches, on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmmrank.matching.base import Match
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens

_FARTHEST = 10.0  # standard deviations: what one wild value may weigh
_STEADY = 1e-3  # a deviation below it is as good as none: scaled up, rounding would be told apart, and skew serving


class MatchFeatures(keras.layers.Layer):
    """Match features of (query, item) pairs, brought to mean 0 and deviation 1 over the training pairs.

    Args:
        matches: what to compare.
    """

    def __init__(self, matches: Sequence[Match], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.matches = list(matches)
        self.names = [f"{match.name}/{feature}" for match in self.matches for feature in match.features]

    def build(self, input_shape: Any = None) -> None:
        """Makes the scale's weights."""
        self.mean = self.add_weight("mean", (len(self.names),), initializer="zeros", trainable=False)
        self.deviation = self.add_weight("deviation", (len(self.names),), initializer="ones", trainable=False)
        super().build(input_shape)

    def raw(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens]) -> Any:
        """Match tokens by tower to features ``[B, L, M]`` as they come."""
        return tf.concat([match(query[match.query], item[match.item]) for match in self.matches], -1)

    def call(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens]) -> Any:
        """Match tokens by tower, query ``[B, Q, w]``, item ``[B, L, T, w]``, to features ``[B, L, M]``."""
        scaled = (self.raw(query, item) - self.mean) / self.deviation
        return tf.clip_by_value(scaled, -_FARTHEST, _FARTHEST)

    def adapt(self, batches: Iterable[np.ndarray]) -> None:
        """Learns the scale from raw features ``[n, M]``, read once."""
        count, total, square = 0, np.zeros(len(self.names)), np.zeros(len(self.names))
        for batch in batches:
            values = np.asarray(batch, np.float64)
            count, total, square = count + len(values), total + values.sum(0), square + (values**2).sum(0)
        mean = total / max(1, count)
        deviation = np.sqrt(np.maximum(square / max(1, count) - mean**2, 0))
        self.mean.assign(mean)
        self.deviation.assign(np.where(deviation > _STEADY, deviation, 1.0))
