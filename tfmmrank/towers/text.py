"""The text tower: WordPiece tokens through a small Transformer encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfmmrank.stack import keras, keras_nlp, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower, towers
from tfmmrank.towers.wordpiece import PAD_ID, RESERVED, WordCounter, WordPiece, learn_vocabulary

_SHARED = ("vocab_size", "max_positions", "layers", "heads", "hidden", "dropout")


@towers.register("text")
@keras.utils.register_keras_serializable("tfmmrank")
class TextTower(Tower):
    """Texts to one token per WordPiece.

    Token and position embeddings, ``layers`` Transformer encoder layers (pre-norm), a projection. The vocabulary is
    learnt from the texts given to ``adapt``: lower case, accents stripped, Chinese by the character.

    Args:
        columns: text columns; joined in this order with a separator, and cut at the end when there is no room.
        side: ``query``, ``item`` or ``slot``.
        dim: width of the tokens and of the encoder.
        share: a text tower whose vocabulary, embeddings and encoder this one uses; then ``vocab_size``,
            ``max_positions``, ``layers``, ``heads``, ``hidden`` and ``dropout`` are that tower's.
        vocab_size: largest number of vocabulary entries.
        max_tokens: tokens kept of a text.
        layers: encoder layers; 0 gives plain embeddings without positions: a bag of words.
        heads: attention heads; must divide ``dim``.
        hidden: inner width of the encoder's feed-forward layers.
        dropout: rate in the encoder, in [0, 1).
        pooled: whether to give one token, the mean, instead of one per WordPiece.
        vocabulary: learnt by ``adapt``; give it to skip that.
        max_positions: places that have an embedding: at least ``max_tokens`` of this tower and of those sharing it.
        name: the modality's name.

    Raises:
        ValueError: for sizes out of range, or a share that does not fit.

    Example:
        >>> tower = TextTower(["title"], dim=32, name="title")
        >>> tower.adapt([{"title": np.array([b"red shoes", b"red hat"], object)}])
        >>> tokens = tower(tower.preprocess({"title": tf.constant(["red shoes"])}))
        >>> tokens.values.shape
        TensorShape([1, 24, 32])
    """

    shared_options = _SHARED

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: TextTower | None = None,
        vocab_size: int = 8000,
        max_tokens: int = 24,
        layers: int = 1,
        heads: int = 4,
        hidden: int = 128,
        dropout: float = 0.1,
        pooled: bool = False,
        vocabulary: Sequence[str] | None = None,
        max_positions: int = 128,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, side=side, dim=dim, share=share, name=name, **kwargs)
        self.vocab_size, self.max_tokens = vocab_size, max_tokens
        self.layers, self.heads, self.hidden, self.dropout = layers, heads, hidden, dropout
        self.pooled = pooled
        self.max_positions = max_positions
        if share is not None:
            self._join(share)
        self._check()
        self._wordpiece: WordPiece | None = None
        if vocabulary is not None and share is None:
            self._wordpiece = WordPiece(vocabulary)

    def _check(self) -> None:
        where = f'TextTower "{self.name}"'
        for key, least in (("vocab_size", len(RESERVED) + 1), ("max_tokens", 1), ("layers", 0), ("heads", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{where}: {key} is {getattr(self, key)}; expected at least {least}")
        if self.layers and self.dim % self.heads:
            raise ValueError(f"{where}: heads is {self.heads}, which does not divide dim {self.dim}")
        if self.max_tokens > self.max_positions:
            raise ValueError(
                f"{where}: max_tokens is {self.max_tokens}; expected at most max_positions, {self.max_positions}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{where}: dropout is {self.dropout}; expected a rate in [0, 1)")

    def _join(self, owner: TextTower) -> None:
        if self.dim != owner.dim:
            raise ValueError(
                f'TextTower "{self.name}": dim is {self.dim}, but "{owner.name}", which it shares, has {owner.dim}'
            )
        for key in _SHARED:
            setattr(self, key, getattr(owner, key))

    @property
    def owner(self) -> TextTower:
        """The tower that holds the vocabulary and the weights: this one, or the one it shares with."""
        return self.share if self.share is not None else self

    @property
    def vocabulary(self) -> list[str]:
        """The vocabulary, the sharing tower's where there is one; empty before ``adapt``."""
        wordpiece = self.owner._wordpiece
        return list(wordpiece.vocabulary) if wordpiece is not None else []

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Learns the vocabulary from raw batches ``{column: bytes array [n]}``, read once.

        Raises:
            ValueError: when the tower shares or is built, or the texts hold no word.
        """
        if self.share is not None:
            raise ValueError(f'TextTower "{self.name}" shares with "{self.share.name}"; adapt that one')
        if self.built:
            raise ValueError(f'TextTower "{self.name}" already has weights for its vocabulary; adapt a new tower')
        words = WordCounter()
        for batch in batches:
            for column in self.columns:
                words.add(batch[column])
        if not words.counts:
            raise ValueError(
                f'TextTower "{self.name}": the texts of {", ".join(self.columns)} hold no word to learn from'
            )
        self._wordpiece = WordPiece(learn_vocabulary(words.counts, self.vocab_size))

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Texts ``{column: string [n]}`` to ``{"ids": int32 [n, max_tokens]}``; 0 pads, an empty text is all 0.

        Raises:
            ValueError: before ``adapt``.
        """
        if self.owner._wordpiece is None:
            raise ValueError(f'TextTower "{self.owner.name}" has no vocabulary yet; call adapt first')
        return {"ids": self.owner._wordpiece.ids([raw[column] for column in self.columns], self.max_tokens)}

    def build(self, input_shape: Any) -> None:
        """Makes the embeddings and the encoder, for the vocabulary learnt."""
        if self.share is not None:
            if not self.share.built:
                self.share.build(input_shape)
        elif not self.built:
            if self._wordpiece is None:
                raise ValueError(f'TextTower "{self.name}" has no vocabulary yet; call adapt first')
            # Words must outweigh positions at the start, or equal words at different places would not look alike.
            self.embedding = keras.layers.Embedding(
                len(self._wordpiece.vocabulary),
                self.dim,
                embeddings_initializer=keras.initializers.RandomNormal(stddev=self.dim**-0.5),
                name="embedding",
            )
            self.drop = keras.layers.Dropout(self.dropout, name="drop")
            self.encoder = []
            if self.layers:
                self.positions = keras_nlp.layers.PositionEmbedding(
                    self.max_positions, initializer=keras.initializers.RandomNormal(stddev=0.02), name="positions"
                )
                self.encoder = [
                    keras_nlp.layers.TransformerEncoder(
                        self.hidden,
                        self.heads,
                        dropout=self.dropout,
                        activation="gelu",
                        normalize_first=True,
                        name=f"encoder_{i}",
                    )
                    for i in range(self.layers)
                ]
                self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
                self.project = keras.layers.Dense(self.dim, name="project")
        super().build(input_shape)

    def call(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """Ids ``[n, max_tokens]`` to tokens ``[n, T, dim]``; T is ``max_tokens``, or 1 when pooled."""
        return self.owner._encode(features["ids"], self.pooled, training)

    def _encode(self, ids: Any, pooled: bool, training: bool) -> Tokens:
        mask = tf.not_equal(ids, PAD_ID)
        values = self.embedding(ids)
        if self.layers:
            values = values + self.positions(values)
        values = self.drop(values, training=training)
        for layer in self.encoder:
            values = layer(values, padding_mask=mask, training=training)
        if self.layers:
            values = self.project(self.norm(values))
        values = tf.where(mask[..., None], values, tf.zeros_like(values))
        if pooled:
            count = tf.reduce_sum(tf.cast(mask, values.dtype), axis=1, keepdims=True)
            values = tf.reduce_sum(values, axis=1) / tf.maximum(count, 1)
            return Tokens(values[:, None], tf.reduce_any(mask, axis=1, keepdims=True))
        return Tokens(values, mask)

    def embed_config(self) -> dict[str, Any]:
        """What texts are made into ids by."""
        return {"columns": self.columns, "vocabulary": self.vocabulary, "max_tokens": self.max_tokens}

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``, with the vocabulary learnt (of the owner only, when shared)."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "max_tokens": self.max_tokens,
            "layers": self.layers,
            "heads": self.heads,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "pooled": self.pooled,
            "vocabulary": self.vocabulary if self.share is None and self._wordpiece is not None else None,
            "max_positions": self.max_positions,
        }
