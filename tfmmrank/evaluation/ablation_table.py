"""An ablation's table: one comparison, shown in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfmmrank.evaluation.tables import Table

_TITLES = {
    "masked": "hidden while scoring, nothing trained anew",
    "retrained": "trained anew without",
    "fusions": "trained anew with another fusion",
}


@dataclass(frozen=True)
class AblationTable:
    """What ``ablate`` found; prints as text.

    Attributes:
        table: the model and all variants, compared with the model.
        groups: systems of the table by part: ``masked``, ``retrained``, ``fusions``.
        left_out: by system that is not in the table, why.
        fusion: the model's; None where its recipe was not read.
    """

    table: Table
    groups: Mapping[str, Sequence[str]]
    left_out: Mapping[str, str]
    fusion: str | None = None

    @property
    def caption(self) -> str:
        """What the numbers rest on."""
        return self._narrow.caption

    @property
    def notes(self) -> list[str]:
        """One line a system that is not in the table."""
        return [f"{system}: left out, because {why}" for system, why in self.left_out.items()]

    def cells(self) -> tuple[list[str], list[tuple[str, list[list[str]]]]]:
        """The header, and groups of rows with their titles, as text; the model's row comes first and has no title."""
        header, body = self._narrow.cells()
        rows = {row[0]: row for row in body}
        groups = [(self.titles[part], [rows[name] for name in names]) for part, names in self.groups.items() if names]
        return header, [("", [rows[self.table.reference]]), *groups]

    def __str__(self) -> str:
        header, groups = self.cells()
        rows = [header, *(row for _, some in groups for row in some)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]

        def line(row: Sequence[str]) -> str:
            return "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])

        lines = [f"{self.table.dataset}, split {self.table.split}: ablation", line(header), "-" * len(line(header))]
        for title, some in groups:
            lines += [f"{title}:"] if title else []
            lines += [line(row) for row in some]
        return "\n".join([*lines, self.caption, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """The whole table, with the groups' systems and what was left out, as JSON values."""
        groups = {part: list(names) for part, names in self.groups.items()}
        return {**self.table.to_dict(), "groups": groups, "left_out": dict(self.left_out), "fusion": self.fusion}

    @property
    def _narrow(self) -> Table:
        """The table of the main metric alone."""
        return replace(self.table, metric_names=[self.table.main])

    @property
    def titles(self) -> dict[str, str]:
        """What the groups' systems are, by part."""
        own = f" (the model's is {self.fusion})" if self.fusion else ""
        return {part: _TITLES[part] + (own if part == "fusions" else "") for part in self.groups}
