"""One list as files of other systems hold it: a query, its labels, and features that belong to the list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmmrank.data.errors import DataError, Report


@dataclass(frozen=True)
class RawList:
    """A list that carries its features.

    Attributes:
        query_id: the query's id; empty where its file tells none.
        query: raw query columns: UTF-8 bytes, or a float.
        labels: grades ``[n]``, float32.
        weights: float32 ``[n]``.
        features: ``{name: array [n] or [n, width]}``: float32 with NaN for missing, or an object array of bytes
            ``[n]``.
    """

    query_id: str
    query: dict[str, Any]
    labels: np.ndarray
    weights: np.ndarray
    features: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.labels)


class BadPartError(DataError):
    """A line, item or record that cannot be used. Readers raise it, catch it, and hand it to the report.

    Args:
        cause: what it is counted as.
        message: names the place, what was found, and what was expected.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause

    def tell(self, report: Report) -> None:
        """Counts it. Raises DataError when failing on bad rows."""
        report.bad_row(self.cause, str(self))
