"""What the token-level fusions share: one sequence of all modalities' tokens, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmmrank.fusion.base import Fusion
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens


class SequenceFusion(Fusion):
    """Base of the fusions in which tokens attend to tokens.

    Args:
        dim: width of the tokens inside, and of the output.
        dropout: rate in [0, 1).
        heads: attention heads; divides ``dim``.
        blocks: attention blocks, one after another.
    """

    def __init__(self, dim: int = 64, dropout: float = 0.0, heads: int = 4, blocks: int = 1, **kwargs: Any) -> None:
        super().__init__(dim, dropout, **kwargs)
        if dim % heads:
            raise ValueError(f"{type(self).__name__}: dim {dim} is not divisible by heads {heads}")
        self.heads, self.blocks = heads, blocks

    def build(self, input_shape: Any = None) -> None:
        """Projections and types are made by name when modalities are first seen."""
        self._project: dict[str, Any] = {}
        super().build(input_shape)

    def typed(self, name: str, tokens: Tokens) -> Tokens:
        """Tokens brought to width ``dim``; the modality's own Dense (bias included) tells its tokens from the others'.

        Values behind the mask are replaced by zeros first, so that nothing there can reach attention.
        """
        if name not in self._project:
            self._project[name] = keras.layers.Dense(self.dim, name=f"type_{name}")
        values = tf.where(tokens.mask[..., None], tokens.values, tf.zeros_like(tokens.values))
        return Tokens(self._project[name](values), tokens.mask)

    def item_sequence(self, item: Mapping[str, Tokens]) -> Tokens:
        """All of an item's tokens in one sequence: ``[B·L, S, dim]``."""
        typed = [self.typed(f"item_{name}", tokens) for name, tokens in item.items()]
        values = tf.concat([tokens.values for tokens in typed], -2)
        mask = tf.concat([tokens.mask for tokens in typed], -1)
        length = values.shape[-2]
        return Tokens(tf.reshape(values, [-1, length, self.dim]), tf.reshape(mask, [-1, length]))

    def query_sequence(self, query: Mapping[str, Tokens], slots: Any) -> Tokens | None:
        """All of the query's tokens, once a slot: ``[B·L, Q, dim]``; None where there is no query tower."""
        if not query:
            return None
        typed = [self.typed(f"query_{name}", tokens) for name, tokens in query.items()]
        values = tf.concat([tokens.values for tokens in typed], -2)
        mask = tf.concat([tokens.mask for tokens in typed], -1)
        return Tokens(tf.repeat(values, slots, axis=0), tf.repeat(mask, slots, axis=0))

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "heads": self.heads, "blocks": self.blocks}


def leading_shape(item: Mapping[str, Tokens]) -> tuple[Any, Any]:
    """B and L, static where they are known."""
    mask = next(iter(item.values())).mask
    dynamic = tf.shape(mask)
    return tuple(dynamic[i] if mask.shape[i] is None else mask.shape[i] for i in (0, 1))  # type: ignore[return-value]
