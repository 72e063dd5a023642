"""How alike a pretrained encoder finds the query and the item."""

from __future__ import annotations

from typing import Any

from tfmmrank.fusion.late_interaction import masked_softmax
from tfmmrank.matching.base import Match, matches
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower


class _OfOneEncoder(Match):
    """Base of the matches of one encoder's vectors."""

    wants: tuple[str, ...]

    def bind(self, query: Tower, item: Tower) -> None:
        """Raises ValueError unless both give vectors of one space, of the kind that this match compares."""
        for tower in (query, item):
            output = getattr(tower, "output_kind", None)
            if output not in self.wants:
                raise ValueError(
                    f'tower "{tower.name}" has output {output!r}; expected one of {", ".join(self.wants)} (of a tower '
                    "with a pretrained encoder)"
                )
        if query.match_width != item.match_width:
            raise ValueError(
                f'towers "{query.name}" and "{item.name}" have encoders of {query.match_width} and {item.match_width} '
                "numbers; expected one encoder for both (share)"
            )
        self._first = [int(tower.output_kind == "both") for tower in (query, item)]


@matches.register("cosine")
@keras.utils.register_keras_serializable("tfmmrank")
class CosineMatch(_OfOneEncoder):
    """Cosine of the pooled vectors, as zero-shot retrieval takes it, and whether both are there."""

    features = ("cosine", "present")
    wants = ("pooled", "both")

    def call(self, query: Tokens, item: Tokens) -> Any:
        """See ``Match``."""
        there = query.mask[:, None, 0] & item.mask[:, :, 0]
        cosine = tf.einsum("bd,bld->bl", _unit(query.values[:, 0]), _unit(item.values[:, :, 0]))
        return _with_presence([cosine], there)


@matches.register("late")
@keras.utils.register_keras_serializable("tfmmrank")
class LateMatch(_OfOneEncoder):
    """ColBERT's MaxSim [Khattab and Zaharia, 2020] without training: each query token's best cosine with an item token.

    Their mean and their minimum over the query's tokens, and whether both sides have tokens.
    """

    features = ("mean", "minimum", "present")
    wants = ("tokens", "both")

    def call(self, query: Tokens, item: Tokens) -> Any:
        """See ``Match``."""
        asked, asking = query.values[:, self._first[0] :], query.mask[:, None, self._first[0] :]
        offered, offering = item.values[:, :, self._first[1] :], item.mask[:, :, self._first[1] :]
        cosines = tf.einsum("bqd,bltd->blqt", _unit(asked), _unit(offered))
        best = tf.reduce_max(tf.where(offering[:, :, None], cosines, -1.0), -1)
        mean = tf.reduce_sum(best * masked_softmax(tf.zeros_like(best[:, :1]), asking), -1)
        minimum = tf.reduce_min(tf.where(asking, best, 1.0), -1)
        return _with_presence([mean, minimum], tf.reduce_any(asking, -1) & tf.reduce_any(offering, -1))


def _unit(vectors: Any) -> Any:
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), -1, epsilon=1e-12)


def _with_presence(numbers: list[Any], there: Any) -> Any:
    present = tf.cast(there, tf.float32)
    return tf.stack([*(tf.where(there, number, 0.0) for number in numbers), present], -1)
