"""Fusion by one learnt weight a modality."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, weighted_sum


@fusions.register("weighted")
class WeightedFusion(PooledFusion):
    """The weighted mean over the modalities present: a softmax of learnt logits, the same for every query."""

    _names: list[str] | None = None

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        if self._names is None:
            self._names = list(names)
            self.logits = self.add_weight("logits", [len(names)], initializer="zeros")
        return weighted_sum(vectors, present, self.logits)

    @property
    def weights_by_modality(self) -> dict[str, float]:
        """The learnt weights when all modalities are present; ValueError before the first call."""
        if self._names is None:
            raise ValueError("the fusion has not been called yet")
        exp = np.exp(self.logits.numpy() - self.logits.numpy().max())
        return dict(zip(self._names, (exp / exp.sum()).tolist(), strict=True))
