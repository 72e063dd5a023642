"""Which of the query's words stand in the item's text."""

from __future__ import annotations

from typing import Any

from tfmmrank.matching.base import Match, matches
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower
from tfmmrank.towers.lexical import LexicalTower


@matches.register("lexical")
@keras.utils.register_keras_serializable("tfmmrank")
class LexicalMatch(Match):
    """BM25, the share of the query's words that the item has, the same weighed by idf, and whether it has a text."""

    features = ("bm25", "overlap", "idf_overlap", "present")

    def bind(self, query: Tower, item: Tower) -> None:
        """Raises ValueError unless both are lexical towers of one set of statistics."""
        for tower in (query, item):
            if not isinstance(tower, LexicalTower):
                raise ValueError(f'tower "{tower.name}" is no lexical tower; expected one of kind lexical')
        if query.owner is not item.owner:  # type: ignore[attr-defined]
            raise ValueError(f'tower "{query.name}" does not share "{item.name}"; expected one set of word statistics')

    def call(self, query: Tokens, item: Tokens) -> Any:
        """See ``Match``."""
        asked, offered = query.values[:, None, :, None], item.values[:, :, None]
        same = tf.reduce_all(asked[..., :2] == offered[..., :2], -1) & item.mask[:, :, None]
        asking = query.mask[:, None]
        impacts = tf.cast(item.values[:, :, None, :, 2], tf.float32)
        bm25 = tf.reduce_sum(tf.where(asking, tf.reduce_max(tf.where(same, impacts, 0.0), -1), 0.0), -1)
        found = tf.cast(tf.reduce_any(same, -1) & asking, tf.float32)
        words = tf.cast(asking, tf.float32)
        idf = tf.where(asking, tf.cast(query.values[:, None, :, 3], tf.float32), 0.0)
        share = [tf.math.divide_no_nan(tf.reduce_sum(w * found, -1), tf.reduce_sum(w, -1)) for w in (words, idf)]
        present = tf.cast(tf.reduce_any(item.mask, -1), tf.float32)
        return tf.stack([bm25, *share, present], -1)
