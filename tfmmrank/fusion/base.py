"""What every fusion is: query tokens and one item's tokens in, one vector per (query, item) out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmmrank.precision import config_without_policy
from tfmmrank.registry import Registry
from tfmmrank.stack import keras
from tfmmrank.tokens import Tokens

fusions: Registry = Registry("fusion")


class Fusion(keras.layers.Layer):
    """Combines modalities.

    Subclasses implement ``call``. What a mask hides must not change the result, and a (query, item) pair's vector
    depends on that pair alone.

    Args:
        dim: width of the output vector.
        dropout: dropout rate, in [0, 1).
    """

    def __init__(self, dim: int = 64, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.dropout = dropout

    def call(self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], training: bool = False) -> Any:
        """Fuses.

        Args:
            query: by query tower name, tokens ``[B, T, d]`` with mask ``[B, T]``; empty where there is no query tower.
            item: by item or slot tower name, tokens ``[B, L, T, d]`` with mask ``[B, L, T]``; never empty.
            training: whether dropout is on.

        Returns:
            float ``[B, L, dim]``.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**config_without_policy(super().get_config()), "dim": self.dim, "dropout": self.dropout}
