"""Tables to a prepared dataset, in bounded memory and all or nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tfmmrank.atomic import replace_directory
from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.feature_folders import take_over
from tfmmrank.data.feature_lists import write_feature_lists
from tfmmrank.data.item_table import add_snapshot, load_items
from tfmmrank.data.label_tables import labels_from_log, load_judgements, load_log
from tfmmrank.data.lists import ListWriter
from tfmmrank.data.prepared import FORMAT, Prepared
from tfmmrank.data.query_table import load_queries
from tfmmrank.data.splits import SPLITS
from tfmmrank.data.table_lists import write_lists
from tfmmrank.data.workbench import BEHAVIOUR_MEMORY_LIMIT, Workbench
from tfmmrank.schema import DataConfig, Judgements, Logs, Recipe

_ENTRIES = ("meta.json", "items", "lists", "features")


def prepare(recipe: Recipe, out: str | Path, *, progress: bool = True) -> Prepared:
    """Reads a recipe's tables and writes a dataset.

    Memory is bounded by ``data.chunk_rows`` and DuckDB's limit, not by the tables. ``out`` is replaced as a whole at
    the end: interrupted or failing, it is as it was. What the feature store computed of an earlier dataset's items
    there is taken over, for those that stay as they are.

    What is wrong with the input stops at the first row, or with ``data.on_bad_row: skip`` is left out and counted by
    cause in ``meta["report"]["skipped"]``. Counted in ``meta["report"]["noted"]``, and kept either way: empty texts,
    lists with one grade only, converted pictures, and missing or broken pictures, whose items are kept without them.

    Args:
        recipe: a validated recipe.
        out: folder to write; an earlier dataset there is replaced.
        progress: whether to show progress bars, and the report's summary at the end, on stderr.

    Returns:
        The dataset.

    Raises:
        DataError: for input that cannot be used; names file, row, column, value, and what was expected.
    """
    out = Path(out)
    _check_replaceable(out)
    report = Report(recipe.data.on_bad_row)
    with replace_directory(out) as aside:
        (aside / "lists").mkdir()
        (aside / "items").mkdir()
        writers = {split: ListWriter(aside / "lists", split) for split in SPLITS}
        try:
            if recipe.data.items is None:
                num_items, slots = 0, write_feature_lists(recipe, writers, report, progress)
            else:
                num_items, slots = _from_tables(recipe, aside, writers, report, progress)
        finally:
            for writer in writers.values():
                writer.close()
        if not any(writer.lists for writer in writers.values()):
            raise DataError(
                f"{recipe.data.name}: no list is left to write; left out: {dict(report.skipped) or 'nothing'}"
            )
        meta = {
            "format": FORMAT,
            "build": secrets.token_hex(16),
            "name": recipe.data.name,
            "data": recipe.data.model_dump(mode="json"),
            "item_columns": recipe.data.item_columns,
            "query_columns": recipe.data.query_columns,
            "slot_columns": slots,
            "snapshot_columns": list(slots) if num_items else [],
            "num_items": num_items,
            "splits": {split: writer.counts for split, writer in writers.items()},
            "report": report.to_dict(),
        }
        (aside / "meta.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1), "utf-8")
        if num_items:
            take_over(out / "features", aside / "features", (_meta_of(out) or {}).get("build", ""))
    if progress:
        tqdm.write(report.summary(), file=sys.stderr)
    return Prepared.open(out)


def _check_replaceable(out: Path) -> None:
    """Refuses to replace what is not a dataset of ours, or holds anything else. Raises DataError."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is a file; expected a folder to write the dataset to")
    found = sorted(path.name for path in out.iterdir())
    if not found:
        return
    if _meta_of(out) is None:
        raise DataError(f"{out}: exists and is no prepared dataset; choose another folder, or empty it")
    foreign = [name for name in found if name not in _ENTRIES]
    if foreign:
        raise DataError(
            f'{out}: would be replaced, and holds "{foreign[0]}", which is no part of a dataset; move that elsewhere, '
            "or choose another folder"
        )


def _meta_of(out: Path) -> dict[str, Any] | None:
    """What ``meta.json`` of an earlier dataset holds, of whatever version; None when there is none."""
    try:
        meta = json.loads((out / "meta.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and meta.keys() >= {"format", "splits", "num_items"} else None


def _from_tables(
    recipe: Recipe, aside: Path, writers: dict[str, ListWriter], report: Report, progress: bool
) -> tuple[int, dict[str, int]]:
    """A shop's tables. Returns the number of items, and slot columns and widths."""
    data = recipe.data
    work = aside / ".work"
    bench = Workbench(work)
    raw, catalogue = work / "catalogue.arrow", aside / "items" / "catalogue.arrow"
    try:
        num_items = load_items(recipe, bench, raw, report, progress)
        load_queries(recipe, bench, report)
        if isinstance(data.labels, Judgements):
            load_judgements(recipe, data.labels, bench, report, progress)
        elif isinstance(data.labels, Logs):
            _labels_from_log(recipe, data.labels, bench, report, progress)
        features = list(data.behaviour.features) if data.behaviour is not None else []
        if data.behaviour is not None:
            _add_behaviour(recipe, bench, report, progress)
            add_snapshot(raw, catalogue, data, bench, features)
        else:
            os.rename(raw, catalogue)
        write_lists(bench, data.query_columns, features, writers, report, progress, _expected_labels(data))
    finally:
        bench.close()
        shutil.rmtree(work)
    return num_items, dict.fromkeys(features, 1)


def _one_log(data: DataConfig) -> bool:
    """Whether labels and behaviour are read from the same columns of one log."""
    if not isinstance(data.labels, Logs) or data.behaviour is None:
        return False
    columns = ("table", "query_id", "item_id", "timestamp", "position", "click", "cart", "purchase")
    return all(getattr(data.labels, name) == getattr(data.behaviour.logs, name) for name in columns)


def _labels_from_log(recipe: Recipe, logs: Logs, bench: Workbench, report: Report, progress: bool) -> None:
    """Table ``labels`` from a log, which stays as the table ``log`` where it tells behaviour too."""
    shared = _one_log(recipe.data)
    table = "log" if shared else "label_log"
    load_log(recipe, logs, bench, report, progress, table, labels=True, behaviour=shared)
    labels_from_log(logs, bench, table, report, by_time=recipe.data.split.by == "time")


def _expected_labels(data: DataConfig) -> str:
    """What every query needs, in words."""
    if not isinstance(data.labels, Logs) or data.queries is None or data.queries.timestamp is None:
        return "at least one"
    later = ", and before the first list of a later split" if data.split.by == "time" else ""
    return f"at least one log row at its time ({data.queries.timestamp}) or later{later}"


def _add_behaviour(recipe: Recipe, bench: Workbench, report: Report, progress: bool) -> None:
    """Tables ``pair_behaviour`` and ``item_behaviour`` from the log, leak-free."""
    from tfmmrank.data.behaviour import add_behaviour

    assert recipe.data.behaviour is not None
    if not _one_log(recipe.data):
        load_log(recipe, recipe.data.behaviour.logs, bench, report, progress, "log", labels=False, behaviour=True)
    bench.con.execute(
        "CREATE TABLE pairs AS SELECT q_row AS list_no, query_key, ts, split, item_row "
        "FROM labels JOIN queries USING (q_row)"
    )
    bench.con.execute("CREATE TABLE items_ts AS SELECT item_row, ts FROM items")
    bench.limit_memory(BEHAVIOUR_MEMORY_LIMIT)
    add_behaviour(bench.con, recipe.data.behaviour)
