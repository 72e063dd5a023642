"""What a table says of one system, in a sentence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfmmrank.evaluation.bootstrap import Difference
from tfmmrank.evaluation.tables import Table, differences_from, p_text, title


class Verdict(NamedTuple):
    """The sentence, and the system that ranks better; empty where none can be told to."""

    sentence: str
    winner: str


def judge(table: Table, system: str) -> Verdict:
    """Whether a system ranks better than all others, the oracle aside, worse than one, or neither.

    By the main metric; a difference counts when its p-value, corrected for all systems of the table, is under
    1 − ``level``.
    """
    others = sorted((name for name in table.rows if name not in (system, "oracle")), key=table.mean, reverse=True)
    mine, metric = table.mean(system), title(table.main)
    if np.isnan(mine):
        return Verdict(f"No query could be measured, so nothing can be said of {system}.", "")
    if not others:
        return Verdict(f"{system} was measured alone: {metric} {mine:.3f}.", "")
    found = _differences(table, system)
    unsure = [other for other in others if not found[other].p_holm < 1 - table.level]
    better = [other for other in others if other not in unsure and table.mean(other) > mine]
    rival = (better or unsure or others)[0]
    figures = f"{metric} {mine:.3f} against {table.mean(rival):.3f}"
    p = f"{'p Holm' if len(found) > 1 else 'p'} {p_text(found[rival].p_holm, found[rival].at_floor)}"
    if better:
        figures = f"{metric} {table.mean(rival):.3f} against {mine:.3f}"
        return Verdict(f"{rival} ranks better than {system}: {figures}, {p}.", rival)
    if unsure:
        return Verdict(f"No significant difference between {system} and {rival}: {figures}, {p}.", "")
    if len(others) == 1:
        return Verdict(f"{system} ranks better than {rival}: {figures}, {p}.", system)
    return Verdict(f"{system} ranks better than every other system here: {figures} of {rival}, {p}.", system)


def _differences(table: Table, system: str) -> dict[str, Difference]:
    """All other systems minus this one."""
    known = {name: row.difference for name, row in table.rows.items() if row.difference is not None}
    if table.reference == system and len(known) == len(table.rows) - 1:
        return known
    values = {name: table.per_query(name).values for name in table.rows}
    return differences_from(values, system, table.level, table.resamples, table.seed)
