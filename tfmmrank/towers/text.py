"""The text tower: WordPiece ids, keras-nlp's embeddings and Transformer layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfmmrank.stack import keras, keras_nlp, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower, towers
from tfmmrank.towers.wordpiece import WordPiece, learn_vocabulary


@towers.register("text")
class TextTower(Tower):
    """Texts to one token a word piece.

    ``adapt`` learns the vocabulary. Towers that share use the owner's vocabulary and weights, with a length of their own
    up to the owner's ``max_positions``.

    Args:
        columns: text columns, joined with a separator.
        side: ``query`` or ``item``.
        dim: width of the tokens.
        share: a text tower whose vocabulary and weights this one uses.
        vocab_size: upper bound on the vocabulary.
        max_tokens: T; longer texts are cut.
        max_positions: positions that have an embedding; at least every sharing tower's ``max_tokens``.
        layers: Transformer layers; 0: embeddings alone.
        heads: attention heads; divides ``dim``.
        hidden: width of the Transformer's feed-forward part.
        dropout: rate in [0, 1).
        pooled: one token, the masked mean, instead of T.
        vocabulary: the pieces, when already learnt.

    Output: ``Tokens`` with values ``[n, max_tokens, dim]`` (``[n, 1, dim]`` when pooled). An empty text is masked out.

    Example:
        >>> tower = TextTower(["title"], name="title")
        >>> tower.adapt([{"title": np.array([b"red shoes", "红色 鞋".encode()])}])
        >>> tokens = tower(tower.preprocess({"title": tf.constant(["red shoes"])}))
    """

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: Tower | None = None,
        vocab_size: int = 8000,
        max_tokens: int = 24,
        max_positions: int = 128,
        layers: int = 1,
        heads: int = 4,
        hidden: int = 128,
        dropout: float = 0.1,
        pooled: bool = False,
        vocabulary: Sequence[str] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, side, dim, share, name, **kwargs)
        if dim % heads:
            raise ValueError(f'TextTower "{self.name}": dim {dim} is not divisible by heads {heads}')
        limit = share.max_positions if isinstance(share, TextTower) else max_positions
        if not 0 < max_tokens <= limit:
            raise ValueError(f'TextTower "{self.name}": max_tokens is {max_tokens}; expected 1 to {limit} (max_positions)')
        self.vocab_size, self.max_tokens, self.max_positions = vocab_size, max_tokens, max_positions
        self.layers, self.heads, self.hidden, self.dropout, self.pooled = layers, heads, hidden, dropout, pooled
        self._vocabulary: list[str] | None = None
        self._tokenizer: WordPiece | None = None
        if share is None:
            self._blocks = [
                keras_nlp.layers.TransformerEncoder(hidden, heads, dropout, "gelu", normalize_first=True, name=f"block_{i}")
                for i in range(layers)
            ]
            self._norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
            self._drop = keras.layers.Dropout(dropout)
            if vocabulary is not None:
                self._set_vocabulary(vocabulary)

    @property
    def owner(self) -> TextTower:
        """The tower that holds vocabulary and weights."""
        return self.share if isinstance(self.share, TextTower) else self

    @property
    def vocabulary(self) -> list[str]:
        """The learnt pieces. Raises ValueError before ``adapt``."""
        if self.owner._vocabulary is None:
            raise ValueError(f'TextTower "{self.owner.name}" has no vocabulary yet; call adapt first')
        return self.owner._vocabulary

    def _set_vocabulary(self, vocabulary: Sequence[str]) -> None:
        self._vocabulary = list(vocabulary)
        self._tokenizer = WordPiece(self._vocabulary)
        self._embed = keras_nlp.layers.TokenAndPositionEmbedding(
            len(self._vocabulary), self.max_positions, self.dim, embeddings_initializer="glorot_uniform", name="embed"
        )

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Learns the vocabulary from raw texts."""
        texts = (batch[column] for batch in batches for column in self.columns)
        self._set_vocabulary(learn_vocabulary(texts, self.vocab_size))

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Strings ``[n]`` to ``{"ids": int32 [n, max_tokens]}``, 0 being padding."""
        assert self.vocabulary
        return {"ids": self.owner._tokenizer([raw[column] for column in self.columns], self.max_tokens)}  # type: ignore[misc]

    def call(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """Ids to tokens."""
        values, mask = self.owner.encode(features["ids"], training)
        if not self.pooled:
            return Tokens(values, mask)
        weights = tf.cast(mask, values.dtype)[..., None]
        mean = tf.reduce_sum(values * weights, 1, keepdims=True) / tf.maximum(tf.reduce_sum(weights, 1, keepdims=True), 1.0)
        return Tokens(mean, tf.reduce_any(mask, axis=1, keepdims=True))

    def encode(self, ids: Any, training: bool = False) -> tuple[Any, Any]:
        """The shared part: ids ``[n, T]`` to values ``[n, T, dim]`` and mask ``[n, T]``."""
        mask = ids > 0
        hidden = self._drop(self._embed(ids), training=training)
        for block in self._blocks:
            hidden = block(hidden, padding_mask=mask, training=training)
        return self._norm(hidden), mask

    def get_config(self) -> dict[str, Any]:
        """Settings and vocabulary (the owner's alone keeps it)."""
        keys = ("vocab_size", "max_tokens", "max_positions", "layers", "heads", "hidden", "dropout", "pooled")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}, "vocabulary": self._vocabulary}
