"""The report: one HTML file that stands alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank import __version__
from tfmmrank.atomic import write_text
from tfmmrank.evaluation.ablation_table import AblationTable
from tfmmrank.evaluation.charts import history_chart, systems_chart
from tfmmrank.evaluation.metrics import TIES_AVERAGED
from tfmmrank.evaluation.pages import render
from tfmmrank.evaluation.scoring import labels_of
from tfmmrank.evaluation.showcase import Scored, showcase
from tfmmrank.evaluation.slices import query_slices
from tfmmrank.evaluation.tables import TIES_TELL, Table, title
from tfmmrank.evaluation.verdict import judge

FILE = "index.html"
SHOWN = 10  # ranks shown of each query
_FOLDERS = re.compile(r"""(?<![^\s"'(])/(?:[^/:\s][^/:\n]*/)+""")  # of an absolute path, without the file's name


def write_report(
    out_dir: str | Path,
    *,
    title: str,
    table: Table,
    history: Mapping[str, Sequence[float]] | None,
    data: Any,
    split: str,
    before: Scored,
    after: Scored,
    queries: int = 8,
    notes: str | Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    ablation: AblationTable | None = None,
) -> Path:
    """Writes ``index.html``: conclusion, table, curves, slices, what was wrong with the data, ranked pictures.

    The page holds everything it shows (pictures and charts are data URIs) and loads nothing. It is written aside and
    renamed: a reader sees the old page or the new one.

    Args:
        out_dir: folder; made if need be.
        title: the page's heading.
        table: from ``compare``, with both systems.
        history: ``{metric: [value an epoch]}`` as ``fit`` returns it; None or empty leaves the curves out.
        data: the ``Prepared`` dataset.
        split: the split that the table and the scores are of.
        before: name and scores of the system to look at first, such as BM25.
        after: name and scores of the model.
        queries: how many queries' rankings to show.
        notes: paragraphs to print under the heading.
        facts: of the run, by name, to print beside the dataset's name; ``recipe_facts`` gives them.
        ablation: what ``ablate`` found; None leaves the section out.

    Returns:
        Path of the page.

    Raises:
        ValueError: when the table is of another split, lacks a system, or scores do not fit the lists.
    """
    if table.split != split:
        raise ValueError(f'report: the table is of split "{table.split}" and the report of "{split}"')
    cards = showcase(data, table, before, after, queries, SHOWN)
    header, body = table.cells()
    verdict = judge(table, after[0])
    page = render(
        "report.html.j2",
        title=title,
        dataset=table.dataset,
        split=split,
        facts={**(facts or {}), "written": f"{date.today()} by tfmmrank {__version__}"},
        verdict=verdict.sentence,
        notes=[notes] if isinstance(notes, str) else list(notes),
        figures=_figures(table, before[0], after[0], data),
        chart=systems_chart(table, verdict.winner),
        header=_in_words(header),
        body=body,
        caption=table.caption,
        marked=verdict.winner,
        reference=table.reference,
        level=f"{table.level:.0%}",
        p_limit=f"{1 - table.level:.2g}",
        cut_off=table.main.partition("@")[2],
        history=history_chart(history) if history else None,
        history_basis=_history_basis(history or {}, data),
        slices=_slice_rows(table, query_slices(data, split)),
        systems=list(table.rows),
        cards=cards,
        shown=SHOWN,
        pictures="image" in data.item_columns.values(),
        metric=_metric_words(table),
        ablation=_ablation_rows(ablation) if ablation is not None else None,
        counts=_counts(data),
        troubles=_troubles(data.meta.get("report", {})),
    )
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_text(out_dir / FILE, page)
    return out_dir / FILE


def _in_words(header: Sequence[str]) -> list[str]:
    return [cell.replace("− ", "difference to ") for cell in header]


def _ablation_rows(found: AblationTable) -> dict[str, Any]:
    header, groups = found.cells()
    return {"header": _in_words(header), "groups": groups, "caption": found.caption, "notes": found.notes}


def recipe_facts(recipe: Any) -> dict[str, str]:
    """What a report says of the recipe behind a model."""
    return {
        "towers": ", ".join(recipe.model.towers),
        "fusion": recipe.model.fusion.kind,
        "loss": str(recipe.train.loss),
    }


def _metric_words(table: Table) -> dict[str, Any]:
    """The main metric's name and what it rests on; used and skipped depend on labels alone."""
    some = table.per_query(next(iter(table.rows)))
    return {"name": title(table.main), "convention": some.convention, "used": some.used, "skipped": some.skipped}


def _figures(table: Table, before: str, after: str, data: Any) -> list[dict[str, str]]:
    """The few numbers that stand at the top."""
    name = title(table.main)
    found = []
    for system in dict.fromkeys((after, before)):
        interval = table.interval(system)
        span = f"{table.level:.0%} interval {interval.low:.3f} to {interval.high:.3f}"
        averaged = table.mean(system, table.main + TIES_AVERAGED)
        if averaged - interval.mean > TIES_TELL:
            span += f"; {averaged:.3f} with ties averaged"
        found.append(
            {"system": system, "label": f"{name} of {system}", "value": f"{interval.mean:.3f}", "detail": span}
        )
    row = table.per_query(after)
    found.append({"label": "queries", "value": f"{row.used:,}", "detail": f"used; {row.skipped} skipped"})
    if len(data.catalogue):
        found.append({"label": "items", "value": f"{len(data.catalogue):,}", "detail": "in the catalogue"})
    return found


def _history_basis(history: Mapping[str, Any], data: Any) -> str:
    """What the curves' NDCG rests on: not the same as the table's."""
    names = sorted({name.removeprefix("val_") for name in history if "ndcg" in name})
    if not names:
        return ""
    counts = []
    for split, words in (("train", "training"), ("valid", "validation")):
        if split in data.splits:
            positive = [bool((labels > 0).any()) for labels in labels_of(data, split)]
            counts.append(f"{words} {sum(positive)} queries, {len(positive) - sum(positive)} without a positive grade")
    return (
        f"{', '.join(map(title, names))} in the curves: measured while training by TF-Ranking (gain 2^grade − 1, ties "
        f"worst first, training lists as sampled; {'; '.join(counts)}). The figures to quote are the table's."
    )


def _slice_rows(table: Table, slices: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Rows of the table by slice; the best system of each but the oracle is marked."""
    rows = []
    for name, found in table.sliced(slices).items():
        means = {system: interval.mean for system, interval in found["systems"].items() if system != "oracle"}
        best = max(means, key=lambda system: np.nan_to_num(means[system], nan=-1.0)) if means else ""
        cells = [
            {
                "mean": f"{interval.mean:.3f}" if found["used"] else "–",
                "span": f"{interval.low:.3f}–{interval.high:.3f}" if found["used"] else "",
                "best": system == best and found["used"] > 0,
            }
            for system, interval in found["systems"].items()
        ]
        rows.append({"name": name, "used": found["used"], "skipped": found["skipped"], "cells": cells})
    return rows


def _counts(data: Any) -> list[dict[str, str]]:
    """Lists and rows of each split, and what the tables held."""
    rows = []
    for split, counts in data.meta.get("splits", {}).items():
        if counts["lists"]:
            longest = f"longest list {counts['max_list_size']}"
            rows.append(
                {"what": split, "count": f"{counts['lists']:,} lists", "detail": f"{counts['rows']:,} rows, {longest}"}
            )
    for what, count in data.meta.get("report", {}).get("read", {}).items():
        rows.append({"what": f"read: {what}", "count": f"{count:,}", "detail": ""})
    return rows


def _troubles(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """What preparing left out or noted, by cause, the most frequent first; a page is passed on, so without folders."""
    rows = []
    for key, what in (("skipped", "left out"), ("noted", "noted")):
        for cause, count in sorted(report.get(key, {}).items(), key=lambda pair: -pair[1]):
            example = _FOLDERS.sub("", str(report.get("examples", {}).get(cause, "")))
            rows.append({"what": what, "cause": cause, "count": f"{count:,}", "example": example})
    return rows
