"""Normalisers for numbers: learnt with numpy, applied with graph ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmmrank.stack import tf

NORMALIZERS = ("quantile", "log", "standard")
_KNOTS = 65


def learn_normalizer(values: np.ndarray, kind: str) -> dict[str, Any]:
    """What is needed to normalise a column.

    Args:
        values: float ``[n]``; NaN is missing.
        kind: one of ``NORMALIZERS``.

    Returns:
        ``{"kind": "quantile", "knots": [...], "heights": [...]}`` or ``{"kind", "mean", "std"}``. A column of one value,
        or none, is normalised to 0.
    """
    values = values[np.isfinite(values)].astype(np.float64)
    if kind == "quantile":
        if len(values) == 0:
            return {"kind": kind, "knots": [0.0], "heights": [0.0]}
        levels = np.linspace(0, 1, _KNOTS)
        quantiles = np.quantile(values, levels).astype(np.float32)
        knots = np.unique(quantiles)
        # Equal quantiles (many zeros, say) stand at the middle of their levels.
        heights = [2 * float(levels[quantiles == knot].mean()) - 1 for knot in knots]
        return {"kind": kind, "knots": knots.tolist(), "heights": heights if len(knots) > 1 else [0.0]}
    scaled = _signed_log(values) if kind == "log" else values
    mean = float(scaled.mean()) if len(scaled) else 0.0
    std = float(scaled.std()) if len(scaled) else 0.0
    return {"kind": kind, "mean": mean, "std": std if std > 1e-8 else 1.0}


def _signed_log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def normalize(values: Any, learnt: dict[str, Any]) -> Any:
    """Applies a learnt normaliser to float32 ``[n]``; outside the learnt range it is constant (quantile) or linear."""
    if learnt["kind"] == "quantile":
        return _interpolate(values, learnt["knots"], learnt["heights"])
    if learnt["kind"] == "log":
        values = tf.sign(values) * tf.math.log1p(tf.abs(values))
    return (values - learnt["mean"]) / learnt["std"]


def _interpolate(values: Any, knots: list[float], heights: list[float]) -> Any:
    """``numpy.interp`` in graph ops."""
    if len(knots) == 1:
        return tf.fill(tf.shape(values), float(heights[0]))
    x, y = tf.constant(knots, tf.float32), tf.constant(heights, tf.float32)
    right = tf.clip_by_value(tf.searchsorted(x, values, side="right"), 1, len(knots) - 1)
    x0, x1 = tf.gather(x, right - 1), tf.gather(x, right)
    y0, y1 = tf.gather(y, right - 1), tf.gather(y, right)
    share = tf.clip_by_value((values - x0) / (x1 - x0), 0.0, 1.0)
    return y0 + share * (y1 - y0)
