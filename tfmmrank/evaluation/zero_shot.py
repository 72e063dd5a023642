"""Ranking by a pretrained encoder as it comes: the cosine of the query and the item."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmmrank.evaluation.pair_features import PairFeatures
from tfmmrank.evaluation.scoring import split_lists
from tfmmrank.registry import nearest

_LAST = -2.0  # below every cosine


class ZeroShot:
    """The cosine of a frozen encoder's pooled vectors, as retrieval without training takes it.

    An item without the text or picture ranks last.

    Args:
        features: of a ranker with a ``cosine`` match.
        match: that match's name.

    Raises:
        ValueError: for a match that is not there, or not of frozen encoders.
    """

    def __init__(self, features: PairFeatures, match: str) -> None:
        if match not in features.cosines:
            known = features.cosines
            raise ValueError(
                f'zero-shot: no cosine match "{match}" of frozen encoders{nearest(match, known)}; '
                f"those are: {', '.join(known) or 'none'}"
            )
        self.features, self.match = features, match
        self.name = f"zero-shot {match}"

    def fit(self, data: Any, split: str = "train") -> ZeroShot:
        """Learns nothing."""
        self.features.check(data)
        return self

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """Cosines in [-1, 1]; -2 without the modality."""
        self.features.check(data)
        names, matches = self.features.match_names, self.features.of_matches(split)
        cosine, present = (matches[:, names.index(f"{self.match}/{feature}")] for feature in ("cosine", "present"))
        return split_lists(data.lists(split), np.where(present > 0, cosine, np.float32(_LAST)))
