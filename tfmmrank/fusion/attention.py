"""Fusion by cross-attention: query tokens look at the item's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.pooled import masked_mean
from tfmmrank.fusion.sequence import SequenceFusion, leading_shape
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens


@fusions.register("attention")
class AttentionFusion(SequenceFusion):
    """Query tokens attend to all of the item's tokens, whatever their modality (Vaswani et al., 2017).

    Each block: multi-head cross-attention, residual, layer norm. The output is a Dense over the mean of what the
    query's tokens gathered, that mean times the query's own mean, and the item's mean. Without a query tower one
    learnt token asks.
    """

    def build(self, input_shape: Any = None) -> None:
        """Makes the blocks."""
        self._attend = [
            keras.layers.MultiHeadAttention(
                self.heads, self.dim // self.heads, dropout=self.dropout, name=f"attend_{i}"
            )
            for i in range(self.blocks)
        ]
        self._norms = [keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{i}") for i in range(self.blocks)]
        self._out = keras.layers.Dense(self.dim, "gelu", name="out")
        # Called with query towers, there is a shape for each, and no learnt token asks.
        asks = not input_shape
        self._ask = self.add_weight("ask", [1, 1, self.dim], initializer="glorot_uniform", trainable=asks)
        super().build(input_shape)

    def call(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], training: bool = False) -> Any:
        """See ``Fusion``."""
        lists, slots = leading_shape(item)
        tokens = self.item_sequence(item)
        asking = self.query_sequence(query, slots)
        if asking is None:
            pairs = tf.shape(tokens.values)[0]
            asking = Tokens(tf.repeat(tf.cast(self._ask, tokens.values.dtype), pairs, 0), tf.fill([pairs, 1], True))
        hidden = asking.values
        # A row without any token would attend to everything alike: let nothing of it through.
        there = tf.cast(tf.reduce_any(tokens.mask, -1), hidden.dtype)[:, None, None]
        for attend, norm in zip(self._attend, self._norms, strict=True):
            seen = attend(hidden, tokens.values, attention_mask=tokens.mask[:, None, :], training=training)
            hidden = norm(hidden + seen * there)
        gathered = masked_mean(Tokens(hidden, asking.mask))[0]
        asked = masked_mean(asking)[0]
        pooled = masked_mean(tokens)[0]
        out = self._out(tf.concat([gathered, gathered * asked, pooled, pooled * asked], -1))
        return tf.reshape(out, [lists, slots, self.dim])
