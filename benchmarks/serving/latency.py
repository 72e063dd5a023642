"""How long an answer takes: by id and from raw features, many candidates, and the first one after a start."""

from __future__ import annotations

import contextlib
import re
import shutil
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.examples import ROOT
from benchmarks.interleaved import in_turn, seconds
from benchmarks.serving.figures import Figures, Value, spread, times
from benchmarks.serving.models import shop_model
from benchmarks.serving.running import (
    Process,
    back_to_back,
    feature_requests,
    milliseconds,
    open_loop,
    rank_requests,
    sent_late,
    serving,
    stub,
)
from tfmmrank.export.warmup import WARMUP_FILE
from tfmmrank.serving.load_testing.load_report import LoadReport
from tfmmrank.serving.load_testing.load_test import PredictStub
from tfmmrank.serving.protocol import wire

_AT_ONCE = (1, 4, 16)
_ROUNDS, _SECONDS = 5, 8.0
_OPEN_ROUNDS, _OPEN_SECONDS = 3, 30.0
_WITH_PICTURES = 8  # requests with pictures
_SIZES = (128, 224)  # of pictures
_TURNS = 300  # of answers and refusals
_STARTS, _STEADY = 5, 200  # servers started to see their first answer, and answers after it


def latency(out: Path) -> Figures:
    """100 candidates by id, back to back and at half of the capacity; the same with JPEG bytes; what the time goes to.

    What is asked back to back takes turns, round after round; requests are serialised beforehand. Pictures go through
    the encoder at 128 pixels, and at the 224 that it was trained with.
    """
    models = {size: shop_model(out, size) for size in _SIZES}
    with contextlib.ExitStack() as stack:
        watched = ("--rest-api-port", "0", "--monitoring-config-file", str(ROOT / "serving/config/monitoring.config"))
        processes = {size: stack.enter_context(serving(model.folder, *watched)) for size, model in models.items()}
        model, process = models[_SIZES[0]], processes[_SIZES[0]]
        requests = rank_requests(model.data, process, 100)
        by_id = {f"{count} at once": partial(back_to_back, process, requests, count, _SECONDS) for count in _AT_ONCE}
        with_pictures = {}
        for size, served in processes.items():
            pictures = feature_requests(models[size].data, served, requests[:_WITH_PICTURES])
            with_pictures[size] = partial(back_to_back, served, pictures, 1, _SECONDS)
        found: dict[Any, list[LoadReport]] = in_turn({**by_id, **with_pictures}, _ROUNDS)
        capacity = max(float(np.median([report.answered_rate for report in found[name]])) for name in by_id)
        at_rate = [open_loop(process, requests, capacity / 2, _OPEN_SECONDS) for _ in range(_OPEN_ROUNDS)]
        parts = [_in_parts(process, requests) for _ in range(_ROUNDS)]
    one = _p50(found["1 at once"])
    return {
        **{f"by id, closed loop, {name}": _closed(found[name]) for name in by_id},
        "by id, open loop at half of the capacity": {
            "requests a second": capacity / 2, "p50 ms": spread(_p50(at_rate)), "p99 ms": spread(_p99(at_rate)),
            "sent late, p99 ms": spread(map(sent_late, at_rate)),
        },
        **{
            f"with JPEG bytes, {size} pixels, closed loop, 1 at once": {
                "p50 ms": spread(_p50(found[size])), "times as long as by id": times(_p50(found[size]), one),
            }
            for size in _SIZES
        },
        "by id, closed loop, 1 at once, in parts": {
            "mean ms": spread(part["answer"] for part in parts),
            "of which the model's run": spread(part["run"] for part in parts),
            "of which all else": spread(part["answer"] - part["run"] for part in parts),
            "a refused request": spread(part["refusal"] for part in parts),
        },
    }  # fmt: skip


