"""Cheroot's HTTP server, made fit for clients that are slow, wrong or hostile.

Cheroot bounds each read of a socket, not a request: who sends a byte now and then keeps a thread for good. It also
hands a thread to a connection that has not sent a byte, accepts connections until no descriptor is left and never
another one then, shakes TLS hands in the one thread that accepts, and answers its own errors as plain text.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import resource
import socket
import ssl
import time
from typing import Any

from cheroot.errors import MaxSizeExceeded
from cheroot.makefile import StreamReader
from cheroot.server import HTTPConnection, HTTPRequest, HTTPServer
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.workers.threadpool import ThreadPool

_HEADERS = 64 << 10  # bytes of a request's line and headers
_QUEUED = 256  # connections that wait for a thread; further ones get 503
_OPEN = 1000  # connections, at most half of the descriptors that the process may have; further ones are closed
_DRAINED = 16 << 20  # bytes of a refused body that are read, so that its sender sees why
_DRAIN_SECONDS = 2.0


class TlsAdapter(BuiltinSSLAdapter):
    """TLS, and mutual TLS where clients' certificates have to come from an authority.

    Args:
        certificate: PEM file with the server's certificate, and the chain after it.
        private_key: PEM file with its key.
        client_ca: PEM file with the authorities of clients' certificates; None: clients need none.

    Raises:
        ValueError: when a file cannot be read or does not fit.
    """

    def __init__(self, certificate: str, private_key: str, client_ca: str | None = None) -> None:
        try:
            super().__init__(certificate, private_key, client_ca)
        except OSError as error:  # ssl's errors too
            names = ", ".join(filter(None, [certificate, private_key, client_ca]))
            raise ValueError(
                f"TLS: cannot use {names}: {error}; expected a certificate, its key, an authority"
            ) from error
        if client_ca:
            self.context.verify_mode = ssl.CERT_REQUIRED

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        """Wraps a new connection; hands are shaken by the thread that answers, see ``Connection``."""
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {}


class _BoundedIO(socket.SocketIO):
    """A socket's bytes, of which one request may take so many, and so long."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "rb")
        self._socket = sock
        self.start_request(0.0, 0)

    def start_request(self, seconds: float, size: int) -> None:
        self._until, self._left = time.monotonic() + seconds, size

    def seconds_left(self) -> float:
        seconds = self._until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")  # Cheroot knows these words, and answers 408
        return seconds

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self.seconds_left())
        count = super().readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise MaxSizeExceeded
        return count


class _BoundedReader(StreamReader):
    def __init__(self, raw: _BoundedIO, size: int) -> None:
        super(StreamReader, self).__init__(raw, size)
        self.bytes_read = 0


def _read_headers(rfile: Any, headers: dict[bytes, bytes]) -> None:
    """Reads a request's headers, stricter than Cheroot: of what a proxy may read otherwise, nothing is guessed."""
    while (line := rfile.readline()) != b"\r\n":
        name, colon, value = line.partition(b":")
        if not line.endswith(b"\r\n"):
            raise ValueError("HTTP requires CRLF terminators")
        if not colon or not name or name != name.strip():
            raise ValueError("Illegal header line.")
        name = name.title()
        headers[name] = headers[name] + b", " + value.strip() if name in headers else value.strip()


