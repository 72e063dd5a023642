"""Fusion by concatenation."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, mask_absent
from tfmmrank.stack import keras, tf


@fusions.register("concat")
class ConcatFusion(PooledFusion):
    """Dense over all modalities' vectors side by side, and which of them are present."""

    def build(self, input_shape: Any = None) -> None:
        """Makes the projection."""
        self._project = keras.layers.Dense(self.dim, "gelu", name="project")
        super().build(input_shape)

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        shape = tf.shape(vectors)
        flat = tf.reshape(mask_absent(vectors, present), [shape[0], shape[1], len(names) * self.dim])
        return self._project(tf.concat([flat, tf.cast(present, flat.dtype)], -1))
