"""BERT as a text encoder: WordPiece ids on the host, frozen blocks once an item, the top blocks trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmmrank.encoders.base import TextEncoder, text_encoders
from tfmmrank.stack import keras, keras_nlp, tf, tf_text
from tfmmrank.tokens import Tokens

POOLINGS = ("mean", "cls", "max")
PAD, UNKNOWN, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


@keras.utils.register_keras_serializable("tfmmrank")
def gelu_tanh(x: Any) -> Any:
    """GELU by tanh, as the first BERT was trained."""
    return tf.nn.gelu(x, approximate=True)


# keras_nlp's own BERT always takes the approximation; most checkpoints were trained with the exact function.
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": gelu_tanh, "relu": "relu"}
ACTIVATIONS = tuple(_ACTIVATIONS)

_SPACE = r"[\t\n\r\p{Z}]"
_CONTROL = r"[\p{C}\x{FFFD}]"
# ASCII symbols, Unicode's punctuation, and ideographs (not kana or hangul) each stand for a word of their own.
_ALONE = (
    r"([!-/:-@\[-`{-~\p{P}\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}"
    r"\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}\x{2F800}-\x{2FA1F}])"
)
_LONGEST_WORD = 100  # characters; a longer word is unknown


class BertWordPiece:
    """BERT's tokenizer in core and tensorflow-text ops, equal to Hugging Face's ``BertTokenizer``.

    tensorflow-text's own ``BertTokenizer`` differs from it: case folding makes "ss" of "ß", control characters cut
    words in two, and words end at 100 bytes instead of 100 characters. What is left to differ: 759 rare characters,
    most younger than Hugging Face's Unicode tables; and special tokens written out in a text, such as "[SEP]", which
    are plain text here, so that no text can pass for more than one.

    Args:
        vocabulary: entries in the order of their ids; ``[PAD]`` first.
        lowercase: whether to fold case.
        strip_accents: whether to drop accents.

    Raises:
        ValueError: when a special token is missing or ``[PAD]`` is not the first entry.
    """

    def __init__(self, vocabulary: Sequence[str], lowercase: bool, strip_accents: bool) -> None:
        missing = [token for token in (PAD, UNKNOWN, CLS, SEP) if token not in vocabulary]
        if missing:
            raise ValueError(f"the vocabulary of {len(vocabulary)} entries has no {', '.join(missing)}")
        if vocabulary[0] != PAD:
            raise ValueError(f'the vocabulary starts with "{vocabulary[0]}"; expected {PAD}: id 0 pads')
        self.lowercase, self.strip_accents = lowercase, strip_accents
        self._cls, self._sep = vocabulary.index(CLS), vocabulary.index(SEP)
        # The tokenizer holds a constant, which must not belong to whatever graph is being traced.
        with tf.init_scope():
            self._pieces = tf_text.FastWordpieceTokenizer(
                vocab=list(vocabulary),
                token_out_type=tf.int32,
                unknown_token=UNKNOWN,
                no_pretokenization=True,
                max_bytes_per_word=4 * _LONGEST_WORD,
            )

    def words(self, texts: Any) -> Any:
        """Texts, string ``[n]``, to words, ragged string ``[n, (words)]``."""
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        texts = tf.strings.regex_replace(texts, _SPACE, " ")
        texts = tf.strings.regex_replace(texts, _CONTROL, "")
        if self.strip_accents:
            texts = tf.strings.regex_replace(tf_text.normalize_utf8(texts, "NFD"), r"\p{Mn}", "")
        if self.lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        words = tf.strings.split(tf.strings.regex_replace(texts, _ALONE, r" \1 "))
        lengths = tf.strings.length(words.flat_values, unit="UTF8_CHAR")
        return words.with_flat_values(tf.where(lengths > _LONGEST_WORD, UNKNOWN, words.flat_values))

    def ids(self, texts: Any, max_tokens: int) -> Any:
        """Texts, string ``[n]``, to int32 ``[n, max_tokens]``: CLS, pieces, SEP, 0; a text of no word is all 0."""
        pieces = self._pieces.tokenize(self.words(texts)).merge_dims(1, 2)[:, : max_tokens - 2]
        there = tf.cast(pieces.row_lengths() > 0, tf.int64)
        special = tf.RaggedTensor.from_row_lengths(tf.ones([tf.reduce_sum(there)], tf.int32), there)
        ids = tf.concat([special * self._cls, pieces, special * self._sep], axis=1)
        return tf.ensure_shape(ids.to_tensor(0, shape=[None, max_tokens]), [None, max_tokens])


def _initializer() -> Any:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@text_encoders.register("bert")
@keras.utils.register_keras_serializable("tfmmrank")
class BertEncoder(TextEncoder):
    """A BERT network (Devlin et al., https://arxiv.org/abs/1810.04805), pooled as sentence-transformers does.

    The blocks are keras_nlp's ``TransformerEncoder``. A text is always one segment, so the segment's embedding is part
    of the positions'. Tokens include those of CLS and SEP. ``load_text_encoder`` makes one with pretrained weights.

    Args:
        vocabulary: WordPiece entries in the order of their ids; ``[PAD]`` first.
        hidden: width of the vectors.
        layers: number of Transformer blocks.
        heads: attention heads; must divide ``hidden``.
        intermediate: inner width of the feed-forward layers.
        max_positions: places that have an embedding.
        activation: of the feed-forward layers: ``gelu`` (exact), ``gelu_tanh`` (approximate) or ``relu``.
        lowercase: whether the tokenizer folds case.
        strip_accents: whether the tokenizer drops accents.
        epsilon: of the layer normalisations.
        pooling: of the tokens, CLS and SEP included: ``mean``, ``cls`` or ``max``.
        normalize: whether the pooled vector is scaled to length 1.
        dropout: rate in the trainable blocks while training, in [0, 1).
        max_tokens: tokens kept of a text, CLS and SEP included.
        trainable_blocks: how many of the top blocks training changes; 0: none, None: all, embeddings included.
        output: ``pooled``, ``tokens`` or ``both``.
        name: the layer's name.

    Raises:
        ValueError: for an option out of range, or a vocabulary without special tokens.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        hidden: int,
        layers: int,
        heads: int,
        intermediate: int,
        max_positions: int = 512,
        activation: str = "gelu",
        lowercase: bool = True,
        strip_accents: bool = True,
        epsilon: float = 1e-12,
        pooling: str = "mean",
        normalize: bool = False,
        dropout: float = 0.1,
        max_tokens: int = 64,
        trainable_blocks: int | None = 0,
        output: str = "pooled",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_blocks=trainable_blocks, output=output, name=name, **kwargs)
        self.vocabulary = tuple(vocabulary)
        self.width = hidden
        self.layers, self.heads, self.intermediate, self.max_positions = layers, heads, intermediate, max_positions
        self.activation, self.epsilon, self.pooling, self.normalize = activation, epsilon, pooling, normalize
        self.dropout, self.max_tokens = dropout, max_tokens
        self._check()
        self._wordpiece = BertWordPiece(self.vocabulary, lowercase, strip_accents)
        self._frozen_blocks = 0 if trainable_blocks is None else layers - trainable_blocks

    def _check(self) -> None:
        where = f'BertEncoder "{self.name}"'
        for key, allowed in (("activation", ACTIVATIONS), ("pooling", POOLINGS)):
            if getattr(self, key) not in allowed:
                raise ValueError(f'{where}: {key} is "{getattr(self, key)}"; expected one of {", ".join(allowed)}')
        if self.width % self.heads:
            raise ValueError(f"{where}: heads is {self.heads}, which does not divide hidden {self.width}")
        try:
            self.check_max_tokens(self.max_tokens)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{where}: dropout is {self.dropout}; expected a rate in [0, 1)")
        if (self.trainable_blocks or 0) > self.layers:
            raise ValueError(
                f"{where}: trainable_blocks is {self.trainable_blocks}; expected at most {self.layers}, "
                "or null for all, embeddings included"
            )

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raises ValueError where there is no place for a piece, or no positions for all."""
        if not 3 <= max_tokens <= self.max_positions:
            raise ValueError(f"max_tokens is {max_tokens}; expected 3 (CLS, a piece, SEP) to {self.max_positions}")

    def preprocess(self, raw: Any, max_tokens: int | None = None) -> dict[str, Any]:
        """Texts, string ``[n]``, to ``{"ids": int32 [n, max_tokens]}``; 0 pads, a text of no word is all 0."""
        return {"ids": self._wordpiece.ids(raw, max_tokens or self.max_tokens)}

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights, the frozen ones not trainable; shapes do not depend on the input."""
        if self.built:
            return
        self.embedding = keras.layers.Embedding(
            len(self.vocabulary), self.width, embeddings_initializer=_initializer(), name="embedding"
        )
        self.positions = keras_nlp.layers.PositionEmbedding(
            self.max_positions, initializer=_initializer(), name="positions"
        )
        self.norm = keras.layers.LayerNormalization(epsilon=self.epsilon, name="norm")
        self.drop = keras.layers.Dropout(self.dropout, name="drop")
        self.blocks = [
            keras_nlp.layers.TransformerEncoder(
                self.intermediate,
                self.heads,
                dropout=self.dropout,
                activation=_ACTIVATIONS[self.activation],
                layer_norm_epsilon=self.epsilon,
                kernel_initializer=_initializer(),
                name=f"block_{i}",
            )
            for i in range(self.layers)
        ]
        below = [self.embedding, self.positions, self.norm]
        with tf.init_scope():
            some = tf.zeros([1, 1, self.width])
            for layer in (self.positions, self.norm, *self.blocks):
                layer(some)  # a block's build leaves out its attention's weights
            self.embedding.build(None)
        if self.trainable_blocks is not None:
            for layer in (*below, *self.blocks[: self._frozen_blocks]):
                layer.trainable = False
        super().build(input_shape)

    def lower(self, features: Mapping[str, Any], output: str | None = None) -> dict[str, Any]:
        """Ids through the frozen blocks.

        Returns:
            With every block frozen ``values`` float ``[n, T, hidden]`` and ``mask`` bool ``[n, T]``, T being 1 when
            pooled; with some frozen ``hidden`` float ``[n, max_tokens, hidden]`` and ``mask``; with none ``ids``.
        """
        if self.trainable_blocks is None:
            return dict(features)
        if not self.built:
            with tf.init_scope():
                self.build()
        values, mask = self._embed(features["ids"], training=False)
        values = _through(self.blocks[: self._frozen_blocks], values, mask, training=False)
        if self.trainable_blocks == 0:
            return self._give(values, mask, output)._asdict()
        return {"hidden": values, "mask": mask}

    def call(self, features: Mapping[str, Any], training: bool = False, output: str | None = None) -> Tokens:
        """What ``lower`` gave to ``Tokens``: values ``[n, T, hidden]``, mask ``[n, T]``."""
        if self.trainable_blocks == 0:
            return Tokens(features["values"], features["mask"])
        if self.trainable_blocks is None:
            values, mask = self._embed(features["ids"], training)
        else:
            values, mask = features["hidden"], features["mask"]
        return self._give(_through(self.blocks[self._frozen_blocks :], values, mask, training), mask, output)

    def _embed(self, ids: Any, training: bool) -> tuple[Any, Any]:
        values = self.embedding(ids)
        values = self.norm(values + self.positions(values))
        return self.drop(values, training=training), tf.not_equal(ids, 0)

    def _give(self, values: Any, mask: Any, output: str | None) -> Tokens:
        output = output or self.output_kind
        values = tf.where(mask[..., None], values, tf.zeros_like(values))
        if output == "tokens":
            return Tokens(values, mask)
        pooled, there = self._pool(values, mask)[:, None], mask[:, :1]  # CLS is there when anything is
        if output == "pooled":
            return Tokens(pooled, there)
        return Tokens(tf.concat([pooled, values], 1), tf.concat([there, mask], 1))

    def _pool(self, values: Any, mask: Any) -> Any:
        """Tokens, zero where masked, to one vector ``[n, hidden]``, zero where nothing is there."""
        if self.pooling == "cls":
            pooled = values[:, 0]
        elif self.pooling == "max":
            pooled = tf.reduce_max(tf.where(mask[..., None], values, values.dtype.min), axis=1)
            pooled = tf.where(mask[:, :1], pooled, tf.zeros_like(pooled))
        else:
            count = tf.reduce_sum(tf.cast(mask, values.dtype), axis=1, keepdims=True)
            pooled = tf.reduce_sum(values, axis=1) / tf.maximum(count, 1)
        return tf.math.l2_normalize(pooled, axis=-1, epsilon=1e-24) if self.normalize else pooled

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``, the vocabulary included."""
        return {
            **super().get_config(),
            "vocabulary": list(self.vocabulary),
            "hidden": self.width,
            "layers": self.layers,
            "heads": self.heads,
            "intermediate": self.intermediate,
            "max_positions": self.max_positions,
            "activation": self.activation,
            "lowercase": self._wordpiece.lowercase,
            "strip_accents": self._wordpiece.strip_accents,
            "epsilon": self.epsilon,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "dropout": self.dropout,
            "max_tokens": self.max_tokens,
        }


def _through(blocks: Sequence[Any], values: Any, mask: Any, training: bool) -> Any:
    """Tokens ``[n, T, d]`` through blocks, as ``[n, T, d]``.

    Most texts are shorter than T, and the time grows with what is computed, padding included: the blocks see as many
    places as the longest text has, but under XLA, which wants static shapes, all.
    """
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    room = values.shape[1]
    if GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        longest = room
    else:
        longest = tf.maximum(tf.reduce_max(tf.math.count_nonzero(mask, axis=1, dtype=tf.int32)), 1)
    values, mask = values[:, :longest], mask[:, :longest]
    for block in blocks:
        values = block(values, padding_mask=mask, training=training)
    values = tf.pad(values, [[0, 0], [0, room - longest], [0, 0]])
    return tf.ensure_shape(values, [values.shape[0], room, values.shape[2]])
