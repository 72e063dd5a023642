"""The lexical tower: a text's words, weighed as BM25 weighs them, for exact matching."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfmmrank.stack import keras, tf, tf_text
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower, towers

#: Words are told apart by a hash of so many bits: a catalogue of 50,000 words has one in ten of them share a place.
_BITS = 19
_LOW = 1 << 10  # a place is kept as two numbers below 1,024: half precision is exact there
_WORD = r"[\p{L}\p{N}]+"
_ALONE = r"([\x{3040}-\x{30FF}\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}])"  # no spaces between words there


@towers.register("lexical")
@keras.utils.register_keras_serializable("tfmmrank")
class LexicalTower(Tower):
    """Words for a ``lexical`` match; it takes no part in the fusion.

    A word's impact on BM25 [Robertson and Zaragoza, 2009] belongs to the item alone, so it is computed once an item:
    idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean length)), with Lucene's idf, log(1 + (N - n + 0.5) /
    (n + 0.5)). Words are runs of letters and digits, lower case, without accents; Chinese, Japanese by the character.

    Args:
        columns: text columns, joined.
        side: ``query`` or ``item``; the query's tower shares the item's, whose statistics count.
        dim: of no meaning here: words have no vector.
        share: the lexical tower whose statistics this one uses.
        max_words: words kept of a text; those after are neither matched nor counted, save in the length.
        stem: whether English plurals are cut (the S-stemmer of Harman, 1991).
        k1: how soon repeating a word stops to count.
        b: how much long texts are held back, in [0, 1].
        name: the modality's name.

    Raises:
        ValueError: for an option out of range.
    """

    match_width = 4
    fusible = False
    learns_from_sharers = False
    shared_options = ("stem", "k1", "b")

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: LexicalTower | None = None,
        max_words: int = 32,
        stem: bool = True,
        k1: float = 1.2,
        b: float = 0.75,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, side=side, dim=dim, share=share, name=name, **kwargs)
        where = f'LexicalTower "{self.name}"'
        if side == "slot":
            raise ValueError(f"{where}: side is slot; expected query or item")
        if side == "query" and share is None:
            raise ValueError(f"{where}: side is query and share is missing; share the item tower whose words it meets")
        if max_words < 1:
            raise ValueError(f"{where}: max_words is {max_words}; expected at least 1")
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"{where}: k1 is {k1} and b is {b}; expected k1 of 0 or more, and b in [0, 1]")
        self.max_words = max_words
        self.stem: bool = stem if share is None else share.stem
        self.k1: float = k1 if share is None else share.k1
        self.b: float = b if share is None else share.b

    @property
    def owner(self) -> LexicalTower:
        """The tower that holds the statistics."""
        return self.share if self.share is not None else self

    def build(self, input_shape: Any = None) -> None:
        """Makes the statistics' weights; before ``adapt`` every word weighs alike."""
        if not self.built and self.share is None:
            self.idf = self.add_weight("idf", (1 << _BITS,), initializer="ones", trainable=False)
            self.mean_length = self.add_weight("mean_length", (), initializer="ones", trainable=False)
        super().build(input_shape)

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Counts in how many texts each word stands, and their mean length; of the items alone, not of queries."""
        self.build()
        texts = words = 0
        counts = np.zeros(1 << _BITS, np.int64)
        for batch in batches:
            places = self._places([tf.constant(batch[column]) for column in self.columns])
            lengths = places.row_lengths().numpy()
            texts, words = texts + len(lengths), words + int(lengths.sum())
            rows = np.repeat(np.arange(len(lengths)), lengths)
            once = np.unique(rows * (1 << _BITS) + places.flat_values.numpy())
            counts += np.bincount(once & ((1 << _BITS) - 1), minlength=1 << _BITS)
        self.idf.assign(np.log1p((texts - counts + 0.5) / (counts + 0.5)).astype(np.float32))
        self.mean_length.assign(max(1.0, words / max(1, texts)))

    def _places(self, texts: list[Any]) -> Any:
        """Texts to their words' places, ragged int64 ``[n, (words)]``."""
        text = tf.strings.join(texts, " ") if len(texts) > 1 else texts[0]
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        text = tf.strings.regex_replace(tf_text.normalize_utf8(text, "NFKD"), r"\p{Mn}", "")
        text = tf.strings.regex_replace(tf.strings.lower(text, encoding="utf-8"), _ALONE, r" \1 ")
        words = tf.strings.split(tf.strings.regex_replace(text, r"[^\p{L}\p{N}]+", " "))
        if self.owner.stem:
            words = words.with_flat_values(_without_plural(words.flat_values))
        return words.with_flat_values(tf.strings.to_hash_bucket_fast(words.flat_values, 1 << _BITS))

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Texts ``{column: string [n]}`` to ``{"places": int32 [n, max_words], -1 padding; "length": float [n]}``."""
        places = self._places([raw[column] for column in self.columns])
        kept = places.to_tensor(-1, shape=[None, self.max_words])
        return {
            "places": tf.cast(tf.ensure_shape(kept, [None, self.max_words]), tf.int32),
            "length": tf.cast(places.row_lengths(), tf.float32),
        }

    def embed(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Places to ``{"words": float16 [n, max_words, 4]}``: the place's high and low part, BM25's impact, the idf."""
        owner = self.owner
        if not owner.built:
            with tf.init_scope():
                owner.build()
        places = features["places"]
        there = places >= 0
        count = tf.reduce_sum(tf.cast(places[:, :, None] == places[:, None, :], tf.float32), -1)
        idf = tf.gather(owner.idf, tf.maximum(places, 0))
        length = owner.k1 * (1 - owner.b + owner.b * features["length"] / owner.mean_length)
        impact = idf * count * (owner.k1 + 1) / (count + length[:, None])
        parts = [tf.cast(places // _LOW, tf.float32), tf.cast(places % _LOW, tf.float32), impact, idf]
        words = tf.where(there[..., None], tf.stack(parts, -1), -1.0)
        return {"words": tf.cast(words, tf.float16)}

    def embed_state(self) -> bytes:
        """A digest of the statistics."""
        owner = self.owner
        owner.build()
        state = hashlib.blake2b(owner.idf.numpy().tobytes(), digest_size=16)
        state.update(owner.mean_length.numpy().tobytes())
        return state.digest()

    def match_tokens(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """Words ``[n, max_words, 4]``."""
        return Tokens(features["words"], features["words"][..., 0] >= 0)

    def embed_config(self) -> dict[str, Any]:
        """What texts are made into words by, besides the statistics."""
        return {"columns": self.columns, **{key: getattr(self, key) for key in ("max_words", "stem", "k1", "b")}}

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``; the statistics are weights."""
        return {**super().get_config(), "max_words": self.max_words, "stem": self.stem, "k1": self.k1, "b": self.b}


def _without_plural(words: Any) -> Any:
    """The S-stemmer: "berries" to "berry", "dresses" to "dresse", "shoes" to "shoe", "dress" as it is."""
    words = tf.strings.regex_replace(words, r"([^ea])ies$", r"\1y")
    words = tf.strings.regex_replace(words, r"([^aeo]e)s$", r"\1")
    return tf.strings.regex_replace(words, r"([^us])s$", r"\1")
