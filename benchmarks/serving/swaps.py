"""A version after another under load, and a server that is killed under load."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.serving.latency import Figures
from benchmarks.serving.models import shop_model
from benchmarks.serving.running import Process, back_to_back, milliseconds, rank_requests, serving, stub
from tfmmrank.export.versions import versions_of
from tfmmrank.serving import Client, ServingError
from tfmmrank.serving.load_testing.load_report import LoadReport
from tfmmrank.serving.load_testing.load_test import load_test

_EVERY, _SWAPPING, _STEADY = 10.0, 120.0, 60.0  # seconds
_WORKERS, _DEADLINE = 4, 60.0


def swap(out: Path) -> Figures:
    """A new version every 10 s for 2 minutes, at half of what the server can do; and the same load without."""
    model = shop_model(out)
    folder = out / "models" / "swapped"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model.folder, folder)
    with serving(folder) as process:
        requests = rank_requests(model.data, process, 100)
        rate = back_to_back(process, requests, _WORKERS, 10.0).answered_rate / 2
        steady = _load(process, requests, rate, _STEADY)
        stop = threading.Event()
        writer = threading.Thread(target=_write_versions, args=(folder, stop), daemon=True)
        writer.start()
        swapping = _load(process, requests, rate, _SWAPPING)
        stop.set()
        writer.join()
        with Client(process.address, process.model, timeout=60) as client:
            served = max(version for version, state in client.status().items() if state == "AVAILABLE")
    return {
        "half of the capacity, no swaps": _of(steady),
        "half of the capacity, a swap every 10 s": {
            **_of(swapping), "versions served": float(served), "p99, times that without": _times_p99(swapping, steady)
        },
    }  # fmt: skip


def _times_p99(one: LoadReport, other: LoadReport) -> float:
    return milliseconds(one, 99) / milliseconds(other, 99)


def _load(process: Process, requests: list[bytes], rate: float, seconds: float) -> LoadReport:
    with stub(process.address) as ready:
        return load_test(ready, requests, rate, seconds, warmup=5.0)


def _of(report: LoadReport) -> dict[str, float]:
    return {
        "requests a second": report.answered_rate, "failed": float(report.failed),
        "p50 ms": milliseconds(report, 50), "p99 ms": milliseconds(report, 99),
    }  # fmt: skip


def _write_versions(folder: Path, stop: threading.Event) -> None:
    """The same model under the next number, as ``export`` leaves it: whole, by a rename; old ones are removed."""
    while not stop.wait(_EVERY):
        known = versions_of(folder)
        aside = folder / ".next"
        shutil.copytree(folder / str(known[-1]), aside, copy_function=os.link)
        aside.rename(folder / str(known[-1] + 1))
        for version in known[:-1]:
            shutil.rmtree(folder / str(version))


def crash(out: Path) -> Figures:
    """``kill -9`` under load and a restart: what becomes of requests whose deadline is longer than that takes."""
    model = shop_model(out)
    process = Process(model.folder)
    port, ids = int(process.address.rpartition(":")[2]), model.data.catalogue.ids[:100].tolist()
    found: Counter[str] = Counter()
    slowest, stop = [0.0] * _WORKERS, threading.Event()

    def work(worker: int) -> None:
        with Client(process.address, process.model, timeout=_DEADLINE) as client:
            while not stop.is_set():
                started = time.monotonic()
                found[_outcome(lambda: client.rank("red shoes", ids))] += 1
                slowest[worker] = max(slowest[worker], time.monotonic() - started)

    with ThreadPoolExecutor(_WORKERS) as pool:
        workers = [pool.submit(work, worker) for worker in range(_WORKERS)]
        time.sleep(5)
        process.kill()
        restarted = Process(model.folder, port=port)
        time.sleep(5)
        stop.set()
        for worker in workers:
            worker.result()
    restarted.stop()
    return {
        "kill -9 under load, and a restart": {
            "answered": float(found["OK"]), "lost": float(sum(found.values()) - found["OK"]),
            "restart, s": restarted.seconds, "slowest answer, s": max(slowest), "deadline, s": _DEADLINE,
        }
    }  # fmt: skip


def _outcome(ask: Callable[[], object]) -> str:
    try:
        ask()
    except ServingError as error:
        return error.code
    return "OK"
