"""fashion's model with smaller weights, and with a distilled query encoder: what it costs and what it saves."""

from __future__ import annotations

import contextlib
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.examples import data_folder, load_example
from benchmarks.interleaved import in_turn
from benchmarks.quality import Bench
from benchmarks.serving.figures import Figures, Value, spread, times
from benchmarks.serving.models import megabytes
from benchmarks.serving.running import back_to_back, milliseconds, rank_requests, serving
from tfmmrank.evaluation.tables import p_text
from tfmmrank.export.servable import Servable

_BLOCKS = 2
_ROUNDS, _SECONDS = 5, 3.0


def weights(out: Path) -> Figures:
    """NDCG@10 on fashion's test lists by the served model, its size, and p50 of 48 candidates; latencies in turn."""
    from tfmmrank.evaluation import compare
    from tfmmrank.export import export
    from tfmmrank.training import distill

    if not data_folder().is_dir():
        raise FileNotFoundError(f"the evaluation data is not at {data_folder()}; set TFMMRANK_DATA to its folder")
    bench = Bench(out, seeds=[0], progress=False)
    recipe = load_example("fashion")
    data = bench.prepare(recipe, "fashion")
    ranker = bench.train(recipe, data, "fashion-model", 0)
    student, _ = distill(ranker, data, _BLOCKS, progress=False)
    made: dict[str, tuple[Any, str]] = {
        "float32": (ranker, "float32"), "float16": (ranker, "float16"), "int8": (ranker, "int8"),
        f"query encoder of {_BLOCKS} blocks, distilled": (student, "float32"),
    }  # fmt: skip
    folders = {}
    for number, (name, (which, kind)) in enumerate(made.items()):
        folders[name] = out / "models" / f"fashion{number}"
        shutil.rmtree(folders[name], ignore_errors=True)
        export(which, data, folders[name], 1, progress=False, weights=kind)
    table = compare(data, "test", {name: served_scores(folder / "1", data, "test") for name, folder in folders.items()})
    p50, reference = _latencies(data, folders), table.reference
    return {
        name: {
            "NDCG@10": table.mean(name), **_change(table.rows[name].difference), "directory, MB": megabytes(folder),
            "p50 ms": spread(p50[name]),
            "times that of float32": None if name == reference else times(p50[name], p50[reference]),
        }
        for name, folder in folders.items()
    }  # fmt: skip


def _change(difference: Any) -> dict[str, Value]:
    """Against the reference, with the interval over queries and p of the paired randomisation test."""
    if difference is None:
        return {"change, 95% interval": None, "p": None}
    interval = [difference.mean, difference.low, difference.high]
    return {"change, 95% interval": interval, "p": p_text(difference.p_value, difference.at_floor)}


def served_scores(version: Path, data: Any, split: str) -> list[np.ndarray]:
    """Scores of a split's lists by the exported model, by id."""
    servable, lists = Servable(version), data.lists(split)
    try:
        scores = []
        for q in range(len(lists)):
            ids = [item.encode() for item in data.catalogue.ids[lists.item_rows[lists.of(q)]]]
            inputs = {name: values[q : q + 1] for name, values in lists.queries.items()}
            inputs = {name: inputs[name] for name in servable.signatures["rank"].inputs if name in inputs}
            size = {"item_ids": np.array([ids], object), "num_items": np.array([len(ids)], np.int32)}
            scores.append(servable.run("rank", {**inputs, **size}, ["scores"])["scores"][0])
        return scores
    finally:
        servable.close()


def _latencies(data: Any, folders: dict[str, Path]) -> dict[str, list[float]]:
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(folder)) for name, folder in folders.items()}
        requests = {name: rank_requests(data, server, 48) for name, server in servers.items()}
        found = in_turn(
            {name: partial(back_to_back, servers[name], requests[name], 1, _SECONDS) for name in folders}, _ROUNDS
        )
    return {name: [milliseconds(report, 50) for report in reports] for name, reports in found.items()}
