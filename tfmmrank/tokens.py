"""Tokens: what every tower gives and every fusion takes."""

from __future__ import annotations

from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """Vectors of one modality and which of them are there.

    Attributes:
        values: float tensor ``[..., T, d]``. What stands where the mask is false must not matter to any consumer.
        mask: bool tensor ``[..., T]``. A missing modality is all false.
    """

    values: Any
    mask: Any
