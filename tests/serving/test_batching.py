"""Requests run together as TensorFlow Serving does it: joined on dimension 0, padded with their own first element."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.serving.served_shop import TOLERANCE, assert_table_scores
from tests.serving.test_versions import until
from tfmmrank.export import RequestError, Servable
from tfmmrank.serving import Client, serve
from tfmmrank.serving.monitoring.metrics import ServingMetrics
from tfmmrank.serving.server.batch_tensors import Batching, merge, split
from tfmmrank.serving.server.batcher import Batcher

pytestmark = pytest.mark.embedded_only


class Blocked:
    """A servable of ``x [B, L]`` to ``y = 2 x`` that remembers its runs, and runs when it may."""

    def __init__(self, free=True):
        self.runs, self.go = [], threading.Event()
        self.began = threading.Semaphore(0)
        if free:
            self.go.set()

    def check(self, signature, inputs, output_filter=()):
        return ["y"]

    def run(self, signature, inputs, output_filter=(), timeout=None):
        self.runs.append(inputs["x"].tolist() if inputs else None)
        self.began.release()
        assert self.go.wait(60)
        if inputs and (inputs["x"] < 0).any():
            raise RequestError("INVALID_ARGUMENT", "a negative x")
        return {"y": 2 * inputs["x"]} if inputs else {"y": np.array(7)}


@pytest.fixture
def batched():
    """Makes batched servables; the batchers are closed when the test ends."""
    batchers = []

    def make(servable, **options):
        batchers.append(Batcher(Batching(**{"num_batch_threads": 1, **options})))
        return batchers[-1].wrap(servable)

    yield make
    for batcher in batchers:
        batcher.close()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def x(*rows):
    return {"x": np.array(rows, np.float32)}


def hold(servable, batched, pool):
    """Keeps the only thread busy, so that what follows waits together."""
    first = pool.submit(batched.run, "", x([0.0]))
    assert servable.began.acquire(timeout=60)
    return first


def queued(batched):
    batcher = batched._batcher
    with batcher._changed:
        return [[task.size for task in batch] for queue in batcher._queues.values() for batch in queue.batches]


def refusal(call, *arguments):
    with pytest.raises(RequestError) as caught:
        call(*arguments)
    return caught.value.code, str(caught.value)


def test_requests_that_wait_together_are_run_as_one(batched, pool):
    servable = Blocked(free=False)
    together = batched(servable, max_batch_size=4)
    first = hold(servable, together, pool)
    answers = []
    for place, rows in enumerate(([[1.0]], [[2.0], [3.0]], [[4.0]], [[5.0]])):
        answers.append(pool.submit(together.run, "", x(*rows)))
        until(lambda expected=place + 1: sum(map(len, queued(together))) == expected)
    assert queued(together) == [[1, 2, 1], [1]]
    servable.go.set()
    assert first.result()["y"].tolist() == [[0.0]]
    assert [answer.result()["y"].tolist() for answer in answers] == [[[2.0]], [[4.0], [6.0]], [[8.0]], [[10.0]]]
    assert servable.runs == [[[0.0]], [[1.0], [2.0], [3.0], [4.0]], [[5.0]]]


def test_a_batch_does_not_wait_longer_than_it_may(batched):
    """It would wait for the full timeout, were there no end to it."""
    servable = Blocked()
    assert batched(servable, batch_timeout_micros=10_000).run("", x([1.0]))["y"].tolist() == [[2.0]]
    full = batched(servable, batch_timeout_micros=10**12, max_batch_size=2)
    assert full.run("", x([1.0], [2.0]))["y"].tolist() == [[2.0], [4.0]]  # a full batch does not wait at all


def test_a_full_queue_refuses(batched, pool):
    servable = Blocked(free=False)
    together = batched(servable, max_batch_size=1, max_enqueued_batches=2)
    answers = [hold(servable, together, pool)]
    for place in range(2):
        answers.append(pool.submit(together.run, "", x([1.0])))
        until(lambda expected=place + 1: len(queued(together)) == expected)
    assert refusal(together.run, "", x([1.0])) == (
        "UNAVAILABLE",
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
        "max_enqueued_batches is 2",
    )
    servable.go.set()
    assert len([answer.result() for answer in answers]) == 3


def test_requests_that_cannot_be_batched_are_refused(batched):
    together = batched(Blocked(), max_batch_size=2)
    assert refusal(together.run, "", x([1.0], [2.0], [3.0])) == (
        "INVALID_ARGUMENT", "Task size 3 is larger than maximum input batch size 2",
    )  # fmt: skip
    assert refusal(together.run, "", {"x": np.float32(1)}) == (
        "INVALID_ARGUMENT", "Batching Run() input tensors must have at least one dimension",
    )  # fmt: skip
    assert refusal(together.run, "", {**x([1.0]), "z": np.zeros(2)}) == (
        "INVALID_ARGUMENT", "Batching Run() input tensors must have equal 0th-dimension size",
    )  # fmt: skip
    assert together.run("", {})["y"] == 7  # nothing to batch


def test_one_bad_request_does_not_spoil_those_beside_it(batched, pool):
    servable = Blocked(free=False)
    together = batched(servable)
    hold(servable, together, pool)
    answers = [pool.submit(together.run, "", x([value])) for value in (1.0, -1.0, 3.0)]
    until(lambda: sum(map(len, queued(together))) == 3)
    servable.go.set()
    assert answers[0].result()["y"].tolist() == [[2.0]]
    assert refusal(answers[1].result) == ("INVALID_ARGUMENT", "a negative x")
    assert answers[2].result()["y"].tolist() == [[6.0]]


@pytest.mark.parametrize("options", [{}, {"pad_variable_length_inputs": True}, {"allowed_batch_sizes": (2, 4, 1000)}])
def test_a_request_without_rows_is_run_alone(batched, pool, options):
    servable = Blocked(free=False)
    together = batched(servable, **options)
    none = {"x": np.zeros((0, 1), np.float32)}
    first = hold(servable, together, pool)
    answers = [pool.submit(together.run, "", x([1.0])), pool.submit(together.run, "", none)]
    until(lambda: sum(map(len, queued(together))) == 1 and len(servable.runs) == 2)  # it waits for no batch
    answers += [pool.submit(together.run, "", x([2.0]))]
    until(lambda: sum(map(len, queued(together))) == 2)
    servable.go.set()
    assert [len(answer.result()["y"]) for answer in (first, *answers)] == [1, 1, 0, 1]
    assert together.run("", none)["y"].shape == (0, 1)
    assert together.run("", x([3.0]))["y"].tolist() == [[6.0]]


@pytest.mark.parametrize("error", [lambda: RequestError("INTERNAL", "no"), lambda: ValueError("no")])
def test_a_failed_request_is_not_kept(batched, error):
    """Neither by an error's traceback: the collector, which ends cycles, is off here."""
    servable = Blocked()
    together = batched(servable)

    def fail(*_):
        raise error()

    servable.run = fail
    inputs = x([1.0])
    kept = weakref.ref(inputs["x"])
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            together.run("", inputs)
        del inputs
        until(lambda: kept() is None, timeout=5)
    finally:
        gc.enable()


