"""Bad input: one clear error, or a count by cause."""

from __future__ import annotations

from collections import Counter
from typing import Any


class DataError(ValueError):
    """Input that cannot be used; the message names file, row or key, value, and what was expected."""


class Report:
    """Counts what was found wrong, by cause, and stops at the first bad row when told to.

    Args:
        on_bad_row: ``fail`` raises at the first bad row; ``skip`` leaves it out and counts it.
    """

    def __init__(self, on_bad_row: str) -> None:
        self.on_bad_row = on_bad_row
        self.read: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def bad_row(self, cause: str, message: str, count: int = 1) -> None:
        """A row that cannot be used. Raises DataError when failing on bad rows."""
        if self.on_bad_row == "fail":
            raise DataError(f"{message} ({cause}; data.on_bad_row: skip leaves such rows out and counts them)")
        self.skipped[cause] += count
        self.examples.setdefault(cause, message)

    def note(self, cause: str, message: str, count: int = 1) -> None:
        """Something worth telling that is no fault of a row, such as an empty text or a log row that makes no label."""
        if count:
            self.noted[cause] += count
            self.examples.setdefault(cause, message)

    def to_dict(self) -> dict[str, Any]:
        """Rows ``read`` by table; rows ``skipped`` and things ``noted`` by cause; ``examples``, one a cause."""
        return {
            "read": dict(self.read),
            "skipped": dict(self.skipped),
            "noted": dict(self.noted),
            "examples": self.examples,
        }

    def summary(self) -> str:
        """The report as lines of text: what was read, left out, and worth knowing."""
        lines = ["read: " + ", ".join(f"{count:,} {what}" for what, count in self.read.items())]
        for title, counts in (("left out", self.skipped), ("noted", self.noted)):
            for cause, count in counts.most_common():
                lines.append(f"{title}: {count:,} × {cause}, such as {self.examples[cause]}")
        return "\n".join(lines)
