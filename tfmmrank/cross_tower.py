"""The cross tower: fused vectors and match features of a list's items to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmmrank.precision import FLOAT32, policy
from tfmmrank.stack import keras, tf, tfr, tfrs

_CONTEXT = {"layers": 1, "heads": 2, "head_size": 64, "dropout": 0.1}


class CrossTower(keras.layers.Layer):
    """DCN v2 cross layers, list context, Dense layers, a score; match features straight to the score.

    Match features also have a linear way to the score. Where there are any, the deep way starts at zero, so that
    training starts from an even sum of them, near zero-shot ranking: small label sets do not have to find that first.

    Args:
        layers: TFRS ``Cross`` layers [Wang et al., 2021].
        projection_dim: rank of their matrices; None: full.
        deep: widths of the Dense layers after them.
        dropout: rate after each of those, in [0, 1).
        context: list context, TF-Ranking's ``DocumentInteractionAttention`` [Pasumarthi et al., 2020]: ``layers``,
            ``heads``, ``head_size`` and ``dropout``, each with a default; None: none. With it an item's score depends
            on the others of its list.

    Raises:
        ValueError: for an unknown key of ``context``.
    """

    def __init__(
        self,
        layers: int = 2,
        projection_dim: int | None = None,
        deep: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        context: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for key in context or ():
            if key not in _CONTEXT:
                raise ValueError(f'context has no "{key}"; expected {", ".join(_CONTEXT)}')
        self.context = None
        if context is not None:
            options = {**_CONTEXT, **context}
            self.context = tfr.keras.layers.DocumentInteractionAttention(
                num_heads=options["heads"],
                head_size=options["head_size"],
                num_layers=options["layers"],
                dropout=options["dropout"],
                dtype=FLOAT32,
                name="context",
            )
        self.cross = [tfrs.layers.dcn.Cross(projection_dim=projection_dim, name=f"cross_{i}") for i in range(layers)]
        self.deep = [keras.layers.Dense(width, "gelu", name=f"deep_{i}") for i, width in enumerate(deep)]
        self.drop = keras.layers.Dropout(dropout, name="drop")

    def call(self, fused: Any, matched: Any, slot_mask: Any, training: bool = False) -> Any:
        """Scores.

        Args:
            fused: ``[B, L, d]``, or None.
            matched: match features ``[B, L, M]``, or None.
            slot_mask: bool ``[B, L]``.
            training: whether dropout is on.

        Returns:
            float32 ``[B, L]``.
        """
        parts = [tf.cast(part, self.compute_dtype) for part in (fused, matched) if part is not None]
        given = tf.concat(parts, -1) if len(parts) > 1 else parts[0]
        hidden = given
        for cross in self.cross:
            hidden = cross(given, hidden)
        if self.context is not None:
            with policy(FLOAT32):  # TF-Ranking's layer mixes types otherwise: its norms are always float32
                seen = self.context((tf.cast(hidden, tf.float32), slot_mask), training=training)
            hidden = tf.concat([hidden, tf.cast(seen, hidden.dtype)], -1)
        for dense in self.deep:
            hidden = self.drop(dense(hidden), training=training)
        if not hasattr(self, "head"):
            start = "glorot_uniform" if matched is None else "zeros"
            self.head = keras.layers.Dense(1, kernel_initializer=start, dtype="float32", name="score")
            self.skip = None
            if matched is not None:
                even = keras.initializers.Constant(matched.shape[-1] ** -0.5)
                self.skip = keras.layers.Dense(1, use_bias=False, kernel_initializer=even, dtype="float32", name="skip")
        scores = self.head(hidden)  # float32: TF-Ranking's losses need it
        if self.skip is not None:
            scores += self.skip(matched)
        return tf.squeeze(scores, -1)
