"""The embedded server in a process of its own, as it is run; and requests to it."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from benchmarks.examples import ROOT
from tfmmrank.serving import Client
from tfmmrank.serving.client import questions
from tfmmrank.serving.client.questions import Target
from tfmmrank.serving.client.ranking_inputs import feature_inputs
from tfmmrank.serving.client.transport import open_channel
from tfmmrank.serving.load_testing.load_report import LoadReport
from tfmmrank.serving.load_testing.load_test import PredictStub, closed_loop_test, load_test
from tfmmrank.serving.load_testing.sample_requests import requests_of_dataset
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor

_START = 300.0  # seconds a server may take to load a model
_TIMEOUT = 60.0
_WARMUP = 2.0  # seconds of a load that are not measured


class Process:
    """A running ``tfmmrank serve``, set by its options alone: it inherits no ``TFMMRANK_…`` variable.

    Attributes:
        address: of gRPC.
        rest_address: of the REST API, if it has one.
        seconds: from the start to the first answer that the model is AVAILABLE.

    Raises:
        RuntimeError: when it ends before it serves, or takes more than 5 minutes.
    """

    def __init__(self, model: Path, *options: str, port: int = 0) -> None:
        started = time.monotonic()
        command = [sys.executable, "-m", "tfmmrank", "serve", str(model), "--port", str(port), "--json", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TFMMRANK_")}
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        patience = threading.Timer(_START, self._process.kill)
        patience.start()
        line = self._process.stdout.readline()
        patience.cancel()
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
            try:
                self._process.wait(_TIMEOUT)
            finally:
                self.kill()


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


def feature_requests(data: Any, process: Process, requests: Sequence[bytes]) -> list[bytes]:
    """The same queries and items as ``rank`` requests of one list have, as serialised ``rank_features`` requests."""
    with Client(process.address, process.model, timeout=_TIMEOUT) as client:
        signature = client.signature("rank_features")
    columns = [name for name, spec in signature.inputs.items() if len(spec.shape) > 1]
    found = []
    for request in requests:
        asked = inputs_of(request)
        rows = data.catalogue.row_of([item.decode() for item in asked.pop("item_ids")[0]])
        items = feature_inputs(signature, data.catalogue.rows(rows, columns), len(rows))
        found.append(questions.predict(Target(process.model), "rank_features", {**asked, **items}).message)
    return found


def inputs_of(request: bytes) -> dict[str, np.ndarray]:
    """A serialised request's arrays by input."""
    return {name: read_tensor(tensor) for name, tensor in wire.PredictRequest.FromString(request).inputs.items()}


def back_to_back(process: Process, requests: Sequence[bytes], concurrency: int, seconds: float) -> LoadReport:
    """Requests one after another by so many workers; raises RuntimeError when one fails."""
    with stub(process.address) as ready:
        report = closed_loop_test(ready, requests, concurrency, seconds, warmup=min(_WARMUP, seconds))
    if report.failed:
        raise RuntimeError(f"requests failed: {report.statuses}")
    return report


def open_loop(process: Process, requests: Sequence[bytes], rate: float, seconds: float) -> LoadReport:
    """Requests at a rate, whether or not the last ones were answered; says so when they were not sent in time."""
    with stub(process.address) as ready:
        report = load_test(ready, requests, rate, seconds, warmup=min(_WARMUP, seconds))
    if not report.kept_up:
        print(f"the load was sent late: p99 {sent_late(report):.0f} ms", file=sys.stderr, flush=True)
    return report


@contextlib.contextmanager
def stub(address: str) -> Iterator[PredictStub]:
    """An open channel to a server, for load tests."""
    gc.freeze()  # TensorFlow's half a million objects: looking through them would stall the load
    with open_channel(grpc, address, None, keepalive=None) as channel:
        grpc.channel_ready_future(channel).result(_TIMEOUT)
        yield PredictStub(channel, _TIMEOUT)


def milliseconds(report: LoadReport, percent: float) -> float:
    """A latency's percentile in ms."""
    return 1000 * report.percentile(percent)


def sent_late(report: LoadReport) -> float:
    """By how many ms an open loop sent its requests late, p99; latencies count from when they were due."""
    return 1000 * float(np.quantile(report.lateness, 0.99))