def test_what_waited_beyond_its_deadline_is_not_run(batched, pool):
    servable = Blocked(free=False)
    together = batched(servable)
    hold(servable, together, pool)
    late = pool.submit(together.run, "", x([1.0]), (), 0.0)
    in_time = pool.submit(together.run, "", x([2.0]), (), 600.0)
    until(lambda: sum(map(len, queued(together))) == 2)
    servable.go.set()
    assert refusal(late.result) == ("RESOURCE_EXHAUSTED", "Run() timeout exceeded while waiting in batching queue")
    assert in_time.result()["y"].tolist() == [[4.0]]
    assert servable.runs == [[[0.0]], [[2.0]]]


def test_padding_is_the_tensors_own_first_element():
    options = Batching(pad_variable_length_inputs=True)
    lists = [
        {"ids": np.array([[b"a", b"b"]], object), "n": np.array([2])},
        {"ids": np.array([[b"c", b"d", b"e"], [b"f", b"g", b"h"]], object), "n": np.array([3, 1])},
        {"ids": np.array([[b"z"]], object), "n": np.array([1])},
    ]
    merged = merge(lists, options)
    assert merged["ids"].tolist() == [
        [b"a", b"b", b"a"], [b"c", b"d", b"e"], [b"f", b"g", b"h"], [b"z", b"z", b"z"],
    ]  # fmt: skip
    assert merged["n"].tolist() == [2, 3, 1, 1]
    deep = merge([{"v": np.full((1, 1, 2), 5)}, {"v": np.zeros((1, 2, 3), int)}], options)["v"]
    assert deep.tolist() == [[[5, 5, 5], [5, 5, 5]], [[0, 0, 0], [0, 0, 0]]]
    empty = [{"v": np.zeros((1, 0))}, {"v": np.zeros((1, 2))}]
    assert refusal(merge, empty, options) == (
        "INVALID_ARGUMENT", "Got empty tensor in batch of non-empty tensors.",
    )  # fmt: skip
    code, message = refusal(merge, lists, Batching())
    assert (code, "padding is turned off" in message) == ("FAILED_PRECONDITION", True)


