"""Fusion by self-attention over the query's and the item's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmmrank.fusion.base import fusions
from tfmmrank.fusion.sequence import SequenceFusion, leading_shape
from tfmmrank.stack import keras, keras_nlp, tf
from tfmmrank.tokens import Tokens


@fusions.register("transformer")
class TransformerFusion(SequenceFusion):
    """Multi-head self-attention, layer norm and residual over [read-out; query tokens; item tokens].

    keras-nlp's ``TransformerEncoder`` blocks, pre-norm; the read-out token (BERT's [CLS]) is the pair's vector. Cost
    grows with (Q + S)² a pair: keep ``max_tokens`` small.
    """

    def build(self, input_shape: Any = None) -> None:
        """Makes the blocks."""
        self._blocks = [
            keras_nlp.layers.TransformerEncoder(
                2 * self.dim, self.heads, self.dropout, "gelu", normalize_first=True, name=f"block_{i}"
            )
            for i in range(self.blocks)
        ]
        self._norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self._read_out = self.add_weight("read_out", [1, 1, self.dim], initializer="glorot_uniform")
        super().build(input_shape)

    def call(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], training: bool = False) -> Any:
        """See ``Fusion``."""
        lists, slots = leading_shape(item)
        tokens = self.item_sequence(item)
        pairs = tf.shape(tokens.values)[0]
        values = [tf.repeat(tf.cast(self._read_out, tokens.values.dtype), pairs, 0), tokens.values]
        masks = [tf.fill([pairs, 1], True), tokens.mask]
        asking = self.query_sequence(query, slots)
        if asking is not None:
            values.insert(1, asking.values)
            masks.insert(1, asking.mask)
        hidden, mask = tf.concat(values, 1), tf.concat(masks, 1)
        for block in self._blocks:
            hidden = block(hidden, padding_mask=mask, training=training)
        return tf.reshape(self._norm(hidden[:, 0]), [lists, slots, self.dim])
