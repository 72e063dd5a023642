"""Fusion by averaging."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, masked_mean
from tfmmrank.tokens import Tokens


@fusions.register("mean")
class MeanFusion(PooledFusion):
    """The mean over the modalities present."""

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        return masked_mean(Tokens(vectors, present))[0]
