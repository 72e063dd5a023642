"""Numbers onto one scale: normalisers learnt from data, applied as graph ops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmmrank.stack import tf

METHODS = ("quantile", "log", "standard")
KNOTS = 64
_FARTHEST = 10.0  # standard deviations: what one wild value may weigh
_SAMPLE = 200_000  # values kept a feature: the error of a quantile is then near 0.1 %


class Sample:
    """An even sample of a stream: every k-th value, k doubling whenever the sample is full."""

    def __init__(self, room: int = _SAMPLE) -> None:
        self.room = room
        self._kept: list[np.ndarray] = []
        self._size = self._skip = 0
        self._stride = 1

    def add(self, values: np.ndarray) -> None:
        """Adds finite values ``[n]``."""
        taken = values[self._skip :: self._stride]
        self._skip = (self._skip - len(values)) % self._stride
        self._kept.append(np.array(taken, np.float64))
        self._size += len(taken)
        while self._size > self.room:
            whole = self.values()
            # The next value kept follows the last one at the doubled stride.
            self._skip += self._stride if len(whole) % 2 else 0
            self._kept, self._stride = [whole[::2]], self._stride * 2
            self._size = len(self._kept[0])

    def values(self) -> np.ndarray:
        """The sample, float64 ``[m]``."""
        return np.concatenate(self._kept) if self._kept else np.zeros(0)


def learn(method: str, samples: list[np.ndarray]) -> dict[str, Any]:
    """What a normaliser must know of features, as JSON values.

    Args:
        method: one of ``METHODS``.
        samples: the finite values of each of F features.

    Returns:
        For ``quantile``: ``knots`` and ``levels``, F x KNOTS: a piecewise linear map of values to their quantile, from
        -1 to 1. Otherwise ``mean`` and ``scale``, F each, of the values (``standard``) or of
        ``sign(x) log(1 + |x|)`` (``log``).
    """
    if method == "quantile":
        pairs = [_quantiles(values) for values in samples]
        return {"knots": [knots for knots, _ in pairs], "levels": [levels for _, levels in pairs]}
    if method == "log":
        samples = [np.sign(values) * np.log1p(np.abs(values)) for values in samples]
    means = [float(values.mean()) if len(values) else 0.0 for values in samples]
    scales = [float(values.std()) if len(values) else 0.0 for values in samples]
    return {"mean": means, "scale": [scale if scale > 0 else 1.0 for scale in scales]}


def _quantiles(values: np.ndarray) -> tuple[list[float], list[float]]:
    if not len(values):
        return [0.0] * KNOTS, [0.0] * KNOTS
    at = np.linspace(0.0, 1.0, KNOTS)
    # float32 already here: knots that differ only in float64 would divide by zero in the graph
    knots, place = np.unique(np.quantile(values, at).astype(np.float32), return_inverse=True)
    levels = np.bincount(place, weights=2 * at - 1) / np.bincount(place)  # a frequent value lies mid its quantiles
    short = KNOTS - len(knots)
    return np.pad(knots, (0, short), "edge").tolist(), np.pad(levels, (0, short), "edge").tolist()


def apply(method: str, learnt: Mapping[str, Any], values: Any) -> Any:
    """Normalises finite float32 values ``[n, F]``, clipping what is far outside the values learnt from."""
    if method == "quantile":
        knots, levels = tf.constant(learnt["knots"], tf.float32), tf.constant(learnt["levels"], tf.float32)
        return _apply_quantiles(knots, levels, values)
    if method == "log":
        values = tf.sign(values) * tf.math.log1p(tf.abs(values))
    mean, scale = tf.constant(learnt["mean"], tf.float32), tf.constant(learnt["scale"], tf.float32)
    return tf.clip_by_value((values - mean) / scale, -_FARTHEST, _FARTHEST)


def _apply_quantiles(knots: Any, levels: Any, values: Any) -> Any:
    columns = tf.transpose(values)
    right = tf.clip_by_value(tf.searchsorted(knots, columns, side="right"), 1, KNOTS - 1)
    x0, x1 = tf.gather(knots, right - 1, batch_dims=1), tf.gather(knots, right, batch_dims=1)
    y0, y1 = tf.gather(levels, right - 1, batch_dims=1), tf.gather(levels, right, batch_dims=1)
    share = tf.clip_by_value(tf.math.divide_no_nan(columns - x0, x1 - x0), 0.0, 1.0)
    return tf.transpose(y0 + share * (y1 - y0))
