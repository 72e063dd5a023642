"""The tower of pretrained text encoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfmmrank.encoders.base import Encoder, text_encoders
from tfmmrank.encoders.text_sources import load_text_encoder
from tfmmrank.stack import keras, tf
from tfmmrank.towers.base import towers
from tfmmrank.towers.pretrained import PretrainedTower

SEPARATOR = " "


@towers.register("pretrained_text")
@keras.utils.register_keras_serializable("tfmmrank")
class PretrainedTextTower(PretrainedTower):
    """Texts through a pretrained encoder, such as MiniLM, to tokens.

    Args:
        columns: text columns; joined in this order with a space, and cut at the end when there is no room.
        encoder: ``minilm``, ``multilingual``, ``preset:NAME``, ``hub:PATH`` or a folder (``load_text_encoder``), or as
            ``PretrainedTower``.
        max_tokens: tokens kept of a text, the encoder's special ones included; None: as the encoder's.
        side, dim, share, trainable_blocks, output, hidden, dropout, name: see ``PretrainedTower``.

    Raises:
        ValueError, ImportError: see ``PretrainedTower``.

    Example:
        >>> query = PretrainedTextTower(["query"], "query", encoder="minilm", output="both", max_tokens=16, name="query")
        >>> title = PretrainedTextTower(["title"], share=query, max_tokens=24, name="title")
        >>> features = title.embed(title.preprocess({"title": tf.constant(["red shoes", ""])}))
        >>> title(features).values.shape
        TensorShape([2, 1, 64])
    """

    encoders = text_encoders
    load = staticmethod(load_text_encoder)

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: PretrainedTextTower | None = None,
        encoder: str | Mapping[str, Any] | Encoder | None = "minilm",
        max_tokens: int | None = None,
        trainable_blocks: int | None = 0,
        output: str = "pooled",
        hidden: Iterable[int] = (),
        dropout: float = 0.1,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            columns, side, dim, share, encoder or "minilm", trainable_blocks, output, hidden, dropout, name, **kwargs
        )
        limit = getattr(self.owner.encoder, "max_positions", None)
        if max_tokens is not None and (max_tokens < 3 or (limit is not None and max_tokens > limit)):
            raise ValueError(
                f'PretrainedTextTower "{self.name}": max_tokens is {max_tokens}; expected 3 to {limit or "any number"}'
            )
        self.max_tokens = max_tokens

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Texts ``{column: string [n]}`` to the encoder's features."""
        columns = [raw[column] for column in self.columns]
        text = tf.strings.join(columns, SEPARATOR) if len(columns) > 1 else columns[0]
        return self.owner.encoder.preprocess(text, self.max_tokens)

    def embed_config(self) -> dict[str, Any]:
        """See ``PretrainedTower``."""
        return {**super().embed_config(), "max_tokens": self.max_tokens}

    def get_config(self) -> dict[str, Any]:
        """See ``PretrainedTower``."""
        return {**super().get_config(), "max_tokens": self.max_tokens}
