"""What the pooled fusions share: one interaction vector per (query, item, modality)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmmrank.fusion.base import Fusion
from tfmmrank.fusion.late_interaction import LateInteraction
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens


def masked_mean(tokens: Tokens) -> tuple[Any, Any]:
    """Mean over the tokens that are there: values ``[..., d]`` (0 where none is), and whether any is, ``[...]``."""
    values = tf.where(tokens.mask[..., None], tokens.values, tf.zeros_like(tokens.values))
    count = tf.reduce_sum(tf.cast(tokens.mask, values.dtype), -1, keepdims=True)
    return tf.reduce_sum(values, -2) / tf.maximum(count, 1.0), tf.reduce_any(tokens.mask, -1)


def joined(item: Mapping[str, Tokens]) -> Tokens:
    """All of an item's tokens, of whatever modality, in one sequence ``[B, L, T, d]``."""
    return Tokens(
        tf.concat([tokens.values for tokens in item.values()], -2),
        tf.concat([tokens.mask for tokens in item.values()], -1),
    )


class PooledFusion(Fusion):
    """Base of the fusions that make one vector per modality and then combine modalities.

    For modality m with pooled vector v and pooled query q (the mean over the query's modalities), the vector is
    ``LayerNorm(gelu(W_m [v, q, q ⊙ v, |q − v|, late interaction with m's tokens, with all of the item's tokens]))``:
    a word that the title lacks and the picture shows is found among all. Where there is no query, W_m sees v alone.
    Subclasses implement ``combine``.
    """

    def build(self, input_shape: Any = None) -> None:
        """Layers are made by name when modalities are first seen."""
        self._dense: dict[str, Any] = {}
        self._norm: dict[str, Any] = {}
        self._late_interactions: dict[str, Any] = {}
        self._drop = keras.layers.Dropout(self.dropout)
        super().build(input_shape)

    def call(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], training: bool = False) -> Any:
        """See ``Fusion``."""
        pooled_query = self._pool_query(query)
        anywhere = [self._late(asking, "any")(asked, joined(item)) for asking, asked in query.items()]
        vectors, present = [], []
        for name, tokens in item.items():
            value, there = masked_mean(tokens)
            parts = [value]
            if pooled_query is not None:
                q = tf.broadcast_to(pooled_query[:, None, :], tf.shape(value))
                parts += [q, q * value, tf.abs(q - value)]
                parts += [self._late(asking, f"item_{name}")(asked, tokens) for asking, asked in query.items()]
                parts += anywhere
            vectors.append(self._interact(name, tf.concat(parts, -1), training))
            present.append(there)
        return self.combine(tf.stack(vectors, -2), tf.stack(present, -1), pooled_query, list(item))

    def combine(self, vectors: Any, present: Any, query: Any, names: list[str]) -> Any:
        """Combines modalities.

        Args:
            vectors: ``[B, L, M, dim]``.
            present: bool ``[B, L, M]``.
            query: the pooled query ``[B, d]``, or None where there is no query tower.
            names: the M modalities.

        Returns:
            ``[B, L, dim]``; finite where no modality is present.
        """
        raise NotImplementedError

    def _pool_query(self, query: Mapping[str, Tokens]) -> Any:
        if not query:
            return None
        values, there = zip(*(masked_mean(tokens) for tokens in query.values()), strict=True)
        return masked_mean(Tokens(tf.stack(values, -2), tf.stack(there, -1)))[0]

    def _late(self, query: str, item: str) -> Any:
        key = f"late_{query}_{item}"
        if key not in self._late_interactions:
            self._late_interactions[key] = LateInteraction(name=key)
        return self._late_interactions[key]

    def _interact(self, name: str, parts: Any, training: bool) -> Any:
        if name not in self._dense:
            self._dense[name] = keras.layers.Dense(self.dim, "gelu", name=f"interact_{name}")
            self._norm[name] = keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{name}")
        return self._drop(self._norm[name](self._dense[name](parts)), training=training)


def mask_absent(vectors: Any, present: Any, fill: float = 0.0) -> Any:
    """The vectors with ``fill`` in place of modalities that are missing."""
    return tf.where(present[..., None], vectors, tf.constant(fill, vectors.dtype))


def weighted_sum(vectors: Any, present: Any, logits: Any) -> Any:
    """Softmax of the logits over the modalities present, then the weighted sum; zeros where none is present.

    Args:
        vectors: ``[B, L, M, dim]``.
        present: bool ``[B, L, M]``.
        logits: broadcastable to ``[B, L, M]``.
    """
    logits = tf.where(present, tf.broadcast_to(logits, tf.shape(present)), tf.constant(-1e9, vectors.dtype))
    weights = tf.nn.softmax(logits, -1)
    return tf.reduce_sum(mask_absent(vectors, present) * weights[..., None], -2)