class Request(HTTPRequest):
    """A request whose faults are told in JSON."""

    header_reader = staticmethod(_read_headers)

    def read_request_headers(self) -> bool:
        """Reads the headers; refused is a body whose length is not told by one plain number, or by chunks."""
        if not super().read_request_headers():
            return False
        length = self.inheaders.get(b"Content-Length", b"0")
        if not length.isdigit() or (b"Content-Length" in self.inheaders and b"Transfer-Encoding" in self.inheaders):
            self.simple_response("400 Bad Request", "Malformed Content-Length Header.")
            return False
        return True

    def simple_response(self, status: str | int, msg: str | bytes = "") -> None:
        """Answers what is no proper request, and closes the connection."""
        text = msg.decode("latin-1") if isinstance(msg, bytes) else msg
        body = json.dumps({"error": text or str(status).partition(" ")[2]}).encode("ascii")
        head = (
            f"{self.server.protocol} {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.close_connection = self.sent_headers = True
        with contextlib.suppress(OSError):  # the client may be gone
            self.conn.socket.sendall(head.encode("latin-1") + body)
            if str(status).startswith(("413", "414")):  # much may be on its way
                self.conn.drain()


class Connection(HTTPConnection):
    """A connection whose requests have to arrive within a time and a size."""

    RequestHandlerClass = Request

    def __init__(self, server: Server, sock: Any, makefile: Any) -> None:
        super().__init__(server, sock, makefile)
        self._input = _BoundedIO(sock)
        self.rfile.close()
        self.rfile = _BoundedReader(self._input, self.rbufsize)
        self._shaken = not isinstance(sock, ssl.SSLSocket)
        server.open.add(self)

    def close(self) -> None:
        """Closes it."""
        self.server.open.discard(self)
        super().close()

    def communicate(self) -> bool:
        """Reads a request and answers it; returns whether the connection stays open."""
        self._input.start_request(self.server.timeout, self.server.max_request_body_size + _HEADERS)
        if not self._shaken:
            try:
                self.socket.settimeout(self.server.timeout)
                self.socket.do_handshake()
            except OSError:  # not TLS, or without the certificate that is asked for, or too slow
                return False
            self._shaken = True
        return super().communicate()

    def drain(self) -> None:
        """Reads what the client still sends: a connection closed before that would lose the answer."""
        self.socket.shutdown(socket.SHUT_WR)
        self._input.start_request(_DRAIN_SECONDS, 0)
        left = _DRAINED
        while left > 0:
            self.socket.settimeout(self._input.seconds_left())
            received = len(self.socket.recv(1 << 16))
            if not received:
                return
            left -= received


class Server(HTTPServer):
    """An HTTP server with a fixed number of threads.

    Args:
        bind_addr: host and port.
        gateway: Cheroot's Gateway class, which answers.
        threads: requests answered at once.
        read_timeout: seconds in which a request has to arrive, and that a connection may idle.
        max_body: bytes of a body.

    Attributes:
        open: the connections that are.
    """

    ConnectionClass = Connection
    max_request_header_size = _HEADERS
    keep_alive_conn_limit = _OPEN
    request_queue_size = 128
    timeout: float  # type: ignore[assignment]
    _connections: Any  # Cheroot's ConnectionManager, there once the port is taken

    def __init__(
        self, bind_addr: tuple[str, int], gateway: Any, threads: int, read_timeout: float, max_body: int
    ) -> None:
        super().__init__(bind_addr, gateway, server_name="tfmmrank")
        self.open: set[Connection] = set()
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_open = _OPEN if descriptors == resource.RLIM_INFINITY else min(_OPEN, descriptors // 2)
        self.timeout, self.max_request_body_size = read_timeout, max_body
        self.requests = ThreadPool(self, threads, threads, accepted_queue_size=_QUEUED, accepted_queue_timeout=0)

    def process_conn(self, conn: Any) -> None:
        """Gives a connection to a thread once it has sent something."""
        if conn.last_used is None:  # new
            if len(self.open) > self._most_open:
                conn.close()
            else:
                self._connections.put(conn)
            return
        try:
            self.requests.put(conn)
        except queue.Full:
            if self.ssl_adapter is None:  # hands may not have been shaken yet, and this thread must not wait
                with contextlib.suppress(
                    BlockingIOError
                ):  # what is left unread would reset the connection, answer lost
                    conn.socket.recv(_HEADERS, socket.MSG_DONTWAIT)
                Request(self, conn).simple_response("503 Service Unavailable", "too many connections; try again later")
            conn.close()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Writes to stderr what an operator has to know; a client that goes away is not."""
        if level >= logging.WARNING:
            super().error_log(msg, level, traceback)
