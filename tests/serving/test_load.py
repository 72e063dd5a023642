"""The load test's arithmetic, on a clock that the tests move: what a stalled server and a late generator look like."""

from __future__ import annotations

import heapq
import itertools
import json
import threading
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from scipy import stats

from tests.serving.fake_server import FakeServer
from tests.tiny_shop import MemoryCatalogue
from tfmmrank.data.lists import Lists
from tfmmrank.serving import Client
from tfmmrank.serving.client.questions import Target
from tfmmrank.serving.load_testing.load_report import LoadReport, percentile
from tfmmrank.serving.load_testing.load_test import (
    PredictStub,
    closed_loop_test,
    constant_arrivals,
    load_test,
    poisson_arrivals,
)
from tfmmrank.serving.load_testing.sample_requests import requests_of_dataset, requests_of_file
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor


class FakeClock:
    """Time that passes only when someone waits, and what is to happen in it."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time, self._order, self._events = start, itertools.count(), []

    def now(self):
        return self.time

    def at(self, time, happen):
        heapq.heappush(self._events, (time, next(self._order), happen))

    def sleep_until(self, due):
        due = max(self.time, due)
        while self._events and self._events[0][0] <= due:
            self._next()
        self.time = due

    def wait(self, event):
        while not event.is_set():
            self._next()

    def _next(self):
        time, _, happen = heapq.heappop(self._events)
        self.time = max(self.time, time)
        happen()


class FakeStub:
    """A server that answers one request after the other, each in ``service`` seconds, and none in its stall."""

    def __init__(self, clock, service=0.001, stall=(0.0, 0.0), sending=0.0, status=lambda number: "OK") -> None:
        self.clock, self.service, self.sending, self.status = clock, service, sending, status
        self.stall = (clock.now() + stall[0], clock.now() + stall[1])
        self.free, self.sent = clock.now(), []

    def send(self, request, done):
        number = len(self.sent)
        self.sent.append(request)
        self.clock.sleep_until(self.clock.now() + self.sending)
        begin = max(self.clock.now(), self.free)
        if self.stall[0] <= begin < self.stall[1]:
            begin = self.stall[1]
        self.free = begin + self.service
        self.clock.at(self.free, lambda: done(self.status(number)))


def run(rate=100, duration=10, clock=None, arrivals="constant", warmup=0.0, **server):
    clock = clock or FakeClock()
    stub = FakeStub(clock, **server)
    report = load_test(stub, [b"a", b"b", b"c"], rate, duration, warmup=warmup, arrivals=arrivals, clock=clock)
    return report, stub


def test_a_steady_server():
    report, stub = run()
    assert stub.sent[:4] == [b"a", b"b", b"c", b"a"]
    assert report.statuses == {"OK": 1000}
    for percent in (1, 50, 99.9, 100):
        assert report.percentile(percent) == pytest.approx(0.001)
    assert report.answered_rate == pytest.approx(100)
    assert report.kept_up
    assert report.as_dict()["generator_late_ms"] == {"p99": 0, "max": 0}


def test_a_stall_of_a_second_shows_in_the_percentiles():
    """No coordinated omission: a hundred requests were due while the server stood still, and all of them waited.

    Request k of the stall is due at 2 + 0.01 k and answered at 3 + 0.001 (k + 1): latency 1.001 − 0.009 k, until
    after request 111 no queue is left.
    """
    report, _ = run(stall=(2.0, 3.0))
    expected = np.sort(np.maximum(1.001 - 0.009 * np.arange(1000), 0.001))
    np.testing.assert_allclose(report.latencies, expected, atol=1e-9)
    assert report.percentile(50) == pytest.approx(0.001)
    assert report.percentile(90) == pytest.approx(1.001 - 0.009 * 100)  # the 900th of 1000
    assert report.percentile(99) == pytest.approx(1.001 - 0.009 * 10)
    assert report.percentile(99.9) == pytest.approx(1.001 - 0.009 * 1)
    assert report.percentile(100) == pytest.approx(1.001)
    assert report.kept_up  # the server was late, the generator was not


def test_a_generator_that_is_late_says_so_and_hides_nothing():
    report, _ = run(duration=1, sending=0.03)  # 100 a second are asked for, and 33 is what it can send
    late = 0.02 * np.arange(100)  # request n is due at 0.01 n and sent at 0.03 n
    np.testing.assert_allclose(report.lateness, late, atol=1e-9)
    np.testing.assert_allclose(report.latencies, late + 0.03 + 0.001, atol=1e-9)
    assert not report.kept_up
    assert report.answered_rate == 33  # of the first second; the last comes at 3.001


def test_a_server_below_the_rate_is_told_by_what_it_answered():
    report, _ = run(rate=100, duration=2, service=0.02)  # 50 a second
    assert report.answered_rate == pytest.approx(50, rel=0.01)
    assert report.percentile(100) == pytest.approx(2.01)  # due at 1.99, answered at 4.00


def test_a_straggler_does_not_make_the_others_slow():
    report, _ = run(duration=10, stall=(9.985, 30.0))
    assert report.seconds == pytest.approx(30.001)
    assert report.answered_rate == pytest.approx(99.9)  # all but the last of a thousand, in ten seconds


def test_a_failed_request_is_one_that_never_came():
    report, _ = run(status=lambda number: "OK" if number % 4 else "UNAVAILABLE")
    assert report.statuses == {"OK": 750, "UNAVAILABLE": 250}
    assert (report.answered, report.failed) == (750, 250)
    assert report.percentile(75) == pytest.approx(0.001)
    assert report.percentile(75.2) == float("inf")
    assert report.answered_rate == pytest.approx(75)
    assert sum(count for _, count in report.histogram()) == 750
    nothing, _ = run(status=lambda number: "INTERNAL")
    assert nothing.answered == 0
    assert nothing.histogram() == []


def test_the_warm_up_is_not_measured():
    report, stub = run(rate=10, duration=2, warmup=1, stall=(0.0, 0.9), status=lambda n: "OK" if n > 4 else "INTERNAL")
    assert len(stub.sent) == 30
    assert report.statuses == {"OK": 20}
    assert report.percentile(100) == pytest.approx(0.001)
    assert report.seconds == pytest.approx(2)


def test_percentiles_are_nearest_rank():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert [percentile(values, p) for p in (0.1, 10, 10.1, 50, 90, 99, 100)] == [1, 1, 2, 5, 9, 10, 10]
    drawn = np.sort(np.random.default_rng(2).lognormal(size=999))
    for percent in (50, 90, 99, 99.9):
        assert percentile(drawn, percent) == np.percentile(drawn, percent, method="inverted_cdf")


def test_histogram():
    latencies = np.array([0.0009, 0.001, 0.0011, 0.002, 0.03, np.inf])
    report = LoadReport(latencies, np.empty(0), {"OK": 5, "INTERNAL": 1}, 1.0, 5.0)
    found = report.as_dict()["histogram_ms"]
    assert found == [[1.0, 2], [2.0, 2], [5.0, 0], [10.0, 0], [20.0, 0], [50.0, 1]]


def test_arrivals():
    np.testing.assert_allclose(constant_arrivals(4, 1.5), [0, 0.25, 0.5, 0.75, 1.0, 1.25])
    assert len(constant_arrivals(30, 0.1)) == 3  # 30 × 0.1 is 3.0000000000000004 in floats, and 3 here
    arrivals = poisson_arrivals(200, 50, seed=1)
    np.testing.assert_array_equal(arrivals, poisson_arrivals(200, 50, seed=1))
    assert len(arrivals) != len(poisson_arrivals(200, 50, seed=2))
    assert abs(len(arrivals) - 10_000) < 400  # four standard deviations
    assert stats.kstest(np.diff(arrivals) * 200, "expon").pvalue > 0.01
    report, _ = run(arrivals="poisson")
    assert 900 < len(report.latencies) < 1100


def test_nothing_to_do_is_refused():
    clock = FakeClock()
    stub = FakeStub(clock)
    with pytest.raises(ValueError, match="no requests to send"):
        load_test(stub, [], 10, 1)
    with pytest.raises(ValueError, match="rate is 0; expected more than 0"):
        load_test(stub, [b"a"], 0, 1)
    with pytest.raises(ValueError, match="duration is -1; expected more than 0"):
        closed_loop_test(stub, [b"a"], 2, -1)
    with pytest.raises(ValueError, match=r"no request arrives in 0\.1 s at 1 a second"):
        load_test(stub, [b"a"], 1, 0.1, arrivals="constant", clock=clock)


# -- closed loop ------------------------------------------------------------------------------------------------------


class Ticking:
    """A clock that moves by 10 ms whenever someone looks."""

    def __init__(self) -> None:
        self._time, self._lock = 0.0, threading.Lock()

    def now(self):
        with self._lock:
            self._time += 0.01
            return self._time


class Meeting:
    """A stub whose first requests meet: it answers none before ``size`` are under way."""

    def __init__(self, size: int) -> None:
        self._barrier, self.asked = threading.Barrier(size), []

    def ask(self, request):
        self.asked.append(request)
        if len(self.asked) <= self._barrier.parties:
            self._barrier.wait(30)
        return "OK" if request == b"a" else "INTERNAL"


def test_workers_ask_at_once_back_to_back():
    stub = Meeting(3)
    report = closed_loop_test(stub, [b"a", b"b"], 3, 2.0, clock=Ticking())
    asked = len(stub.asked)
    assert 50 < asked < 110  # two looks of 10 ms each, in two seconds, and the last three
    assert report.statuses == {"OK": -(-asked // 2), "INTERNAL": asked // 2}
    assert report.concurrency == 3
    assert report.kept_up
    assert report.as_dict()["generator_late_ms"] is None


def test_closed_loop_does_not_measure_the_warm_up():
    stub = Meeting(1)
    report = closed_loop_test(stub, [b"a"], 1, 1.0, warmup=1.0, clock=Ticking())
    assert len(stub.asked) == pytest.approx(100, abs=2)
    assert len(report.latencies) == pytest.approx(50, abs=2)
    np.testing.assert_allclose(report.latencies, 0.01)


# -- over gRPC --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fake():
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="module")
def rank(fake):
    with Client(fake.address, "m", timeout=30) as client:
        return client.signature("rank")


def test_a_real_server(fake, rank, tmp_path):
    file = tmp_path / "requests.jsonl"
    file.write_text('{"query": "red", "item_ids": ["i1", "i2"]}\n', "utf-8")
    requests = requests_of_file(file, Target("m"), rank)

    def refuse(request, context):
        if next(count) % 5 == 4:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    fake.requests.clear()
    count = itertools.count()
    fake.before = refuse
    with grpc.insecure_channel(fake.address) as channel:
        stub = PredictStub(channel, timeout=30)
        report = load_test(stub, requests, 100, 0.5, arrivals="constant")
        assert report.statuses == {"OK": 40, "RESOURCE_EXHAUSTED": 10}
        assert len(fake.requests) == 50
        closed = closed_loop_test(stub, requests, 2, 0.2)
        assert len(fake.requests) == 50 + sum(closed.statuses.values())
        assert closed.answered > 0
        fake.before = lambda *_: threading.Event().wait(0.5)
        timed_out = load_test(PredictStub(channel, timeout=0.05), requests, 20, 0.2, arrivals="constant")
        assert timed_out.statuses == {"DEADLINE_EXCEEDED": 4}
    fake.before = lambda *_: None


# -- sample requests --------------------------------------------------------------------------------------------------


def made(message: bytes) -> dict:
    request = wire.PredictRequest.FromString(message)
    return {name: read_tensor(tensor).tolist() for name, tensor in request.inputs.items()}


def test_requests_of_a_file(rank, tmp_path):
    file = tmp_path / "requests.jsonl"
    lines = [{"query": "红色", "item_ids": ["a", "b"]}, {"item_ids": [7]}]
    file.write_text("\n\n".join(json.dumps(line) for line in lines), "utf-8")
    first, second = requests_of_file(file, Target("m", label="canary"), rank)
    assert made(first) == {"query": ["红色".encode()], "item_ids": [[b"a", b"b"]], "num_items": [2]}
    assert made(second) == {"query": [b""], "item_ids": [[b"7"]], "num_items": [1]}
    assert wire.PredictRequest.FromString(first).model_spec.version_label == "canary"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", r"got \[1\]; expected an object"),
        ("{", "Expecting property name"),
        ('{"query": "a"}', '"item_ids" is None; expected a list of ids'),
        ('{"query": "a", "item_ids": []}', r'"item_ids" is \[\]; expected a list of ids'),
        ('{"query": 3, "item_ids": ["a"]}', '"query" is 3; expected text'),
        ('{"query": "a", "item_ids": ["a"], "season": 1}', 'the model reads no context column "season"'),
    ],
)
def test_a_wrong_line_is_named(rank, tmp_path, line, why):
    file = tmp_path / "requests.jsonl"
    file.write_text('{"query": "a", "item_ids": ["a"]}\n' + line, "utf-8")
    with pytest.raises(ValueError, match=rf"requests\.jsonl, line 2: {why}"):
        requests_of_file(file, Target("m"), rank)


def test_an_empty_file_is_refused(rank, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n", "utf-8")
    with pytest.raises(ValueError, match=r"empty\.jsonl: holds no request"):
        requests_of_file(tmp_path / "empty.jsonl", Target("m"), rank)


@pytest.fixture
def shop(tmp_path):
    """Two queries, with three and six of twenty items."""
    lists = Lists(
        query_ids=np.array(["q1", "q2"], object),
        queries={"query": np.array([b"red", b"blue"], object), "age": np.array([1.0, 2.0], np.float32)},
        offsets=np.array([0, 3, 9]),
        item_rows=np.array([3, 1, 2, 9, 8, 7, 6, 5, 4], np.int32),
        labels=np.zeros(9, np.float32),
        weights=np.ones(9, np.float32),
        slots={},
    )
    catalogue = MemoryCatalogue([f"i{row}" for row in range(20)], {})
    return SimpleNamespace(path=tmp_path, catalogue=catalogue, lists=lambda split: lists)


def of_query(requests):
    return {made(request)["query"][0]: made(request)["item_ids"][0] for request in requests}


def test_requests_of_a_dataset_have_its_own_candidates(shop, rank):
    found = of_query(requests_of_dataset(shop, Target("m"), rank))
    assert found == {b"red": [b"i3", b"i1", b"i2"], b"blue": [b"i9", b"i8", b"i7", b"i6", b"i5", b"i4"]}
    assert len(requests_of_dataset(shop, Target("m"), rank, count=1)) == 1


@pytest.mark.parametrize("count", [1, 4, 20])
def test_candidates_are_filled_up_with_others_or_cut(shop, rank, count):
    requests = requests_of_dataset(shop, Target("m"), rank, candidates=count, seed=3)
    own = {b"red": {b"i3", b"i1", b"i2"}, b"blue": {b"i9", b"i8", b"i7", b"i6", b"i5", b"i4"}}
    for query, ids in of_query(requests).items():
        assert len(ids) == len(set(ids)) == count
        assert len(set(ids) & own[query]) == min(count, len(own[query]))
    assert requests == requests_of_dataset(shop, Target("m"), rank, candidates=count, seed=3)
    with pytest.raises(ValueError, match="its catalogue has 20 items"):
        requests_of_dataset(shop, Target("m"), rank, candidates=21)
