"""Training in mixed precision: a twin computes in bfloat16, the ranker itself stays in float32."""

from __future__ import annotations

from typing import Any

from tfmmrank.precision import MIXED, policy


def mixed_twin(ranker: Any) -> Any:
    """A built ranker's twin: the same parts, with copies of its weights, that compute in bfloat16.

    Weights, match features, list context, scores and losses are float32 in it too. Nothing of the ranker that is saved
    and exported ever knows of bfloat16.
    """
    with policy(MIXED):
        twin = type(ranker).from_config(ranker.get_config()).build_from_columns()
    copy_weights(ranker, twin)
    return twin


def copy_weights(source: Any, target: Any) -> None:
    """Gives one ranker another's weights. Raises ValueError when they are not alike."""
    for weight, value in zip(target.weights, source.weights, strict=True):
        weight.assign(value)
