"""Fusion term by term: what each word of the query finds in the item, then their sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmmrank.fusion.base import Fusion, fusions
from tfmmrank.fusion.late_interaction import masked_softmax
from tfmmrank.fusion.pooled import masked_mean
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens


@fusions.register("terms")
class TermFusion(Fusion):
    """Matches each query token with each modality, and adds up over the tokens, as DRMM [Guo et al., 2016] does.

    For query token w and modality m, c_m is what w attends to among m's tokens (the one token, where m has one). Dense
    layers see ``[w ⊙ c_1, …, w ⊙ c_M]`` and which modalities are there; what they give is summed over the tokens.
    "ladies red belt" is then three small questions, each answered by the modality that knows, and a query of words that
    were never seen together is no new problem. The item's own vector (it may be popular, whatever the query) is added.
    """

    def build(self, input_shape: Any = None) -> None:
        """Makes the layers; those of modalities are made by name when first seen."""
        self._norms: dict[str, Any] = {}
        self._term_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="term_norm")
        self._answer = [keras.layers.Dense(self.dim, "gelu", name=f"answer_{i}") for i in range(2)]
        self._item = keras.layers.Dense(self.dim, "gelu", name="item")
        self._norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self._drop = keras.layers.Dropout(self.dropout)
        super().build(input_shape)

    def call(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], training: bool = False) -> Any:
        """See ``Fusion``."""
        item = {name: self._normed(name, tokens) for name, tokens in item.items()}
        pooled, present = zip(*(masked_mean(tokens) for tokens in item.values()), strict=True)
        there = tf.cast(tf.stack(present, -1), pooled[0].dtype)
        fused = self._item(self._drop(tf.concat([*pooled, there], -1), training=training))
        if query:
            fused += self._answers(query, item, there, training)
        return self._drop(self._norm(fused), training=training)

    def _normed(self, name: str, tokens: Tokens) -> Tokens:
        if name not in self._norms:
            self._norms[name] = keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{name}")
        # Zeros behind the mask first, so that nothing there can reach attention, not even as NaN.
        values = tf.where(tokens.mask[..., None], tokens.values, tf.zeros_like(tokens.values))
        values = self._norms[name](values)
        return Tokens(tf.where(tokens.mask[..., None], values, tf.zeros_like(values)), tokens.mask)

    def _answers(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], there: Any, training: bool) -> Any:
        """What the query's tokens find, ``[B, L, dim]``."""
        terms = tf.concat([tokens.values for tokens in query.values()], 1)
        mask = tf.concat([tokens.mask for tokens in query.values()], 1)
        terms = self._term_norm(tf.where(mask[..., None], terms, tf.zeros_like(terms)))
        found = [terms[:, None] * self._attended(terms, tokens) for tokens in item.values()]
        flags = tf.repeat(there[:, :, None], terms.shape[1] or tf.shape(terms)[1], axis=2)
        hidden = tf.concat([*found, flags], -1)
        for dense in self._answer:
            hidden = dense(self._drop(hidden, training=training))
        hidden = tf.where(mask[:, None, :, None], hidden, tf.zeros_like(hidden))
        return tf.reduce_sum(hidden, 2)

    def _attended(self, terms: Any, tokens: Tokens) -> Any:
        """What each term attends to among an item's tokens, ``[B, L, Q or 1, d]``."""
        if tokens.values.shape[2] == 1:
            return tokens.values
        logits = tf.einsum("bqd,bltd->blqt", terms, tokens.values) * (tokens.values.shape[-1] ** -0.5)
        weights = masked_softmax(logits, tf.broadcast_to(tokens.mask[:, :, None], tf.shape(logits)))
        return tf.einsum("blqt,bltd->blqd", weights, tokens.values)
