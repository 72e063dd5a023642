"""WordPiece: a vocabulary learnt from the shop's own texts, and a tokenizer made of graph ops."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tfmmrank.stack import tf, tf_text

PAD, UNKNOWN, SEPARATOR = "[PAD]", "[UNK]", "[SEP]"
RESERVED = [PAD, UNKNOWN, SEPARATOR]


def learn_vocabulary(texts: Iterable[Sequence[bytes | str]], size: int) -> list[str]:
    """Learns a lower-cased, accent-stripped WordPiece vocabulary with tensorflow-text's learner.

    Args:
        texts: batches of UTF-8 texts, once through.
        size: upper bound on the number of pieces, reserved ones included.

    Returns:
        Pieces; ``[PAD]``, ``[UNK]``, ``[SEP]`` come first. Chinese characters are pieces of their own.
    """
    from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

    splitter = tf_text.BertTokenizer(_empty_lookup(), lower_case=True)._basic_tokenizer
    counts: Counter[str] = Counter()
    for batch in texts:
        if len(batch):
            words = splitter.tokenize(tf.constant(list(batch)))
            counts.update(word.decode("utf-8", "ignore") for word in words.flat_values.numpy())
    counts.pop("", None)
    characters = sorted({character for word in counts for character in word})
    found: list[str] = []
    if counts:
        found = learner.learn(counts.items(), vocab_size=size, reserved_tokens=RESERVED, include_joiner_token=True)
    # On a small corpus the learner stops early: fill up with its characters, so that little is unknown, and then with
    # its repeated words, so that they match as a whole.
    pieces = dict.fromkeys([*RESERVED, *found])
    fill = [piece for c in characters for piece in ((c,) if _is_cjk(c) else (c, "##" + c))]
    fill += [word for word, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])) if count > 1]
    for piece in fill:
        if len(pieces) < size:
            pieces.setdefault(piece)
    return list(pieces)[:size]


def _empty_lookup() -> Any:
    """BertTokenizer asks for a table although only its splitter is used here."""
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant([UNKNOWN]), tf.constant([0], tf.int64))
    return tf.lookup.StaticVocabularyTable(initializer, 1)


def _is_cjk(character: str) -> bool:
    return "CJK" in unicodedata.name(character, "")


class WordPiece:
    """Texts to ids, with ops that stock TensorFlow Serving knows.

    Args:
        vocabulary: from ``learn_vocabulary``.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.tokenizer = tf_text.FastBertTokenizer(
            list(vocabulary), token_out_type=tf.int32, unknown_token=UNKNOWN, lower_case_nfd_strip_accents=True
        )
        self.separator = list(vocabulary).index(SEPARATOR)

    def __call__(self, columns: Sequence[Any], length: int) -> Any:
        """Tokenizes and packs several text columns into one sequence.

        Args:
            columns: string tensors ``[n]``; a separator stands between two columns that both have text.
            length: T; longer texts are cut, the columns sharing the room in their order.

        Returns:
            int32 ``[n, T]``; 0 is padding.
        """
        packed = None
        for column in columns:
            ids = self.tokenizer.tokenize(column)[:, : length]
            if packed is None:
                packed = ids
                continue
            both = (packed.row_lengths() > 0) & (ids.row_lengths() > 0)
            joint = tf.RaggedTensor.from_row_lengths(
                tf.fill([tf.reduce_sum(tf.cast(both, tf.int32))], self.separator), tf.cast(both, tf.int64)
            )
            packed = tf.concat([packed, joint, ids], axis=1)
        return packed[:, :length].to_tensor(0, shape=[None, length])
