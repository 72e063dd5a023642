"""How long an answer takes: by id and from raw features, many candidates, and the first one after a start."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.serving.models import Model, shop_model
from benchmarks.serving.running import Process, back_to_back, milliseconds, rank_requests, serving
from tfmmrank.export.servable import Servable
from tfmmrank.export.warmup import WARMUP_FILE
from tfmmrank.serving import Client

Figures = dict[str, dict[str, float]]

_SECONDS = 15.0
_RAW = 12  # requests with pictures
_FIRST = 5  # servers started to see their first answer


def latency(out: Path) -> Figures:
    """100 candidates by id at 1, 4 and 16 requests at once; from JPEG bytes; what of it is the server's own."""
    model, figures = shop_model(out), Figures()
    with serving(model.folder) as process:
        requests = rank_requests(model.data, process, 100)
        for concurrency in (1, 4, 16):
            report = back_to_back(process, requests, concurrency, _SECONDS)
            figures[f"rank, 100 candidates by id, {concurrency} at once"] = {
                "p50 ms": milliseconds(report, 50), "p99 ms": milliseconds(report, 99),
                "requests a second": report.answered_rate,
            }  # fmt: skip
        raw = _raw_seconds(model, process)
    alone = figures["rank, 100 candidates by id, 1 at once"]["p50 ms"]
    in_process = 1000 * _in_process_seconds(model)
    figures["rank_features, 100 candidates with JPEG bytes, 1 at once"] = {
        "p50 ms": 1000 * raw, "times as long as by id": 1000 * raw / alone
    }  # fmt: skip
    figures["rank, 100 candidates by id, without a server"] = {
        "p50 ms": in_process, "the server's own, ms": alone - in_process
    }  # fmt: skip
    return figures


def candidates(out: Path) -> Figures:
    """1,000 candidates against 100, in turn."""
    model, p50 = shop_model(out), {100: [], 1000: []}
    with serving(model.folder) as process:
        requests = {count: rank_requests(model.data, process, count) for count in p50}
        for _ in range(5):
            for count, found in p50.items():
                found.append(milliseconds(back_to_back(process, requests[count], 1, 4.0), 50))
    figures = {f"rank, {count:,} candidates by id": {"p50 ms": float(np.median(found))} for count, found in p50.items()}
    ratio = float(np.median(np.array(p50[1000]) / np.array(p50[100])))
    figures["rank, 1,000 candidates by id"]["times as long as 100"] = ratio
    return figures


def warmup(out: Path) -> Figures:
    """The first answer of a server that has just started, with the version's warm-up file and without it."""
    model, figures = shop_model(out), Figures()
    cold = out / "models" / "unwarmed"
    shutil.rmtree(cold, ignore_errors=True)
    shutil.copytree(model.folder, cold)
    (cold / "1" / WARMUP_FILE).unlink()
    for name, folder in (("warmed", model.folder), ("not warmed", cold)):
        first, steady = [], []
        for _ in range(_FIRST):
            with serving(folder) as process:
                ask = _asker(model, process)
                first.append(_seconds(ask))
                steady.append(float(np.median([_seconds(ask) for _ in range(200)])))
        figures[f"first answer, {name}"] = {
            "ms": 1000 * float(np.median(first)),
            "times a steady p50": float(np.median(np.array(first) / np.array(steady))),
        }
    return figures


def _asker(model: Model, process: Process) -> Callable[[], object]:
    """Ranks 100 items for a query that warm-up does not hold, over a connection that is open."""
    client = Client(process.address, process.model, timeout=60)
    client.signature("rank")  # connects, and reads the signatures
    ids = model.data.catalogue.ids[200:300].tolist()
    return lambda: client.rank("a query of its own", ids)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _raw_seconds(model: Model, process: Process) -> float:
    read = sorted({column for tower in model.ranker.towers if tower.side != "query" for column in tower.columns})
    values = model.data.catalogue.rows(np.arange(100), read)
    items = [{name: array[row] for name, array in values.items()} for row in range(100)]
    with Client(process.address, process.model, timeout=120) as client:
        client.rank_features("red striped shirt", items)
        return float(
            np.median([_seconds(lambda: client.rank_features("red striped shirt", items)) for _ in range(_RAW)])
        )


def _in_process_seconds(model: Model) -> float:
    servable = Servable(model.folder / "1")
    lists, rng = model.data.lists("test"), np.random.default_rng(0)
    ids = [item.encode() for item in model.data.catalogue.ids[rng.permutation(len(model.data.catalogue))[:100]]]
    texts = lists.queries["query"]

    def run(number: int) -> None:
        query = {"query": np.array([texts[number % len(texts)]], object)}
        servable.run("rank", {**query, "item_ids": np.array([ids], object), "num_items": np.array([100], np.int32)})

    try:
        for number in range(100):
            run(number)
        return float(np.median([_seconds(lambda number=number: run(number)) for number in range(1000)]))
    finally:
        servable.close()