def _in_parts(process: Process, requests: Sequence[bytes]) -> dict[str, float]:
    """Means in ms of answers over gRPC, of the model's runs in them, and, each after an answer, of refusals.

    The server's metric times the runs: another process's would find other things in the processor's caches, and so
    would a refusal that follows a refusal.
    """
    refused = wire.PredictRequest(model_spec=wire.PredictRequest.FromString(requests[0]).model_spec)
    refused.model_spec.name += " of another name"
    nobody = refused.SerializeToString()
    found: dict[str, list[float]] = {"answer": [], "refusal": []}
    with stub(process.address) as ready:
        before = _runs(process)
        for turn in range(_TURNS):
            found["answer"].append(seconds(partial(ready.ask, requests[turn % len(requests)])))
            found["refusal"].append(seconds(partial(ready.ask, nobody)))
        ran, count = (now - then for now, then in zip(_runs(process), before, strict=True))
    return {"run": ran / count / 1000, **{name: 1000 * float(np.mean(values)) for name, values in found.items()}}


def _runs(process: Process) -> tuple[float, float]:
    """Microseconds that the model ran, and how often."""
    with urllib.request.urlopen(f"http://{process.rest_address}/monitoring/prometheus/metrics") as page:
        text = page.read().decode()
    total, count = (
        float(value)
        for value in re.findall(r"^:tensorflow:serving:runtime_latency_(?:sum|count){.*} (.+)$", text, re.M)
    )
    return total, count


def _p50(reports: Sequence[LoadReport]) -> list[float]:
    return [milliseconds(report, 50) for report in reports]


def _p99(reports: Sequence[LoadReport]) -> list[float]:
    return [milliseconds(report, 99) for report in reports]


def _closed(reports: Sequence[LoadReport]) -> dict[str, Value]:
    return {
        "p50 ms": spread(_p50(reports)), "p99 ms": spread(_p99(reports)),
        "requests a second": spread(report.answered_rate for report in reports),
    }  # fmt: skip


def candidates(out: Path) -> Figures:
    """1,000 candidates against 100, in turn."""
    model = shop_model(out)
    with serving(model.folder) as process:
        requests = {count: rank_requests(model.data, process, count) for count in (100, 1000)}
        found = in_turn(
            {count: partial(back_to_back, process, some, 1, _SECONDS / 2) for count, some in requests.items()}, _ROUNDS
        )
    p50 = {count: _p50(reports) for count, reports in found.items()}
    return {
        "100 candidates": {"p50 ms": spread(p50[100]), "times as long as 100": None},
        "1,000 candidates": {"p50 ms": spread(p50[1000]), "times as long as 100": times(p50[1000], p50[100])},
    }


def warmup(out: Path) -> Figures:
    """The first answer of a server that has just started, with the version's warm-up file and without it.

    Of ``rank``, and of a request without a signature name (``serving_default``), each in servers of its own. The
    connection is open before.
    """
    model = shop_model(out)
    cold = out / "models" / "unwarmed"
    shutil.rmtree(cold, ignore_errors=True)
    shutil.copytree(model.folder, cold)
    (cold / "1" / WARMUP_FILE).unlink()

    def first(folder: Path, signature: str) -> tuple[float, float]:
        with serving(folder) as process, stub(process.address) as ready:
            requests = [_named(request, signature) for request in rank_requests(model.data, process, 100)]
            took = [1000 * seconds(partial(_ask, ready, requests[i % len(requests)])) for i in range(1 + _STEADY)]
        return took[0], float(np.median(took[1:]))

    ways = {
        f"{asked}, {state}": partial(first, folder, signature)
        for asked, signature in (("rank", "rank"), ("no signature named", ""))
        for state, folder in (("warmed", model.folder), ("not warmed", cold))
    }
    figures: Figures = {}
    for name, found in in_turn(ways, _STARTS).items():
        firsts, steady = zip(*found, strict=True)
        figures[name] = {
            "first answer, ms": spread(firsts), "p50 after it, ms": spread(steady), "times that": times(firsts, steady),
        }  # fmt: skip
    return figures


def _named(request: bytes, signature: str) -> bytes:
    message = wire.PredictRequest.FromString(request)
    message.model_spec.signature_name = signature
    return message.SerializeToString()


def _ask(ready: PredictStub, request: bytes) -> None:
    status = ready.ask(request)
    if status != "OK":
        raise RuntimeError(f"a request failed: {status}")
