"""Fusion by weights that the query chooses."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import PooledFusion, weighted_sum
from tfmmrank.stack import keras, tf


@fusions.register("gated")
class GatedFusion(PooledFusion):
    """The weighted mean over the modalities present: a softmax of logits that a Dense layer reads off the query.

    "red dress" may trust the picture where "iphone 15 case" trusts the title. Without a query tower the weights are
    learnt constants. (A mixture of experts' gate: Jacobs et al., 1991.)
    """

    def build(self, input_shape: Any = None) -> None:
        """The gate is made when the number of modalities is known."""
        self._gate: Any = None
        super().build(input_shape)

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """See ``PooledFusion``."""
        if self._gate is None:
            self._gate = keras.layers.Dense(len(names), kernel_initializer="zeros", name="gate")
        if query is None:
            query = tf.zeros([tf.shape(vectors)[0], 1], vectors.dtype)
        return weighted_sum(vectors, present, self._gate(query)[:, None, :])
