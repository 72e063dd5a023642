"""Fusion by summing."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, mask_absent
from tfmmrank.stack import tf


@fusions.register("sum")
class SumFusion(PooledFusion):
    """The sum over the modalities present."""

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        return tf.reduce_sum(mask_absent(vectors, present), -2)
