"""Fusion by the greatest."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, mask_absent
from tfmmrank.stack import tf


@fusions.register("max")
class MaxFusion(PooledFusion):
    """Component by component the greatest value among the modalities present; 0 where none is."""

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        return mask_absent(tf.reduce_max(mask_absent(vectors, present, -1e9), -2), tf.reduce_any(present, -1))
