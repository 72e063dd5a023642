"""The cache's keys, its two homes, and a Redis server that is killed, slow, wrong, or full of rubbish."""

import contextlib
import logging
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from tfmmrank.export.servable import RequestError
from tfmmrank.serving.protocol.tensors import read_tensor
from tfmmrank.serving.server import result_cache
from tfmmrank.serving.server.redis_cache import CircuitBreaker, RedisCache
from tfmmrank.serving.server.result_cache import (
    CachedRuns,
    Found,
    MemoryCache,
    answer_key,
    open_cache,
    pack_arrays,
    unpack_arrays,
)

INPUTS = {
    "query": np.array([b"red shoes"], object),
    "item_ids": np.array([[b"a", b"bc"]], object),
    "num_items": np.array([2], np.int32),
}


def key(**changes):
    question = {"model": "shop", "version": 1, "fingerprint": "f", "signature": "rank", "inputs": INPUTS}
    return answer_key(**{**question, **changes})


class CountingServable:
    """Scores are the number of the run, so that an answer from the cache is told from a new one."""

    def __init__(self, fingerprint="f"):
        self.fingerprint, self.runs, self.timeouts = fingerprint, 0, []

    def run(self, signature, inputs, output_filter=(), timeout=None):
        self.timeouts.append(timeout)
        if "broken" in signature:
            raise RequestError("INVALID_ARGUMENT", "no")
        self.runs += 1
        return {"scores": np.full(inputs["item_ids"].shape, self.runs, np.float32)}


def version_of(servable, number=1):
    return SimpleNamespace(model="shop", version=number, servable=servable)


def counted(cache):
    """Runs through a cache, and the results of its look-ups, as they come."""
    runs, results = CachedRuns(cache), []
    runs.on_look_up = lambda model, result: results.append(result)
    return runs, results


# -- keys -------------------------------------------------------------------------------------------------------------


def test_key_does_not_depend_on_how_the_request_was_written():
    assert key(inputs=dict(reversed(INPUTS.items()))) == key()
    from tfmmrank.serving.protocol import wire

    listed = wire.TensorProto(dtype=1, float_val=[1.5, -2.0])
    packed = wire.TensorProto(dtype=1, tensor_content=np.array([1.5, -2.0], "<f4").tobytes())
    repeated = wire.TensorProto(dtype=1, float_val=[7.0])
    both = wire.TensorProto(dtype=1, float_val=[7.0, 7.0])
    for proto in (listed, packed, repeated, both):
        proto.tensor_shape.dim.add(size=2)
    keys = [key(inputs={"x": read_tensor(proto)}) for proto in (listed, packed, repeated, both)]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[0] != keys[2]
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert key(inputs={"x": transposed}) == key(inputs={"x": transposed.copy()})
    assert key(output_filter=["known", "scores"]) == key(output_filter=["scores", "known"])


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "shop2"}, {"version": 2}, {"fingerprint": "g"}, {"signature": "rank2"}, {"output_filter": ["scores"]},
        {"inputs": {**INPUTS, "query": np.array([b"red shoe"], object)}},
        {"inputs": {**INPUTS, "item_ids": np.array([[b"ab", b"c"]], object)}},
        {"inputs": {**INPUTS, "item_ids": np.array([[b"a"], [b"bc"]], object)}},
        {"inputs": {**INPUTS, "num_items": np.array([2], np.int64)}},
        {"inputs": {name: value for name, value in INPUTS.items() if name != "query"}},
        {"inputs": {**{n: v for n, v in INPUTS.items() if n != "query"}, "quer": INPUTS["query"]}},
    ],
)  # fmt: skip
def test_key_tells_questions_apart(changes):
    assert key(**changes) != key()


def test_names_that_run_together_are_told_apart():
    assert key(model="a", fingerprint="bc") != key(model="ab", fingerprint="c")
    assert key(model="a\0001:1", fingerprint="f") != key(model="a", fingerprint="1:1\0f")
    assert key(output_filter=["a", "b"]) != key(output_filter=["a\0001:b"])


