"""The embedded server's REST port: TensorFlow Serving's REST API and the page of metrics, over HTTP or HTTPS."""

from __future__ import annotations

import functools
import http.client
import io
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cheroot.errors import MaxSizeExceeded
from cheroot.server import Gateway

from tfmmrank.serving.server.http_connection import Server, TlsAdapter
from tfmmrank.serving.server.rest_handler import MAX_BODY, METRICS_PATH, Response, RestHandler

if TYPE_CHECKING:
    from tfmmrank.serving.monitoring.metrics import ServingMetrics

_PIECE = 1 << 16
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")


class RestServer:
    """Answers TensorFlow Serving's REST API. Its port is taken when it is made; ``start`` begins to answer.

    A port that is open to the world wants a proxy before it: a thread is held by a client that sends slowly, for up to
    ``read_timeout``.

    Args:
        core: what answers: ``tfmmrank.serving.server.core.ServerCore``, or any object with its methods.
        metrics: where requests are counted, and the page at ``metrics_path``; None: neither.
        host: address to listen on; the default serves this machine alone.
        port: port to listen on; 0 picks a free one, see ``address``.
        threads: requests answered at once.
        request_timeout: seconds that a model may run for a request; None: no limit.
        read_timeout: seconds in which a request has to arrive.
        max_body: bytes that a request's body may have, packed and unpacked.
        metrics_path: the page's path.
        certificate: PEM file of the server's certificate, for HTTPS.
        private_key: PEM file of its key.
        client_ca: PEM file of authorities that clients' certificates have to come from (mutual TLS).

    Raises:
        OSError: when the port is taken.
        ValueError: for a certificate without a key, or files that do not fit.

    Attributes:
        address: ``host:port``.

    Example:
        >>> rest = RestServer(core, ServingMetrics(), port=8501)
        >>> rest.start()
        >>> rest.stop(grace=10)
    """

    def __init__(
        self,
        core: Any,
        metrics: ServingMetrics | None = None,
        host: str = "127.0.0.1",
        port: int = 8501,
        *,
        threads: int = 16,
        request_timeout: float | None = 30.0,
        read_timeout: float = 30.0,
        max_body: int = MAX_BODY,
        metrics_path: str = METRICS_PATH,
        certificate: str | Path | None = None,
        private_key: str | Path | None = None,
        client_ca: str | Path | None = None,
    ) -> None:
        self.handler = RestHandler(
            core, metrics, request_timeout=request_timeout, metrics_path=metrics_path, max_body=max_body
        )
        self._http = Server(
            (host, port), functools.partial(_RestGateway, self.handler), threads, read_timeout, max_body
        )
        self._http.ssl_adapter = _tls(certificate, private_key, client_ca)
        try:
            self._http.prepare()
        except OSError as error:
            raise OSError(
                f"cannot listen on {host}:{port}: is another server there, or no such address here?"
            ) from error
        self.address = f"[{host}]:{self._http.bind_addr[1]}" if ":" in host else f"{host}:{self._http.bind_addr[1]}"
        self._thread = threading.Thread(target=self._http.serve, name="rest", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self, grace: float | None = 5.0) -> None:
        """Takes no new requests and waits for those that run.

        Args:
            grace: seconds after which a client that still sends is cut off; None: never. A model that runs finishes
                its run, for ``request_timeout`` at most.
        """
        self._http.shutdown_timeout = grace  # type: ignore[assignment]
        self._http.stop()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> RestServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _tls(
    certificate: str | Path | None, private_key: str | Path | None, client_ca: str | Path | None
) -> TlsAdapter | None:
    if certificate is None and private_key is None and client_ca is None:
        return None
    if certificate is None or private_key is None:
        raise ValueError(
            f"HTTPS needs certificate and private_key; got certificate={certificate}, private_key={private_key}"
        )
    return TlsAdapter(str(certificate), str(private_key), None if client_ca is None else str(client_ca))


class _RestGateway(Gateway):
    """Cheroot's way to an application, without WSGI, which would unquote the path before it is taken apart."""

    def __init__(self, handler: RestHandler, request: Any) -> None:
        super().__init__(request)
        self._handler = handler

    def respond(self) -> None:
        request = self.req
        try:
            body = _read_body(request)
        except MaxSizeExceeded:
            request.simple_response("413 Request Entity Too Large", "the body is larger than the server takes")
            return
        except ValueError as error:
            request.simple_response("400 Bad Request", str(error))
            return
        encoding = request.inheaders.get(b"Content-Encoding", b"").decode("latin-1")
        target = request.uri.decode("utf-8", "replace")
        _send(request, self._handler.answer(request.method.decode("latin-1"), target, body, encoding))


def _read_body(request: Any) -> bytes:
    """A request's body, which Cheroot has bounded in time and size.

    Raises:
        MaxSizeExceeded: when it is too large.
        ValueError: when it is cut short, or its chunks are not what HTTP says.
    """
    if request.chunked_read:
        return _read_chunks(request.conn.rfile, request.server.max_request_body_size)
    body = b"".join(iter(lambda: request.rfile.read(_PIECE), b""))
    if request.rfile.remaining:
        raise ValueError("the body is shorter than its Content-Length")
    return body


def _read_chunks(rfile: Any, limit: int) -> bytes:
    """As ``_read_body``; Cheroot's own reading of chunks takes time in the square of a chunk's size."""
    body = io.BytesIO()
    while size := _read_chunk_size(rfile):
        if body.tell() + size > limit:
            raise MaxSizeExceeded
        body.write(rfile.read(size))
        if rfile.read(2) != b"\r\n":
            raise ValueError("a chunk of the body is longer than its size, or cut short")
    while (line := rfile.readline()) != b"\r\n":  # trailers, which would be taken for the next request
        if not line.endswith(b"\r\n"):
            raise ValueError("the body is cut short behind its last chunk")
    return body.getvalue()


def _read_chunk_size(rfile: Any) -> int:
    line = rfile.readline()
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise ValueError(f"the size of a chunk of the body is {line[:20]!r}; expected hexadecimal digits")
    return int(match[1], 16)


def _send(request: Any, response: Response) -> None:
    phrase = http.client.responses.get(response.status, "Client Closed Request")
    request.status = f"{response.status} {phrase}".encode("ascii")
    request.outheaders = [
        (b"Content-Type", response.content_type.encode("ascii")),
        (b"Content-Length", str(len(response.body)).encode("ascii")),
    ]
    request.conn.socket.settimeout(request.server.timeout)
    request.ensure_headers_sent()
    if request.method != b"HEAD":
        request.conn.socket.sendall(response.body)
