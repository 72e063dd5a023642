"""Fusion by the smallest."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, mask_absent
from tfmmrank.stack import tf


@fusions.register("min")
class MinFusion(PooledFusion):
    """Component by component the smallest value among the modalities present; 0 where none is."""

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        return mask_absent(tf.reduce_min(mask_absent(vectors, present, 1e9), -2), tf.reduce_any(present, -1))
