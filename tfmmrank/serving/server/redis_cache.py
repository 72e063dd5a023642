"""The result cache in Redis, shared by several servers. Redis gone means slower, never wrong and never an error."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tfmmrank.serving.server.result_cache import Found, ResultCache

_DIGEST_SIZE = 16
_SLOW = 0.5  # of the time-out; so many slow answers in a row are a failure, one or two may be this process's own doing
_SLOW_IN_A_ROW = 3
_LOG = logging.getLogger(__name__)


class CircuitBreaker:
    """Keeps from asking a service that has just failed, so that not every request waits for its time-out.

    After a failure nobody asks for ``pause`` seconds; then one asks, and its success or failure decides for all.

    Args:
        pause: seconds.
        clock: seconds that only grow; tests give their own.
    """

    def __init__(self, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.pause, self._clock = pause, clock
        self._again_at: float | None = None  # None: the service works
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Whether to ask now; when it says so after a failure, the next ones are told to wait for the outcome."""
        if self._again_at is None:
            return True
        with self._lock:
            now = self._clock()
            if self._again_at is not None and now < self._again_at:
                return False
            if self._again_at is not None:
                self._again_at = now + self.pause
            return True

    def succeeded(self) -> bool:
        """The service answered. Returns whether it had failed before."""
        if self._again_at is None:
            return False
        with self._lock:
            failed, self._again_at = self._again_at is not None, None
            return failed

    def failed(self) -> bool:
        """The service did not answer. Returns whether it had worked before."""
        with self._lock:
            worked, self._again_at = self._again_at is None, self._clock() + self.pause
            return worked


class RedisCache(ResultCache):
    """Answers in a Redis server, under keys of their own namespace, for a limited time.

    A value carries a digest of its key and content: one that is damaged, cut short or another key's is found out and
    counted as an error. The server is first spoken to when first needed: a model server starts without it.

    Let Redis drop old answers itself: ``maxmemory 256mb`` and ``maxmemory-policy allkeys-lru``.

    Args:
        url: ``redis://[user:password@]host:port/database``, or ``rediss://`` for TLS.
        ttl: seconds until an answer is forgotten.
        timeout: seconds to wait for Redis, to connect and for each answer. A request that waits so long is a failure,
            and so is the third in a row that waits half as long.
        pause: seconds during which Redis is left alone after a failure.
        namespace: what keys begin with.
        clock: seconds that only grow; tests give their own.

    Raises:
        ImportError: without the extra ``tfmmrank[redis]``.
        ValueError: for an address that cannot be read, or seconds that are not positive.
    """

    def __init__(
        self,
        url: str,
        ttl: float = 3600.0,
        timeout: float = 0.05,
        pause: float = 5.0,
        namespace: str = "tfmmrank:answer:1:",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("ttl", ttl), ("timeout", timeout), ("pause", pause)):
            if value <= 0:
                raise ValueError(f"{name} is {value}; expected a positive number of seconds")
        self.ttl, self.timeout, self.namespace = ttl, timeout, namespace
        self._client = _client(url, timeout)
        self._where = _without_password(url)
        self._breaker, self._clock = CircuitBreaker(pause, clock), clock
        self._slow = 0  # answers in a row

    def get(self, key: str) -> Found:
        """The value, or why there is none."""
        result, kept = self._ask(lambda: self._client.get(self.namespace + key))
        if kept is None:
            return Found(result or "miss")
        value = _unseal(key, kept) if isinstance(kept, bytes) else None
        return Found("error") if value is None else Found("hit", value)

    def put(self, key: str, value: bytes) -> None:
        """Keeps a value, if Redis takes it."""
        self._ask(lambda: self._client.set(self.namespace + key, _seal(key, value), px=max(1, int(self.ttl * 1000))))

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _ask(self, command: Callable[[], Any]) -> tuple[str, Any]:
        """What Redis answers, after ``""``; or ``error`` or ``skipped``, and None."""
        if not self._breaker.allows():
            return "skipped", None
        began = self._clock()
        try:
            answer = command()
        except Exception as error:  # whatever a peer's bytes make the library raise must not become a request's error
            self._fail(f"does not answer: {error}")
            return "error", None
        seconds = self._clock() - began
        self._slow = self._slow + 1 if seconds > _SLOW * self.timeout else 0
        if self._slow >= _SLOW_IN_A_ROW:
            self._fail(f"takes {1000 * seconds:.0f} ms to answer")
        elif self._breaker.succeeded():
            _LOG.warning("result cache %s answers again", self._where)
        return "", answer

    def _fail(self, why: str) -> None:
        if self._breaker.failed():
            _LOG.warning("result cache %s %s; going on without it", self._where, why)


def _client(url: str, timeout: float) -> Any:
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ImportError(
            'a result cache in Redis needs the package redis: install "tfmmrank[redis]", or use the cache in memory'
        ) from error
    try:
        return redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise ValueError(f"result cache {_without_password(url)}: {error}") from error


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _seal(key: str, value: bytes) -> bytes:
    return _digest(key, value) + value


def _unseal(key: str, kept: bytes) -> bytes | None:
    """The value, or None where its digest does not fit."""
    digest, value = kept[:_DIGEST_SIZE], kept[_DIGEST_SIZE:]
    return value if digest == _digest(key, value) else None


def _digest(key: str, value: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + value, digest_size=_DIGEST_SIZE).digest()