def test_arrays_survive_packing():
    arrays = {
        "scores": np.array([[1.5, -1e9, 3e-40]], np.float32), "known": np.array([[True, False, True]]),
        "text": np.array([b"a\0", b""], object), "none": np.empty((0, 4), np.float32), "rows": np.array([2**40]),
    }  # fmt: skip
    back = unpack_arrays(pack_arrays(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


# -- runs through a cache ---------------------------------------------------------------------------------------------


def test_second_time_comes_from_the_cache_until_the_version_changes():
    (runs, results), servable = counted(MemoryCache(10_000)), CountingServable()
    first = runs.run(version_of(servable), "rank", INPUTS)
    again = runs.run(version_of(servable), "rank", INPUTS)
    np.testing.assert_array_equal(first["scores"], [[1, 1]])
    np.testing.assert_array_equal(again["scores"], [[1, 1]])
    assert servable.runs == 1
    runs.run(version_of(CountingServable("another"), 2), "rank", INPUTS)
    runs.run(version_of(servable), "rank", {**INPUTS, "query": np.array([b"hat"], object)})
    assert servable.runs == 2
    assert results == ["miss", "hit", "miss", "miss"]


def test_an_answer_can_be_changed_without_changing_the_cache():
    runs, servable = CachedRuns(MemoryCache(10_000)), CountingServable()
    for _ in range(3):
        scores = runs.run(version_of(servable), "rank", INPUTS)["scores"]
        np.testing.assert_array_equal(scores, [[1, 1]])
        scores[:] = 99


def test_errors_are_not_kept():
    runs, results = counted(MemoryCache(10_000))
    for _ in range(2):
        with pytest.raises(RequestError):
            runs.run(version_of(CountingServable()), "broken", INPUTS)
    assert results == ["miss", "miss"]


def test_large_answers_are_not_kept():
    runs, servable = CachedRuns(MemoryCache(10_000), max_answer_bytes=30), CountingServable()
    runs.run(version_of(servable), "rank", INPUTS)
    runs.run(version_of(servable), "rank", INPUTS)
    assert servable.runs == 2


def test_what_the_cache_took_is_not_left_to_the_run(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(result_cache, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Slow(MemoryCache):
        def get(self, key):
            clock[0] += 0.25
            return super().get(key)

    runs, servable = CachedRuns(Slow(10_000), max_answer_bytes=0), CountingServable()
    for timeout in (1.0, 0.125, None):
        runs.run(version_of(servable), "rank", INPUTS, timeout=timeout)
    assert servable.timeouts == [0.75, 0.0, None]


def test_through_a_real_servable(served):
    from tfmmrank.export.servable import Servable

    class WithFingerprint(Servable):
        fingerprint = "tiny"

    servable = WithFingerprint(served.model_dir / "1")
    runs, results = counted(MemoryCache(100_000))
    ids = np.array([[b"i1", b"i2", b"nobody", b""]], object)
    inputs = {
        "query": np.array(["红色 shoe".encode()], object), "season": np.array([b""], object),
        "user age": np.array([np.nan], np.float32), "item_ids": ids, "num_items": np.array([3], np.int32),
    }  # fmt: skip
    try:
        first = runs.run(version_of(servable), "rank", inputs)
        again = runs.run(version_of(servable), "rank", inputs)
        with pytest.raises(RequestError, match="is not found|not found in signature"):
            runs.run(version_of(servable), "rank", inputs, ["scoer"])
    finally:
        servable.close()
    assert results == ["miss", "hit", "miss"]
    assert first.keys() == again.keys() == {"scores", "known"}
    for name in first:
        assert first[name].dtype == again[name].dtype
        np.testing.assert_array_equal(first[name], again[name])


# -- in memory --------------------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_the_longest_unused_goes_first():
    cache = MemoryCache(3 * 1300)
    for name in "abc":
        cache.put(name, bytes(1000))
    assert cache.get("a").result == "hit"
    cache.put("d", bytes(1000))
    assert [name for name in "abcd" if cache.get(name).value] == ["a", "c", "d"]
    cache.put("a", bytes(2))
    cache.put("huge", bytes(4000))
    assert cache.get("huge") == Found("miss")
    assert cache.get("a") == Found("hit", bytes(2))
    cache.put("e", bytes(1000))  # there is room again: a is smaller than it was
    assert [name for name in "acde" if cache.get(name).value] == ["a", "c", "d", "e"]


def test_memory_from_many_threads():
    cache = MemoryCache(20 * 1300)

    def work(seed):
        rng = np.random.default_rng(seed)
        for number in rng.integers(0, 60, 500):
            value = cache.get(str(number)).value
            assert value is None or value == bytes([number]) * 1000
            cache.put(str(number), bytes([number]) * 1000)

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, range(4)))
    assert 0 < sum(cache.get(str(number)).value is not None for number in range(60)) <= 21


def test_caches_by_name(monkeypatch):
    assert open_cache("memory", max_mb=2).max_bytes == 2 * 2**20
    with pytest.raises(ValueError, match='unknown result cache "memcached"; expected memory, redis'):
        open_cache("memcached://user:secret@host")
    with pytest.raises(ValueError, match="max_bytes is 0"):
        open_cache("memory", max_mb=0)
    with pytest.raises(ValueError, match="ttl is 0"):
        RedisCache("redis://127.0.0.1:1/0", ttl=0)
    with pytest.raises(ValueError, match="result cache redis:") as told:
        open_cache("redis://user:secret@127.0.0.1:99999999/0")
    assert "secret" not in str(told.value)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r'install "tfmmrank\[redis\]"'):
        open_cache("redis://127.0.0.1:1/0")


# -- Redis ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis_server(port=0):
    """A real server that keeps nothing on disk; yields the process with its port."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (Debian's package redis-server)")
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command = [
        binary,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if "Ready to accept connections" in line:
                    break
            else:
                raise AssertionError(f"redis-server ended with {process.wait()}")
            yield SimpleNamespace(port=port, process=process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def redis():
    with redis_server() as server:
        yield server


def cache_at(port, **options):
    # Time-outs are generous where a busy machine must not fail a test; the tests of slowness give their own.
    return RedisCache(f"redis://127.0.0.1:{port}/0", **{"timeout": 10.0, "pause": 60.0, **options})


def raw(port):
    import redis

    return redis.Redis(host="127.0.0.1", port=port)


def test_redis_keeps_answers_for_a_time_under_its_own_names(redis):
    with contextlib.closing(cache_at(redis.port, ttl=100)) as cache, raw(redis.port) as client:
        client.flushall()
        assert cache.get("k") == Found("miss")
        cache.put("k", b"value")
        assert cache.get("k") == Found("hit", b"value")
        assert client.keys() == [b"tfmmrank:answer:1:k"]
        assert 90 < client.ttl("tfmmrank:answer:1:k") <= 100
        client.flushall()
        assert cache.get("k") == Found("miss")


def test_two_servers_share_answers(redis):
    one, other = CachedRuns(cache_at(redis.port)), CachedRuns(cache_at(redis.port))
    servable = CountingServable("shared")
    one.run(version_of(servable), "rank", INPUTS)
    other.run(version_of(servable), "rank", INPUTS)
    assert servable.runs == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap", "type"])
def test_damaged_values_are_found_out(redis, damage):
    with contextlib.closing(cache_at(redis.port)) as cache, raw(redis.port) as client:
        client.flushall()
        cache.put("k", b"value of k")
        cache.put("other", b"value of other")
        name, good = "tfmmrank:answer:1:k", client.get("tfmmrank:answer:1:k")
        if damage == "flip":
            client.set(name, good[:-1] + bytes([good[-1] ^ 1]))
        elif damage == "cut":
            client.set(name, good[:-2])
        elif damage == "empty":
            client.set(name, b"")
        elif damage == "swap":
            client.set(name, client.get("tfmmrank:answer:1:other"))
        else:
            client.delete(name)
            client.rpush(name, "a list")
        assert cache.get("k") == Found("error")


def test_killed_and_restarted_redis_means_slower_never_wrong(caplog):
    clock = [0.0]
    servable = CountingServable()
    with redis_server() as first:
        cache = cache_at(first.port, pause=5.0, clock=lambda: clock[0])
        runs, results = counted(cache)

        def ask():
            return runs.run(version_of(servable), "rank", INPUTS)["scores"][0, 0]

        assert [ask(), ask()] == [1, 1]
        first.process.kill()
        first.process.wait()
        with caplog.at_level(logging.WARNING):
            assert [ask(), ask()] == [2, 3]
        assert results == ["miss", "hit", "error", "skipped"]  # one failure, then nobody asks
        assert "going on without it" in caplog.text
        clock[0] = 5.0
        assert ask() == 4  # asked once more, still gone
    with redis_server(first.port):
        assert ask() == 5
        assert results[4:] == ["error", "skipped"]  # the pause is not over
        clock[0] = 10.0
        with caplog.at_level(logging.WARNING):
            assert [ask(), ask()] == [6, 6]
        assert "answers again" in caplog.text
        assert results[6:] == ["miss", "hit"]
    cache.close()


def test_no_redis_at_start():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        cache = cache_at(unused.getsockname()[1])
        (runs, results), servable = counted(cache), CountingServable()
        assert runs.run(version_of(servable), "rank", INPUTS)["scores"][0, 0] == 1
    assert results == ["error"]


@contextlib.contextmanager
def answering(reply):
    """A server that takes connections and sends the same bytes to each request; None: never anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def serve(connection):
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    if reply is not None:
                        connection.sendall(reply)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])
                    threading.Thread(target=serve, args=(held[-1],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def test_a_redis_that_never_answers_costs_one_time_out():
    with answering(None) as port:
        cache = cache_at(port, timeout=0.05)
        (runs, results), servable = counted(cache), CountingServable()
        answers = [runs.run(version_of(servable), "rank", INPUTS)["scores"][0, 0] for _ in range(20)]
    assert answers == list(range(1, 21))
    assert results == ["error"] + ["skipped"] * 19


class SlowClient:
    """Redis, each answer of which takes as long as ``seconds`` says."""

    def __init__(self, clock):
        self.clock, self.seconds, self.kept, self.asked = clock, 0.0, {}, 0

    def get(self, name):
        self.asked += 1
        self.clock[0] += self.seconds
        return self.kept.get(name)

    def set(self, name, value, px):
        self.clock[0] += self.seconds
        self.kept[name] = value


def test_a_slow_redis_is_left_alone(caplog):
    clock = [0.0]
    cache = RedisCache("redis://127.0.0.1:1/0", timeout=0.05, pause=5.0, clock=lambda: clock[0])
    cache._client = client = SlowClient(clock)
    cache.put("k", b"value")
    client.seconds = 0.03  # more than half of the time-out, and no error
    with caplog.at_level(logging.WARNING):
        found = [cache.get("k").result for _ in range(5)]
    assert found == ["hit", "hit", "hit", "skipped", "skipped"]
    assert client.asked == 3
    assert "takes 30 ms to answer; going on without it" in caplog.text
    clock[0] += 5.0
    assert [cache.get("k").result for _ in range(2)] == ["hit", "skipped"]  # tried once, still slow
    clock[0] += 5.0
    client.seconds = 0.001
    assert [cache.get("k").result for _ in range(5)] == ["hit"] * 5


def test_a_slow_answer_now_and_then_is_no_failure():
    clock = [0.0]
    cache = RedisCache("redis://127.0.0.1:1/0", timeout=0.05, clock=lambda: clock[0])
    cache._client = client = SlowClient(clock)
    for number in range(30):
        client.seconds = 0.001 if number % 3 == 0 else 0.049
        assert cache.get("k") == Found("miss")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$abc\r\n",
        b"\xff\xfe\r\n",
        b"-NOAUTH no\r\n",
        b"*1\r\n$-5\r\n",
        b"+OK\r\n",
    ],
)
def test_wrong_answers_are_no_answers(reply):
    with answering(reply) as port:
        cache = cache_at(port, timeout=0.5)
        assert cache.get("k") == Found("error")
        cache.close()


def test_an_answer_to_another_question_is_found_out(redis):
    """A connection out of step gives the answer to the question before."""
    cache = cache_at(redis.port)
    cache.put("a", b"value of a")
    sealed = cache._client.get("tfmmrank:answer:1:a")
    cache._client.get = lambda name: sealed
    assert cache.get("b") == Found("error")


def test_breaker_lets_one_ask_after_the_pause():
    clock = [0.0]
    breaker = CircuitBreaker(5.0, lambda: clock[0])
    assert breaker.allows()
    assert breaker.failed()
    assert not breaker.failed()
    assert not breaker.allows()
    clock[0] = 5.0
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True, True, True]
