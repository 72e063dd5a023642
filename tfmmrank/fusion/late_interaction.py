"""Late interaction: does the item have what each of the query's tokens asks for?"""

from __future__ import annotations

from typing import Any

from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens

SHARPNESS = 10.0  # equal tokens give 1, a cosine of 0.8 gives exp(-2): only near equality counts


class LateInteraction(keras.layers.Layer):
    """ColBERT's MaxSim [Khattab and Zaharia, 2020], and a sharp kernel of it that only (near) equal tokens pass [Xiong
    et al., 2017, K-NRM].

    For each query token its highest cosine with one of the item's tokens, then five numbers: over the query's tokens,
    the mean of the cosines and of ``exp(SHARPNESS (cosine - 1))``, the same with weights that a Dense layer reads off
    the query's tokens ("red" matters more than "for"), and the smallest cosine. All are 0 where either side has no
    token.

    Query tokens ``[B, Q, d]`` and item tokens ``[B, L, T, d]`` to ``[B, L, 5]``.
    """

    def build(self, input_shape: Any = None) -> None:
        """Makes the layer that weighs query tokens; it starts from equal weights."""
        self._importance = keras.layers.Dense(1, kernel_initializer="zeros", use_bias=False, name="importance")
        super().build(input_shape)

    def call(self, query: Tokens, item: Tokens) -> Any:
        """Compares. What a mask hides does not matter."""
        asked = tf.where(query.mask[..., None], query.values, tf.zeros_like(query.values))
        offered = tf.where(item.mask[..., None], item.values, tf.zeros_like(item.values))
        # The epsilon keeps the gradient finite at the zeros put where the mask is false.
        cosines = tf.einsum(
            "bqd,bltd->blqt",
            tf.math.l2_normalize(asked, -1, epsilon=1e-6),
            tf.math.l2_normalize(offered, -1, epsilon=1e-6),
        )
        cosines = tf.where(item.mask[:, :, None, :], cosines, -tf.ones_like(cosines))
        best = tf.reduce_max(cosines, -1)
        exact = tf.exp(SHARPNESS * (best - 1.0))
        there = query.mask[:, None, :]
        logits = tf.squeeze(self._importance(asked), -1)[:, None, :]
        signals = [
            tf.reduce_sum(weights * signal, -1)
            for weights in (masked_softmax(tf.zeros_like(logits), there), masked_softmax(logits, there))
            for signal in (best, exact)
        ]
        signals.append(tf.reduce_min(tf.where(there, best, tf.ones_like(best)), -1))
        both = tf.reduce_any(there, -1) & tf.reduce_any(item.mask, -1)
        signals = tf.stack(signals, -1)
        return tf.where(both[..., None], signals, tf.zeros_like(signals))


def masked_softmax(logits: Any, mask: Any) -> Any:
    """Softmax over the last axis where the mask is true; zeros elsewhere, and everywhere where none is."""
    logits = tf.where(mask, logits, tf.constant(logits.dtype.min / 2, logits.dtype))
    return tf.where(mask, tf.nn.softmax(logits, -1), tf.zeros_like(logits))
