"""What layers compute in: float32, or bfloat16 with weights in float32 (Keras's policy ``mixed_bfloat16``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tfmmrank.stack import keras

FLOAT32, MIXED = "float32", "mixed_bfloat16"


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Lets layers that are made within the block follow a Keras policy."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def config_without_policy(config: dict[str, Any]) -> dict[str, Any]:
    """A layer's configuration less its policy: that belongs to a training, and not to what is saved and served."""
    return {key: value for key, value in config.items() if key != "dtype"}
