"""The tower of pretrained text encoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfmmrank.encoders.base import Encoder, TextEncoder, text_encoders
from tfmmrank.encoders.text_sources import load_text_encoder
from tfmmrank.stack import keras, tf
from tfmmrank.towers.base import towers
from tfmmrank.towers.pretrained import PretrainedTower

SEPARATOR = " "
_DEFAULT = "minilm"


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
        >>> query = PretrainedTextTower(["query"], "query", encoder="minilm", max_tokens=16, name="query")
        >>> title = PretrainedTextTower(["title"], share=query, max_tokens=24, name="title")
        >>> features = title.embed(title.preprocess({"title": tf.constant(["red shoes", ""])}))
        >>> title(features).values.shape
        TensorShape([2, 1, 64])
    """

    encoders = text_encoders
    encoder_class = TextEncoder
    load = staticmethod(load_text_encoder)

    encoder: TextEncoder

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: PretrainedTextTower | None = None,
        encoder: str | Mapping[str, Any] | Encoder | None = _DEFAULT,
        max_tokens: int | None = None,
        trainable_blocks: int | None = 0,
        output: str = "pooled",
        hidden: Iterable[int] = (),
        dropout: float = 0.1,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        encoder = _DEFAULT if encoder is None else encoder
        super().__init__(columns, side, dim, share, encoder, trainable_blocks, output, hidden, dropout, name, **kwargs)
        if max_tokens is not None:
            try:
                self.encoder.check_max_tokens(max_tokens)
            except ValueError as error:
                raise ValueError(f"{self._where}: {error}") from error
        self.max_tokens = max_tokens

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Texts ``{column: string [n]}`` to the encoder's features."""
        columns = [raw[column] for column in self.columns]
        text = tf.strings.join(columns, SEPARATOR) if len(columns) > 1 else columns[0]
        return self.encoder.preprocess(text, self.max_tokens)

    def embed_config(self) -> dict[str, Any]:
        """See ``PretrainedTower``."""
        return {**super().embed_config(), "max_tokens": self.max_tokens}

    def get_config(self) -> dict[str, Any]:
        """See ``PretrainedTower``."""
        return {**super().get_config(), "max_tokens": self.max_tokens}
