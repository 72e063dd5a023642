"""A load test that does not flatter: requests arrive when they are due, whether or not the last ones are answered.

A client that waits for an answer before it asks again ("closed loop") asks less while the server is slow, and so hides
the waiting that users would have seen (coordinated omission, G. Tene). In an open loop the schedule is drawn beforehand
and latency counts from the time a request was due.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
import numpy as np
from tqdm import tqdm

from tfmmrank.serving.load_testing.load_report import LoadReport
from tfmmrank.serving.protocol import wire


class Stub(Protocol):
    """Carries serialised requests to a server."""

    def send(self, request: bytes, done: Callable[[str], None]) -> None:
        """Sends without waiting; ``done`` is called once, from any thread, with gRPC's status name."""

    def ask(self, request: bytes) -> str:
        """Waits for the answer; returns gRPC's status name."""


class Clock:
    """The time, for the load tests' own tests to replace."""

    def now(self) -> float:
        """Seconds since some time or other."""
        return time.perf_counter()

    def sleep_until(self, due: float) -> None:
        """Returns at that time, or at once when it has passed."""
        left = due - self.now()
        if left > 0:
            time.sleep(left)

    def wait(self, event: threading.Event) -> None:
        """Returns when the event is set."""
        event.wait()


class PredictStub:
    """Sends serialised PredictRequests over one gRPC channel; answers are not read.

    Args:
        channel: a ``grpc.Channel``.
        timeout: seconds after which a request counts as DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Any, timeout: float) -> None:
        self._call, self._timeout = channel.unary_unary(wire.PREDICT), timeout

    def send(self, request: bytes, done: Callable[[str], None]) -> None:
        """Sends without waiting."""
        future = self._call.future(request, timeout=self._timeout)
        future.add_done_callback(lambda answered: done(answered.code().name))

    def ask(self, request: bytes) -> str:
        """Waits for the answer."""
        try:
            self._call(request, timeout=self._timeout)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


def poisson_arrivals(rate: float, duration: float, seed: int) -> np.ndarray:
    """Times ``[n]`` in seconds, ascending, of a Poisson process: as many independent users make it."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(0.0, duration, rng.poisson(rate * duration)))  # given their number, they are uniform


def constant_arrivals(rate: float, duration: float) -> np.ndarray:
    """Times ``[n]`` in seconds at equal distances, from 0."""
    return np.arange(math.floor(round(rate * duration, 6))) / rate


ARRIVALS: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "poisson": poisson_arrivals,
    "constant": lambda rate, duration, seed: constant_arrivals(rate, duration),
}


def load_test(
    stub: Stub,
    requests: Sequence[bytes],
    rate: float,
    duration: float,
    seed: int = 0,
    *,
    warmup: float = 0.0,
    arrivals: str = "poisson",
    progress: bool = False,
    clock: Clock | None = None,
) -> LoadReport:
    """Sends requests at a given rate, in an open loop.

    Args:
        stub: what carries them, such as ``PredictStub``.
        requests: serialised, sent in turn.
        rate: a second.
        duration: seconds that are measured.
        seed: of Poisson arrivals.
        warmup: seconds before, at the same rate, that are not measured.
        arrivals: ``poisson`` or ``constant``.
        progress: show a bar.
        clock: default: the computer's.

    Raises:
        ValueError: without requests, or for a rate and a duration in which none arrives.
    """
    _check(requests, rate=rate, duration=duration)
    clock = clock or Clock()
    due = ARRIVALS[arrivals](rate, warmup + duration, seed)
    if not (due >= warmup).any():
        raise ValueError(
            f"no request arrives in {duration:g} s at {rate:g} a second; expected a larger rate or duration"
        )
    record = _Record(len(due), clock)
    start = clock.now()
    due += start
    for number, at in enumerate(tqdm(due, "load", unit=" requests", disable=not progress, leave=False)):
        clock.sleep_until(at)
        record.sent[number] = clock.now()
        stub.send(requests[number % len(requests)], record.finisher(number))
    clock.wait(record.finished)
    measured = due >= start + warmup
    statuses = list(itertools.compress(record.statuses, measured))
    times = (due[measured], record.sent[measured], record.done[measured])
    return LoadReport.of(*times, statuses, start + warmup, duration, rate=rate)


def closed_loop_test(
    stub: Stub,
    requests: Sequence[bytes],
    concurrency: int,
    duration: float,
    *,
    warmup: float = 0.0,
    progress: bool = False,
    clock: Clock | None = None,
) -> LoadReport:
    """Has workers ask back to back: what a server can do at most, and nothing of how long users would queue for it.

    Args:
        stub: what carries the requests.
        requests: serialised, sent in turn.
        concurrency: workers, each with one request under way.
        duration: seconds that are measured; requests that have begun are waited for.
        warmup: seconds before that are not measured.
        progress: show a bar.
        clock: default: the computer's.

    Raises:
        ValueError: without requests, or for numbers that are not positive.
    """
    _check(requests, concurrency=concurrency, duration=duration)
    clock = clock or Clock()
    rows: list[tuple[float, float, str]] = []  # sent, done, status
    numbers, lock, interrupted = itertools.count(), threading.Lock(), threading.Event()
    bar = tqdm(desc="load", unit=" requests", disable=not progress, leave=False)
    start = clock.now() + warmup

    def work() -> None:
        while not interrupted.is_set() and (sent := clock.now()) < start + duration:
            status = stub.ask(requests[next(numbers) % len(requests)])
            done = clock.now()
            with lock:
                rows.append((sent, done, status))
                bar.update()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(concurrency)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    finally:
        interrupted.set()
        bar.close()
    measured = [row for row in rows if row[0] >= start]
    if not measured:
        raise ValueError(f"no request began in the {duration:g} s after the warm-up; expected a longer duration")
    sent, done, statuses = zip(*measured, strict=True)
    times = (np.array(sent), np.array(sent), np.array(done))
    return LoadReport.of(*times, statuses, start, duration, concurrency=concurrency)


class _Record:
    """When each request was sent and answered."""

    def __init__(self, count: int, clock: Clock) -> None:
        self.sent, self.done, self.statuses = np.empty(count), np.empty(count), [""] * count
        self.finished = threading.Event()
        self._left, self._clock, self._lock = count, clock, threading.Lock()

    def finisher(self, number: int) -> Callable[[str], None]:
        """What to call with a request's status when it is answered."""

        def finish(status: str) -> None:
            self.done[number] = self._clock.now()
            self.statuses[number] = status
            with self._lock:
                self._left -= 1
                if not self._left:
                    self.finished.set()

        return finish


def _check(requests: Sequence[bytes], **numbers: float) -> None:
    if not requests:
        raise ValueError("there are no requests to send")
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} is {number}; expected more than 0")