def test_a_batch_is_filled_up_to_an_allowed_size():
    options = Batching(max_batch_size=8, allowed_batch_sizes=(2, 8))
    merged = merge([x([1.0]), x([2.0], [3.0])], options)
    assert merged["x"].ravel().tolist() == [1, 2, 3, 2, 2, 2, 2, 2]  # the last request's first row
    parts = split({"y": merged["x"] * 10}, [1, 2], 8)
    assert [part["y"].ravel().tolist() for part in parts] == [[10], [20, 30]]
    assert refusal(split, {"y": np.zeros(3)}, [1, 1], 2)[0] == "FAILED_PRECONDITION"
    assert refusal(split, {"y": np.float32(3)}, [1, 1], 2) == (
        "FAILED_PRECONDITION", "Batched output tensor has 0 dimensions",
    )  # fmt: skip


def test_batching_config_is_read(tmp_path):
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 16 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 3 }\n"
        "num_batch_threads { value: 2 } allowed_batch_sizes: 4 allowed_batch_sizes: 16\n"
        "pad_variable_length_inputs: true\n"
    )
    assert Batching.from_config(file) == Batching(16, 500, 3, 2, (4, 16), True)
    file.write_text("")
    assert Batching.from_config(file) == Batching()
    for text, message in (
        ("max_batch_size { value: 0 }", "batching.config: max_batch_size must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        ("allowed_batch_sizes: 4", r"allowed_batch_sizes is \[4\]; expected ascending sizes that end with"),
        ("enable_large_batch_splitting { value: true }", "enable_large_batch_splitting is TensorFlow Serving's alone"),
        ("max_batch { value: 1 }", "batching.config:1: "),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            Batching.from_config(file)


def test_lists_of_all_lengths_get_the_scores_they_have_alone(served, now, batched, pool):
    """The model's own promise, on the exported model: what stands behind a list's end does not matter."""
    servable = Servable(served.model_dir / "1")
    runs = []

    class Recording:
        check = staticmethod(servable.check)

        @staticmethod
        def run(signature, inputs, outputs, timeout=None):
            runs.append(inputs["item_ids"].shape)
            return servable.run(signature, inputs, outputs, timeout)

    def inputs(q):
        return {
            "query": np.array([now.query(q).encode()], object), "num_items": np.array([now.size(q)], np.int32),
            "item_ids": np.array([[item.encode() for item in now.ids(q)]], object),
            "season": np.array([now.context(q)["season"]], object),
            "user age": np.array([now.context(q)["user age"]], np.float32),
        }  # fmt: skip

    together = batched(Recording, max_batch_size=len(now), batch_timeout_micros=10**12, pad_variable_length_inputs=True)
    answers = [pool.submit(together.run, "rank", inputs(q)) for q in range(len(now))]
    outputs = [answer.result() for answer in answers]
    longest = max(now.size(q) for q in range(len(now)))
    assert runs == [(len(now), longest)]
    assert min(now.size(q) for q in range(len(now))) < longest
    for q, output in enumerate(outputs):
        assert output["scores"].shape == (1, longest)  # cut on dimension 0 only: the rest is the client's to cut
        assert_table_scores(output["scores"][0, : now.size(q)], now.predicted[q])
        assert not output["known"][0, now.size(q) :].any()
    servable.close()


def test_a_batching_server_ranks_as_one_without(cold, now, pool):
    batching = Batching(max_batch_size=4, batch_timeout_micros=1000, pad_variable_length_inputs=True)
    with (
        serve(cold, port=0, batching=batching) as server,
        Client(server.address, "tiny", timeout=60) as client,
    ):
        answers = [pool.submit(client.rank, now.query(q), now.ids(q), **now.context(q)) for q in range(len(now))]
        for q, answer in enumerate(answers):
            assert_table_scores(answer.result().scores, np.sort(now.predicted[q])[::-1])


def test_lists_of_other_lengths_in_one_batch_are_counted(cold, then, pool, caplog):
    short, long = sorted((0, 1, 2, 3), key=then.size)[::3]
    assert then.size(short) < then.size(long)
    batching = Batching(max_batch_size=2, batch_timeout_micros=10**9, pad_variable_length_inputs=True)
    with (
        serve(cold, port=0, batching=batching, metrics=ServingMetrics()) as server,
        Client(server.address, "tiny", timeout=60) as client,
    ):
        answers = [
            pool.submit(client.rank_features, then.query(q), then.items(q), **then.context(q)) for q in (short, long)
        ]
        for q, answer in zip((short, long), answers, strict=True):
            np.testing.assert_allclose(answer.result().scores, np.sort(then.predicted[q])[::-1], rtol=0, atol=TOLERANCE)
        counted = f'tfmmrank_values_total{{column="price",model_name="tiny"}} {then.size(short) + then.size(long)}.0'
        assert counted in server.core.metrics.exposition().decode()
    assert "could not be counted" not in caplog.text
