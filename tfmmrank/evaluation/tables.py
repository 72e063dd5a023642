"""Systems side by side on the same lists: means, intervals, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tfmmrank.evaluation import metrics
from tfmmrank.evaluation.bootstrap import RESAMPLES, Difference, Interval, intervals, paired_difference
from tfmmrank.evaluation.metrics import TIES_AVERAGED, Empty, Gain, PerQuery
from tfmmrank.evaluation.scoring import check_scores, labels_of
from tfmmrank.registry import nearest

TIES_TELL = 0.002  # a difference between NDCG with ties worst first and averaged that is worth pointing at


@dataclass(frozen=True)
class Row:
    """One system.

    Attributes:
        metrics: values per query, by metric.
        intervals: means with confidence intervals, by metric.
        difference: of the main metric, this system minus the reference; None for the reference.
    """

    metrics: dict[str, PerQuery]
    intervals: dict[str, Interval]
    difference: Difference | None


@dataclass(frozen=True)
class Table:
    """What ``compare`` found; prints as text.

    Attributes:
        dataset: name of the dataset.
        split: the split compared on.
        rows: by system, in the order given.
        reference: the system that differences are taken from.
        metric_names: the first is the main one, ``ndcg@k``.
        level: confidence level of the intervals.
        resamples: of the bootstrap and of the randomisation test.
        seed: of both.
    """

    dataset: str
    split: str
    rows: dict[str, Row]
    reference: str
    metric_names: list[str]
    level: float
    resamples: int
    seed: int

    @property
    def main(self) -> str:
        """Name of the main metric, such as ``ndcg@10``."""
        return self.metric_names[0]

    def interval(self, system: str, metric: str | None = None) -> Interval:
        """A system's mean and interval; default: of the main metric."""
        if system not in self.rows:
            raise KeyError(f'the table has no system "{system}"{nearest(system, list(self.rows))}')
        return self.rows[system].intervals[metric or self.main]

    def mean(self, system: str, metric: str | None = None) -> float:
        """A system's mean; default: of the main metric."""
        return self.interval(system, metric).mean

    def per_query(self, system: str, metric: str | None = None) -> PerQuery:
        """A system's values per query; default: of the main metric."""
        return self.rows[system].metrics[metric or self.main]

    def sliced(self, slices: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        """The main metric within parts of the queries.

        Args:
            slices: bool ``[Q]`` by name.

        Returns:
            ``{slice: {"used": …, "skipped": …, "systems": {system: Interval}}}``.
        """
        found: dict[str, dict[str, Any]] = {}
        names = list(self.rows)
        values = np.stack([self.per_query(name).values for name in names], axis=1)
        for title, mask in slices.items():
            inside = values[np.asarray(mask, bool)]
            some = intervals(inside, self.level, self.resamples, self.seed)
            used = int((~np.isnan(inside[:, 0])).sum())
            found[title] = {
                "used": used,
                "skipped": len(inside) - used,
                "systems": dict(zip(names, some, strict=True)),
            }
        return found

    @property
    def caption(self) -> str:
        """What the numbers rest on, in a sentence or three."""
        measured = next(iter(self.rows.values())).metrics  # used and skipped depend on labels alone
        conditions: dict[str, list[str]] = {}
        for name in self.metric_names:
            some = measured[name]
            basis = f"{some.convention}; {some.used} queries used, {some.skipped} skipped"
            conditions.setdefault(basis, []).append(title(name))
        lines = [f"{', '.join(names)}: {basis}." for basis, names in conditions.items()]
        lines.append(
            f"Brackets: {self.level:.0%} percentile bootstrap interval over queries, {self.resamples:,} resamples."
        )
        if len(self.rows) > 1:
            lines.append(
                f"p: two-sided paired randomisation test against {self.reference}, not corrected for multiple "
                "comparisons."
            )
        return " ".join(lines)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text."""
        header = ["system", f"{title(self.main)} [{self.level:.0%}]"]
        paired = len(self.rows) > 1
        header += [f"− {self.reference}", "p"] if paired else []
        header += [title(name).replace(title(self.main + TIES_AVERAGED), "ties avg.") for name in self.metric_names[1:]]
        body = []
        for name, row in self.rows.items():
            cells = [name, _number(row.intervals[self.main])]
            if paired:
                difference = row.difference
                cells += ["", ""] if difference is None else [f"{difference.mean:+.4f}", p_text(difference.p_value)]
            body.append(cells + [f"{row.intervals[other].mean:.4f}" for other in self.metric_names[1:]])
        return header, body

    def __str__(self) -> str:
        header, body = self.cells()
        widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
        lines = [
            "  ".join(
                [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
            )
            for line in [header, *body]
        ]
        rule = "-" * len(lines[0])
        return "\n".join([f"{self.dataset}, split {self.split}", lines[0], rule, *lines[1:], self.caption])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values per query, as JSON values; NaN becomes None."""
        systems = {}
        for name, row in self.rows.items():
            systems[name] = {
                "metrics": {
                    metric: {
                        **_interval_dict(row.intervals[metric]),
                        "used": row.metrics[metric].used,
                        "skipped": row.metrics[metric].skipped,
                        "convention": row.metrics[metric].convention,
                    }
                    for metric in self.metric_names
                },
                "difference": None
                if row.difference is None
                else {
                    **_interval_dict(row.difference),
                    "p_value": _finite(row.difference.p_value),
                    "queries": row.difference.queries,
                },
            }
        return {
            "dataset": self.dataset,
            "split": self.split,
            "main": self.main,
            "reference": self.reference,
            "level": self.level,
            "resamples": self.resamples,
            "seed": self.seed,
            "systems": systems,
        }


def compare(
    data: Any,
    split: str,
    systems: Mapping[str, Sequence[np.ndarray]],
    k: int = 10,
    *,
    gain: Gain = "exp2",
    empty: Empty = "skip",
    threshold: float = 0.0,
    reference: str | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Table:
    """Puts systems side by side.

    NDCG stands twice: with ties worst first, the figure to quote, and with ties averaged. A system that ties a lot,
    such as BM25 where no word matches, falls under a random order in the first; the second tells what that owes to
    ties.

    Args:
        data: a ``Prepared`` dataset.
        split: the split that the scores are of.
        systems: by name, one array of scores a list, in the order of ``data.lists(split)``.
        k: cut-off of NDCG, precision and recall.
        gain: of NDCG; see ``metrics.ndcg``.
        empty: what NDCG does with a query that has no item of positive gain; the other metrics alike.
        threshold: for the binary metrics, an item is relevant whose grade is over it.
        reference: the system that the others are compared with; default: the first.
        level: of the confidence intervals.
        resamples: of the bootstrap and the randomisation test.
        seed: of both.

    Raises:
        ValueError: for no systems, an unknown reference, or scores that do not fit the lists.
    """
    if not systems:
        raise ValueError("compare: systems is empty; expected at least one system's scores")
    reference = next(iter(systems)) if reference is None else reference
    if reference not in systems:
        known = list(systems)
        raise ValueError(f'compare: no system "{reference}"{nearest(reference, known)}; systems: {", ".join(known)}')
    lists, labels = data.lists(split), labels_of(data, split)
    binary: dict[str, Any] = {"threshold": threshold, "empty": empty}
    measures = [
        partial(metrics.ndcg, k=k, gain=gain, empty=empty),
        partial(metrics.ndcg, k=k, gain=gain, empty=empty, ties="average"),
        partial(metrics.mrr, **binary),
        partial(metrics.average_precision, **binary),
        partial(metrics.precision, k=k, **binary),
        partial(metrics.recall, k=k, **binary),
        partial(metrics.auc, threshold=threshold),
    ]
    values: dict[str, dict[str, PerQuery]] = {}
    for name, scores in systems.items():
        check_scores(lists, scores, f'system "{name}"')
        values[name] = {measured.name: measured for measured in (measure(labels, scores) for measure in measures)}
    metric_names = list(values[reference])
    flat = [values[name][metric].values for name in values for metric in metric_names]
    found = iter(intervals(np.stack(flat, axis=1), level, resamples, seed))
    rows = {}
    for name, measured in values.items():
        of = {metric: next(found) for metric in metric_names}
        difference = None
        if name != reference:
            mine, theirs = measured[metric_names[0]].values, values[reference][metric_names[0]].values
            difference = paired_difference(mine, theirs, level, resamples, seed)
        rows[name] = Row(measured, of, difference)
    return Table(str(data.name), split, rows, reference, metric_names, level, resamples, seed)


def title(metric: str) -> str:
    """A metric's name as it is printed: ``ndcg@10`` is NDCG@10, ``precision@10`` is P@10."""
    name, at, k = metric.partition("@")
    return {"precision": "P", "recall": "R"}.get(name, name.upper()) + at + k


def p_text(p_value: float) -> str:
    """A p-value to three digits."""
    return "–" if np.isnan(p_value) else "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _number(interval: Interval) -> str:
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else value


def _interval_dict(interval: Interval) -> dict[str, float | None]:
    return {"mean": _finite(interval.mean), "low": _finite(interval.low), "high": _finite(interval.high)}
