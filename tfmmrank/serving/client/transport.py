"""How a client reaches a server: channel, TLS, deadline, and asking again. The same for threads and for asyncio."""

from __future__ import annotations

import random
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tfmmrank.serving.client.answers import ServingError

_OPTIONS = [
    # The 4 MB limit is the client's own; a full catalogue's embeddings are more.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that restarts is found again within a second, where gRPC's own waits grow to two minutes, and one that
    # does not even refuse is given up after two; by a new address, if the name has one.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]
_FULL = "queue to which this task was submitted is full"  # TensorFlow's ``shared_batch_scheduler.h``


@dataclass(frozen=True)
class Tls:
    """An encrypted connection, by PEM files.

    Args:
        root_ca: the authorities that the server's certificate may come from; default: those that gRPC brings.
        certificate: the client's own, for a server that asks for one (mutual TLS).
        key: its private key, not encrypted.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for a certificate without a key or the other way, and for a file that does not hold what it should.
    """

    root_ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise ValueError(f"mutual TLS takes a certificate and its key: got a {given} and no {missing}")
        self._check()

    def _check(self) -> None:
        """Reads the files as OpenSSL does: gRPC says nothing of a wrong one but that it cannot connect."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.root_ca is not None:
            _read(self.root_ca)
            try:
                context.load_verify_locations(self.root_ca)
            except ssl.SSLError as error:
                raise ValueError(f"{self.root_ca}: holds no certificate in PEM form ({error})") from error
        if self.certificate is not None and self.key is not None:
            _read(self.certificate)
            _read(self.key)
            try:
                context.load_cert_chain(self.certificate, self.key, password="")
            except (ssl.SSLError, ValueError) as error:
                raise ValueError(
                    f"{self.certificate} and {self.key}: are no certificate with its private key, both in PEM form and "
                    f"the key not encrypted ({error})"
                ) from error

    def credentials(self) -> Any:
        """The channel credentials that gRPC takes."""
        return grpc.ssl_channel_credentials(_read(self.root_ca), _read(self.key), _read(self.certificate))


def _read(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


@dataclass(frozen=True)
class Retry:
    """How to ask again a server that is not there, or that has too much to do: exponential backoff with full jitter.

    Only UNAVAILABLE is asked again: ranking twice changes nothing, but a request that was refused or has timed out
    would be so again. A server that is away, or says that it shuts down, is waited for as long as the call's timeout
    allows, so that a restart loses nothing. One whose batching queue is full is there, and has more requests than it
    can answer: it is asked a few more times. gRPC tells the two apart by the message alone.

    Args:
        first: seconds before the second attempt, at most.
        most: seconds before any attempt, at most.
        when_full: how often a server whose queue is full is asked again.
    """

    first: float = 0.05
    most: float = 1.0
    when_full: int = 3

    def wait(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after the ``failures``-th failure, counted from 1: uniform below a limit that doubles."""
        return rng.uniform(0.0, min(self.most, self.first * 2.0 ** min(failures - 1, 60)))


class Deadline:
    """The time by which a call, with all that it asks, must be answered.

    Args:
        timeout: seconds from now.

    Raises:
        ValueError: for a timeout that is not positive.
    """

    def __init__(self, timeout: float) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}; expected seconds above 0")
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """Seconds left; none is 0."""
        return max(self._end - time.monotonic(), 0.0)


class Attempts:
    """One question's attempts: what each may take, and what follows when it fails.

    Args:
        asked: whom, for errors.
        deadline: the call's.
        retry: None: one attempt.
    """

    def __init__(self, asked: str, deadline: Deadline, retry: Retry | None) -> None:
        self._asked, self._deadline, self._retry = asked, deadline, retry
        self._failures = self._full = 0
        self._absent = ""  # why there was no server, when last there was none

    def options(self) -> dict[str, Any]:
        """The next attempt's options for gRPC. Any but the first waits for the connection to be there again."""
        return {"timeout": self._deadline.left(), "wait_for_ready": self._failures > 0}

    def wait_after(self, error: Any) -> float:
        """Seconds to wait until the next attempt.

        Args:
            error: the ``grpc.RpcError`` of the last one.

        Raises:
            ServingError: when there is no next one.
        """
        code, details = error.code().name, error.details()
        left = self._deadline.left()
        full = code == "UNAVAILABLE" and _FULL in details
        if code == "UNAVAILABLE":
            self._failures += 1
            self._full += full
            self._absent = "" if full else details
            if self._retry is not None and left:
                wait = self._retry.wait(self._failures, random.Random())  # seeded anew: forks would wait the same time
                if not full:
                    return min(wait, left)
                if wait < left and self._full <= self._retry.when_full:
                    return wait
        if code == "DEADLINE_EXCEEDED" and self._absent:
            code, details = "UNAVAILABLE", self._absent
        if full:
            details = f"the server has more requests than it can answer ({details}; asked {self._full} times)"
        elif code == "UNAVAILABLE":
            waited = f"; waited {self._deadline.timeout:g} s for it" if self._retry is not None else ""
            details = f"{_why_absent(details)} ({details}{waited})"
        elif code == "DEADLINE_EXCEEDED":
            details = f"no answer within {self._deadline.timeout:g} s; the server may still be loading its model"
        raise ServingError(code, f"{self._asked}: {details} [{code}]") from error


def _why_absent(details: str) -> str:
    if "handshake failed" in details:
        return "TLS with the server there fails; does it speak TLS, and do the files given here fit its certificate?"
    if "SETTINGS" in details:
        return "what answers there is no gRPC port; is it the REST port? TensorFlow Serving's gRPC port is 8500"
    if "failed to connect" in details and "Socket closed" in details:
        return "the server there hangs up; does it ask for TLS, or for a client certificate?"
    if "Socket closed" in details:
        return "the server went away before it answered"
    return "no model server answers there; start one with `tfmmrank serve`"


def open_channel(grpc_module: Any, address: str, tls: Tls | None, keepalive: float | None) -> Any:
    """A channel, connected when first used.

    Args:
        grpc_module: ``grpc``, or ``grpc.aio`` for asyncio.
        address: ``host:port``.
        tls: None: not encrypted.
        keepalive: after how many seconds without a word a connection with requests under way is tried; None: never.

    Raises:
        ValueError: for an address without a port.
    """
    if ":" not in address:
        raise ValueError(f'address is "{address}"; expected HOST:PORT, such as {address or "127.0.0.1"}:8500')
    options = list(_OPTIONS)
    if keepalive is not None:
        # Also has the kernel give up a connection whose packets nobody acknowledges. Idle connections are not tried:
        # TensorFlow Serving's side closes those of clients that ask more than once in five minutes.
        options += [("grpc.keepalive_time_ms", int(1000 * keepalive)), ("grpc.keepalive_timeout_ms", 10_000)]
    if tls is None:
        return grpc_module.insecure_channel(address, options=options)
    return grpc_module.secure_channel(address, tls.credentials(), options=options)
