"""The embedded server in a process of its own, as it is run; and requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.examples import ROOT
from tfmmrank.serving import Client
from tfmmrank.serving.client.questions import Target
from tfmmrank.serving.client.transport import open_channel
from tfmmrank.serving.load_testing.load_report import LoadReport
from tfmmrank.serving.load_testing.load_test import PredictStub, closed_loop_test
from tfmmrank.serving.load_testing.sample_requests import requests_of_dataset

_START = 300.0  # seconds a server may take to load a model
_TIMEOUT = 60.0


class Process:
    """A running ``tfmmrank serve``.

    Attributes:
        address: of gRPC.
        rest_address: of the REST API, if it has one.
        seconds: from the start to the first answer that the model is AVAILABLE.
    """

    def __init__(self, model: Path, *options: str, port: int = 0) -> None:
        started = time.monotonic()
        command = [sys.executable, "-m", "tfmmrank", "serve", str(model), "--port", str(port), "--json", *options]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(command)} ended with {self._process.wait()} before it served")
        told = json.loads(line)
        self.seconds = time.monotonic() - started
        self.address, self.rest_address, self.model = told["address"], told.get("rest_address"), told["model"]

    @property
    def memory(self) -> float:
        """Resident memory in MB."""
        return psutil.Process(self._process.pid).memory_info().rss / 1e6

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it at once, as a crash does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it as an operator does."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_TIMEOUT)


@contextlib.contextmanager
def serving(model: Path, *options: str) -> Iterator[Process]:
    """A server for the block."""
    process = Process(model, *options)
    try:
        yield process
    finally:
        process.stop()


def rank_requests(data: Any, process: Process, candidates: int, split: str = "test") -> list[bytes]:
    """Serialised ``rank`` requests of a dataset's queries with so many items."""
    with Client(process.address, process.model, timeout=_TIMEOUT) as client:
        signature = client.signature("rank")
    return requests_of_dataset(data, Target(process.model), signature, split, candidates)


def back_to_back(process: Process, requests: Sequence[bytes], concurrency: int, seconds: float) -> LoadReport:
    """Requests one after another by so many workers; raises RuntimeError when one fails."""
    with stub(process.address) as ready:
        report = closed_loop_test(ready, requests, concurrency, seconds, warmup=min(2.0, seconds))
    if report.failed:
        raise RuntimeError(f"requests failed: {report.statuses}")
    return report


@contextlib.contextmanager
def stub(address: str, timeout: float = _TIMEOUT) -> Iterator[PredictStub]:
    """A channel to a server, for load tests."""
    with open_channel(grpc, address, None, keepalive=None) as channel:
        yield PredictStub(channel, timeout)


def milliseconds(report: LoadReport, percent: float) -> float:
    """A latency's percentile in ms."""
    return 1000 * report.percentile(percent)
