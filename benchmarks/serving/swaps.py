"""A version after another under load, and a server that is killed under load."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.serving.figures import Figures, Value, spread
from benchmarks.serving.models import shop_model
from benchmarks.serving.running import (
    Process,
    back_to_back,
    milliseconds,
    open_loop,
    rank_requests,
    sent_late,
    serving,
)
from tfmmrank.export.versions import versions_of
from tfmmrank.serving import Client, ServingError
from tfmmrank.serving.load_testing.load_report import LoadReport

_EVERY, _SWAPPING, _STEADY = 10.0, 120.0, 60.0  # seconds
_WORKERS, _DEADLINE = 4, 60.0
_KILLS, _BETWEEN = 3, 5.0  # and seconds
_IDLE = """
import os
import numpy as np
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
numbers = np.zeros(20_000_000)
print(flush=True)
while True:
    numbers += 1
"""


def swap(out: Path) -> Figures:
    """A new version every 10 s for 2 minutes, at half of what the server can do; and the same load without.

    One that takes longer to load is waited for, and the next one written then. For comparison, the load without swaps
    beside a program of Linux's idle class that adds numbers in memory: what any such work costs on this machine.
    """
    model = shop_model(out)
    folder = out / "models" / "swapped"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model.folder, folder)
    stop = threading.Event()
    with serving(folder) as process, ThreadPoolExecutor(1) as pool:
        requests = rank_requests(model.data, process, 100)
        rate = back_to_back(process, requests, _WORKERS, 10.0).answered_rate / 2
        steady = open_loop(process, requests, rate, _STEADY)
        with _idle_program():
            beside = open_loop(process, requests, rate, _STEADY)
        writer = pool.submit(_write_versions, folder, process, stop)
        try:
            swapping = open_loop(process, requests, rate, _SWAPPING)
        finally:
            stop.set()
        loads = writer.result()
    times = "p99, times that without"
    return {
        "no swaps": {**_of(steady), times: None},
        "no swaps, a program beside": {**_of(beside), times: milliseconds(beside, 99) / milliseconds(steady, 99)},
        f"{len(loads)} swaps in {_SWAPPING:g} s": {
            **_of(swapping),
            times: milliseconds(swapping, 99) / milliseconds(steady, 99),
        },
        "a swap": {"written to AVAILABLE, s": spread(loads)},
    }


@contextlib.contextmanager
def _idle_program() -> Iterator[None]:
    program = subprocess.Popen([sys.executable, "-c", _IDLE], stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        program.stdout.readline()
        yield
    finally:
        program.kill()
        program.wait()


def _of(report: LoadReport) -> dict[str, Value]:
    return {
        "requests a second": report.answered_rate, "failed": report.failed, "p50 ms": milliseconds(report, 50),
        "p99 ms": milliseconds(report, 99), "sent late, p99 ms": sent_late(report),
    }  # fmt: skip


def _write_versions(folder: Path, process: Process, stop: threading.Event) -> list[float]:
    """The same model under the next number, as ``export`` leaves it: whole, by a rename; old ones are removed.

    Files are copied, and so read from the page cache when they are loaded.

    Returns:
        Seconds from the rename until the version was AVAILABLE, one a version that came before the stop.

    Raises:
        RuntimeError: when a version is not AVAILABLE within a minute.
    """
    loads: list[float] = []
    started = time.monotonic()
    with Client(process.address, process.model, timeout=_DEADLINE) as client:
        while not stop.wait(max(0.0, started + (len(loads) + 1) * _EVERY - time.monotonic())):
            known = versions_of(folder)
            aside, version = folder / ".next", known[-1] + 1
            shutil.copytree(folder / str(known[-1]), aside)
            aside.rename(folder / str(version))
            written = time.monotonic()
            while client.status().get(version) != "AVAILABLE":
                if time.monotonic() - written > _DEADLINE:
                    raise RuntimeError(f"version {version} was not AVAILABLE within {_DEADLINE:g} s: {client.status()}")
                time.sleep(0.1)
            if stop.is_set():  # the requests have ended, and it had the machine for itself
                break
            loads.append(time.monotonic() - written)
            for old in known:
                shutil.rmtree(folder / str(old))
    return loads


def crash(out: Path) -> Figures:
    """``kill -9`` under load and a restart, three times: what becomes of requests with a longer deadline than that."""
    model = shop_model(out)
    ids = model.data.catalogue.ids[:100].tolist()
    restarts: list[float] = []
    stop = threading.Event()
    process = Process(model.folder)
    port = int(process.address.rpartition(":")[2])

    def work(client: Client) -> tuple[Counter[str], float]:
        found, slowest = Counter[str](), 0.0
        while not stop.is_set():
            started = time.monotonic()
            found[_outcome(lambda: client.rank("red shoes", ids))] += 1
            slowest = max(slowest, time.monotonic() - started)
        return found, slowest

    try:
        with (
            Client(process.address, process.model, timeout=_DEADLINE) as client,
            ThreadPoolExecutor(_WORKERS) as pool,
        ):
            workers = [pool.submit(work, client) for _ in range(_WORKERS)]
            try:
                for _ in range(_KILLS):
                    time.sleep(_BETWEEN)
                    process.kill()
                    process = Process(model.folder, port=port)
                    restarts.append(process.seconds)
                time.sleep(_BETWEEN)
            finally:
                stop.set()
            found = [worker.result() for worker in workers]
    finally:
        process.stop()
    outcomes = sum((counts for counts, _ in found), Counter[str]())
    return {
        f"kill -9 and a restart, {_KILLS} times, {_WORKERS} requests under way": {
            "answered": outcomes["OK"], "lost": outcomes.total() - outcomes["OK"], "restart, s": spread(restarts),
            "slowest answer, s": max(slowest for _, slowest in found), "deadline, s": _DEADLINE,
        }
    }  # fmt: skip


def _outcome(ask: Callable[[], object]) -> str:
    try:
        ask()
    except ServingError as error:
        return error.code
    return "OK"
