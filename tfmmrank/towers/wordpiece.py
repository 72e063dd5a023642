"""WordPiece: a vocabulary learnt from the shop's own texts, and a tokenizer of stock graph ops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tfmmrank.stack import tf, tf_text

PAD, UNKNOWN, SEPARATOR = "[PAD]", "[UNK]", "[SEP]"
RESERVED = (PAD, UNKNOWN, SEPARATOR)
PAD_ID, UNKNOWN_ID, SEPARATOR_ID = range(3)

_LEARNT_FROM = 20_000  # distinct words: the learner is plain Python, and rarer ones hardly move the pieces
_LONGEST_WORD = 24
_MIN_COUNT = 2  # a piece seen once would get an embedding that nothing trains


def clean(texts: Any) -> Any:
    """Makes texts valid UTF-8 (broken bytes become U+FFFD) and folds full-width letters and their like (NFKC)."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    return tf_text.normalize_utf8(texts, "NFKC")


class WordCounter:
    """Counts words as BERT's basic tokenizer splits them: lower case, no accents, one word per Chinese character."""

    def __init__(self) -> None:
        from tensorflow_text.python.ops.bert_tokenizer import BasicTokenizer

        self.counts: Counter[str] = Counter()
        splitter = BasicTokenizer(lower_case=True)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def count(texts: Any) -> tuple[Any, Any]:
            words, _, counts = tf.unique_with_counts(splitter.tokenize(clean(texts)).flat_values)
            return words, counts

        self._count = count

    def add(self, texts: Iterable[bytes]) -> None:
        """Counts the words of some texts."""
        values = list(texts)
        words, counts = self._count(tf.constant(values, tf.string, shape=[len(values)]))
        for word, count in zip(words.numpy().tolist(), counts.numpy().tolist(), strict=True):
            self.counts[word.decode("utf-8")] += count


def learn_vocabulary(counts: Counter[str], size: int) -> list[str]:
    """Learns a WordPiece vocabulary with tensorflow-text's learner.

    Words of one character (every Chinese character, punctuation) are taken whole, most frequent first and at most half
    of the vocabulary; the learner would give each a useless ``##`` twin. The rest goes to the pieces of longer words.

    Args:
        counts: how often each word occurs.
        size: largest number of entries, the three reserved ones included.

    Returns:
        Entries; ``[PAD]``, ``[UNK]`` and ``[SEP]`` come first.
    """
    from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    words = [entry for entry in ranked if len(entry[0]) > 1]
    characters = [word for word, _ in ranked if len(word) == 1]
    vocabulary = [*RESERVED, *characters[: (size - len(RESERVED)) // (2 if words else 1)]]
    if words:
        room = size - len(vocabulary)
        pieces = learner.learn(
            words,
            vocab_size=room,
            reserved_tokens=[],
            lower_thresh=_MIN_COUNT,
            max_input_tokens=_LEARNT_FROM,
            max_token_length=_LONGEST_WORD,
            max_unique_chars=max(1, room // 4),  # a character costs two entries, alone and as a suffix
            slack_ratio=0.1,
        )
        seen = set(vocabulary)
        vocabulary += [piece for piece in pieces if piece not in seen][:room]
    return vocabulary


class WordPiece:
    """Tokenizes with core and tensorflow-text ops only, which stock TF Serving knows.

    Args:
        vocabulary: entries as ``learn_vocabulary`` gives them.

    Raises:
        ValueError: when the vocabulary does not start with the reserved entries.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        if tuple(vocabulary[: len(RESERVED)]) != RESERVED:
            raise ValueError(f"vocabulary starts with {list(vocabulary[:3])}; expected {list(RESERVED)}")
        self.vocabulary = list(vocabulary)
        # tensorflow-text's tokenizer holds a constant, which must not belong to whatever graph is being traced.
        with tf.init_scope():
            self._tokenizer = tf_text.FastBertTokenizer(
                vocab=self.vocabulary,
                token_out_type=tf.int32,
                unknown_token=UNKNOWN,
                lower_case_nfd_strip_accents=True,
            )

    def ids(self, columns: Sequence[Any], max_tokens: int) -> Any:
        """Token ids of several text columns, joined by ``[SEP]``, cut and padded: int32 ``[n, max_tokens]``.

        Args:
            columns: string tensors ``[n]``; the first ones win when there is no room for all.
            max_tokens: width of the result; 0 pads.
        """
        parts: list[Any] = []
        before = None
        for texts in columns:
            tokens = self._tokenizer.tokenize(clean(texts))
            lengths = tokens.row_lengths()
            if before is not None:
                separators = tf.cast((before > 0) & (lengths > 0), tf.int64)
                parts.append(
                    tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(separators)], SEPARATOR_ID), separators)
                )
            parts.append(tokens)
            before = lengths if before is None else before + lengths
        joined = tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]
        return tf.ensure_shape(joined.to_tensor(PAD_ID, shape=[None, max_tokens]), [None, max_tokens])
