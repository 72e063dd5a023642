"""A cache of answers: the same question to the same version of a model is computed once.

An answer depends on the version's content, the signature and the inputs alone, so that all of them, and nothing else,
make the key. A new version has another fingerprint and never sees an old version's answers: there is nothing to
invalidate.
"""

from __future__ import annotations

import hashlib
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor

_ENTRY_OVERHEAD = (
    200  # bytes of Python objects around one entry: 150 by tracemalloc, more when the table has just grown
)


class Found(NamedTuple):
    """What a look-up in a cache came to.

    Attributes:
        result: ``hit``; ``miss``; ``error``: the cache failed, or what it kept was damaged; ``skipped``: it failed a
            moment ago, and was not asked.
        value: of a hit; else None.
    """

    result: str
    value: bytes | None = None


class ResultCache(ABC):
    """Bytes by key; safe to use from several threads. It may forget anything at any time, and never raises."""

    @abstractmethod
    def get(self, key: str) -> Found:
        """The value, or why there is none."""

    @abstractmethod
    def put(self, key: str, value: bytes) -> None:
        """Keeps a value, if it can."""

    def close(self) -> None:  # noqa: B027 - a cache may have nothing to close
        """Frees connections."""


class MemoryCache(ResultCache):
    """In this process; the answers asked for longest ago go first.

    Args:
        max_bytes: of keys, values and what Python needs around them.

    Raises:
        ValueError: when that is not positive.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes is {max_bytes}; expected a positive number")
        self.max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Found:
        """The value, if it is there."""
        with self._lock:
            value = self._entries.get(key)
            if value is None:
                return Found("miss")
            self._entries.move_to_end(key)
            return Found("hit", value)

    def put(self, key: str, value: bytes) -> None:
        """Keeps a value, unless it alone is larger than the cache."""
        size = _size(key, value)
        if size > self.max_bytes:
            return
        with self._lock:
            self._drop(key)
            self._entries[key] = value
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= _size(key, value)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_OVERHEAD


def open_cache(where: str, max_mb: float = 64.0) -> ResultCache:
    """A cache by name.

    Args:
        where: ``memory``, or a Redis server's ``redis://[user:password@]host:port/database`` (``rediss`` for TLS).
        max_mb: megabytes that a cache in memory may take; a Redis server has a limit of its own (``maxmemory``).

    Raises:
        ImportError: for Redis without the extra ``tfmmrank[redis]``.
        ValueError: for another name, or a number that is not positive.
    """
    if where == "memory":
        return MemoryCache(int(max_mb * 2**20))
    if where.startswith(("redis://", "rediss://")):
        from tfmmrank.serving.server.redis_cache import RedisCache

        return RedisCache(where)
    scheme = urlsplit(where).scheme or where  # the rest may hold a password
    raise ValueError(f'unknown result cache "{scheme}"; expected memory, redis://HOST:PORT/0 or rediss://HOST:PORT/0')


class CachedRuns:
    """Runs servables through a cache.

    Only answers are kept, never errors: a wrong request is refused by the servable each time.

    Args:
        cache: where answers are kept.
        max_answer_bytes: answers larger than this, such as the vectors of a whole catalogue, are not kept.
    """

    def __init__(self, cache: ResultCache, max_answer_bytes: int = 1 << 20) -> None:
        self.cache, self.max_answer_bytes = cache, max_answer_bytes
        self.on_look_up: Callable[[str, str], None] | None = None  # told (model, a look-up's result)

    def run(
        self,
        loaded: Any,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """As ``loaded.servable.run``, but from the cache where it has the answer.

        Args:
            loaded: a ``LoadedVersion``: ``model``, ``version`` and ``servable``.
            signature: its name.
            inputs: arrays by input, as ``Servable.run`` takes them.
            output_filter: outputs wanted; empty: all.
            timeout: seconds that asking the cache and the run may take.

        Raises:
            RequestError: as ``Servable.run``.
        """
        began = time.monotonic()
        key = answer_key(loaded.model, loaded.version, loaded.servable.fingerprint, signature, inputs, output_filter)
        found = self.cache.get(key)
        if self.on_look_up is not None:
            self.on_look_up(loaded.model, found.result)
        if found.value is not None:
            return unpack_arrays(found.value)
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        outputs = loaded.servable.run(signature, inputs, output_filter, left)
        value = pack_arrays(outputs)
        if len(value) <= self.max_answer_bytes:
            self.cache.put(key, value)
        return outputs


def answer_key(
    model: str,
    version: int,
    fingerprint: str,
    signature: str,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str] = (),
) -> str:
    """The digest that names an answer: 64 hexadecimal digits.

    It is made from the inputs' values, so that the order of a request's map and the way a tensor was written
    (``float_val`` or ``tensor_content``) play no part; every part is preceded by its length, so that no two questions
    run together into the same bytes.
    """
    digest = hashlib.blake2b(digest_size=32)
    parts = [model, str(version), fingerprint, signature, str(len(inputs)), *sorted(output_filter)]
    _feed(digest, "\0".join(f"{len(part)}:{part}" for part in parts).encode("utf-8"))
    for name in sorted(inputs):
        array = inputs[name]
        _feed(digest, f"{name}\0{array.dtype.str}\0{array.shape}".encode())
        if array.dtype == object:
            values = array.ravel().tolist()
            _feed(digest, np.fromiter(map(len, values), np.int64, len(values)).tobytes())
            _feed(digest, b"".join(values))
        else:
            _feed(digest, np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _feed(digest: Any, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of a PredictResponse: any program can read them, and reading runs no code."""
    message = wire.PredictResponse()
    for name, array in arrays.items():
        write_tensor(message.outputs[name], array)
    return message.SerializeToString()


def unpack_arrays(value: bytes) -> dict[str, np.ndarray]:
    """The arrays of ``pack_arrays``."""
    return {name: read_tensor(tensor) for name, tensor in wire.PredictResponse.FromString(value).outputs.items()}
