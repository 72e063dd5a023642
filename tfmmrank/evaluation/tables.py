"""Systems side by side on the same lists: means, intervals, differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tfmmrank.evaluation import metrics
from tfmmrank.evaluation.bootstrap import RESAMPLES, Difference, Interval, holm, intervals, paired_difference
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
        query_ids: of the queries, in the order of the metrics' values.
    """

    dataset: str
    split: str
    rows: dict[str, Row]
    reference: str
    metric_names: list[str]
    level: float
    resamples: int
    seed: int
    query_ids: tuple[str, ...]

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
                f"p: two-sided paired randomisation test against {self.reference}, {self.resamples:,} flips of signs "
                f"(exact where fewer do); < means that none came as far."
            )
        if len(self.rows) > 2:
            lines.append(
                f"p Holm: the same corrected for {len(self.rows) - 1} comparisons (Holm-Bonferroni): of all claims "
                f"made at p Holm < {1 - self.level:.2g}, the chance that any is false keeps to that."
            )
        return " ".join(lines)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text."""
        header = ["system", f"{title(self.main)} [{self.level:.0%}]"]
        paired = ["p"] if len(self.rows) == 2 else ["p", "p Holm"] if len(self.rows) > 2 else []
        header += [f"− {self.reference}", *paired] if paired else []
        header += [title(name).replace(title(self.main + TIES_AVERAGED), "ties avg.") for name in self.metric_names[1:]]
        body = []
        for name, row in self.rows.items():
            cells = [name, _number(row.intervals[self.main])]
            if paired:
                cells += _difference_cells(row.difference)[: len(paired) + 1]
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
                    "p_floor": row.difference.p_floor,
                    "p_holm": _finite(row.difference.p_holm),
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

    Every system is tested against the reference by the main metric, and the p-values are corrected for their number
    (``holm``). 10,000 resamples tell p-values down to 0.0001 apart: with ten comparisons, a corrected one down to
    0.001.

    Args:
        data: a ``Prepared`` dataset.
        split: the split that the scores are of.
        systems: by name, one array of scores a list, in the order of ``data.lists(split)``.
        k: cut-off of NDCG, precision and recall.
        gain: of NDCG; see ``metrics.ndcg``.
        empty: what NDCG does with a query that has no item of positive gain; the other metrics alike, but AUC,
            which always skips it.
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
    return make_table(str(data.name), split, values, lists.query_ids, reference, level, resamples, seed)


def make_table(
    dataset: str,
    split: str,
    values: Mapping[str, Mapping[str, PerQuery]],
    query_ids: Iterable[str],
    reference: str,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Table:
    """The table of metrics per query ``{system: {metric: values}}``, of the same queries; the first metric is the main.

    Args:
        dataset: name of the dataset.
        split: name of the split.
        values: by system and metric.
        query_ids: of the queries, in the order of the values.
        reference: the system that the others are compared with.
        level: of the confidence intervals.
        resamples: of the bootstrap and the randomisation test.
        seed: of both.
    """
    metric_names = list(values[reference])
    flat = [values[name][metric].values for name in values for metric in metric_names]
    found = iter(intervals(np.stack(flat, axis=1), level, resamples, seed))
    means = {name: {metric: next(found) for metric in metric_names} for name in values}
    main = {name: measured[metric_names[0]].values for name, measured in values.items()}
    differences = differences_from(main, reference, level, resamples, seed)
    rows = {name: Row(dict(values[name]), means[name], differences.get(name)) for name in values}
    ids = tuple(map(str, query_ids))
    return Table(dataset, split, rows, reference, metric_names, level, resamples, seed, ids)


def differences_from(
    values: Mapping[str, np.ndarray], reference: str, level: float, resamples: int, seed: int
) -> dict[str, Difference]:
    """Every system minus the reference, with p-values corrected for all of them together.

    Args:
        values: ``[Q]`` by system.
        reference: one of them.
        level: of the confidence intervals.
        resamples: of the bootstrap and the randomisation test.
        seed: of both.
    """
    found = {
        name: paired_difference(mine, values[reference], level, resamples, seed)
        for name, mine in values.items()
        if name != reference
    }
    corrected = holm([difference.p_value for difference in found.values()])
    return {
        name: replace(difference, p_holm=p_holm)
        for (name, difference), p_holm in zip(found.items(), corrected, strict=True)
    }


def title(metric: str) -> str:
    """A metric's name as it is printed: ``ndcg@10`` is NDCG@10, ``precision@10`` is P@10."""
    name, at, k = metric.partition("@")
    return {"precision": "P", "recall": "R"}.get(name, name.upper()) + at + k


def p_text(p_value: float, at_floor: bool = False) -> str:
    """A p-value to four digits; ``at_floor``: one that may be smaller than its test can tell."""
    if np.isnan(p_value):
        return "–"
    if at_floor:
        digit = 10.0 ** np.floor(np.log10(p_value))
        above = np.ceil(p_value / digit) * digit
        return "<" + np.format_float_positional(above, precision=1, fractional=False, trim="-")
    return f"{p_value:.4f}" if p_value >= 0.0001 else "<0.0001"


def _difference_cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", ""]
    p_values = [p_text(p, difference.at_floor) for p in (difference.p_value, difference.p_holm)]
    return [f"{difference.mean:+.4f}", *p_values]


def _number(interval: Interval) -> str:
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else value


def _interval_dict(interval: Interval) -> dict[str, float | None]:
    return {"mean": _finite(interval.mean), "low": _finite(interval.low), "high": _finite(interval.high)}
