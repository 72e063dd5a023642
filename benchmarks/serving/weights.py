"""fashion's model with smaller weights, and with a distilled query encoder: what it costs and what it saves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.examples import load_example
from benchmarks.quality import Bench
from benchmarks.serving.latency import Figures
from benchmarks.serving.models import megabytes
from benchmarks.serving.running import back_to_back, milliseconds, rank_requests, serving
from tfmmrank.export.servable import Servable

_BLOCKS = 2
_ROUNDS, _SECONDS = 5, 3.0


def weights(out: Path) -> Figures:
    """NDCG@10 on fashion's test lists by the served model, its size, and p50 of 48 candidates; latencies in turn."""
    from tfmmrank.evaluation import compare
    from tfmmrank.export import export
    from tfmmrank.training import distill

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
    p50 = _latencies(data, folders)
    reference = next(iter(made))
    return {
        f"fashion, {name}": {
            "NDCG@10": table.mean(name), "change": table.mean(name) - table.mean(reference),
            "directory, MB": megabytes(folder), "p50 ms": float(np.median(p50[name])),
            "p50, times float32's": float(np.median(np.array(p50[name]) / np.array(p50[reference]))),
        }
        for name, folder in folders.items()
    }  # fmt: skip


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
    p50: dict[str, list[float]] = {name: [] for name in folders}
    for turn in range(_ROUNDS):
        for name in list(folders)[:: -1 if turn % 2 else 1]:
            with serving(folders[name]) as process:
                requests = rank_requests(data, process, 48)
                p50[name].append(milliseconds(back_to_back(process, requests, 1, _SECONDS), 50))
    return p50
