"""Fusion by one learnt weight a modality."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, weighted_sum


@fusions.register("weighted")
class WeightedFusion(PooledFusion):
    """The weighted mean over the modalities present: a softmax of learnt logits, the same for every query."""

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        if not hasattr(self, "logits"):
            self.logits = self.add_weight("logits", [len(names)], initializer="zeros")
        return weighted_sum(vectors, present, self.logits)
