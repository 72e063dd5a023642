"""What every match is: how well a query and an item agree, in a few numbers."""

from __future__ import annotations

from typing import Any

from tfmmrank.registry import Registry
from tfmmrank.stack import keras
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower

matches: Registry = Registry("match")


class Match(keras.layers.Layer):
    """Compares what a query tower and an item tower offer for matching, with nothing to train.

    Subclasses set ``features`` and implement ``call``; what a mask hides must not change the result.

    Args:
        query: name of the query's tower.
        item: name of the item's tower.
        name: the match's name; default: its class's.

    Attributes:
        features: names of the numbers.
    """

    features: tuple[str, ...]

    def __init__(self, query: str, item: str, name: str | None = None, **kwargs: Any) -> None:
        # Keras would bring one of two arguments to float32, and leave the other in half precision.
        super().__init__(name=name or type(self).__name__, **{"dtype": "float32", "autocast": False, **kwargs})
        self.query, self.item = query, item

    def bind(self, query: Tower, item: Tower) -> None:
        """Is told the towers. Raises ValueError when what they offer cannot be compared."""

    def call(self, query: Tokens, item: Tokens) -> Any:
        """Match tokens ``[B, Q, w]`` and ``[B, L, T, w]`` to float32 ``[B, L, len(features)]``."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "query": self.query, "item": self.item}
