"""The REST port as clients meet it over sockets: kept connections, limits, slow and hostile clients, TLS, stopping."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading

import pytest
import trustme

from tests.serving.rest_core import ScriptedCore
from tests.serving.test_versions import until
from tfmmrank.serving import serve
from tfmmrank.serving.server import http_connection
from tfmmrank.serving.server.limits import Limits
from tfmmrank.serving.server.rest import RestServer

PATH = "/v1/models/m:predict"
WAIT = 60  # seconds; nothing here takes as long


@pytest.fixture
def core():
    return ScriptedCore()


@pytest.fixture(scope="module")
def rest():
    with RestServer(ScriptedCore(), port=0, threads=2, max_body=10_000) as server:
        yield server


def connect(server, **options):
    host, port = server.address.rsplit(":", 1)
    kind = http.client.HTTPSConnection if options else http.client.HTTPConnection
    return contextlib.closing(kind(host, int(port), timeout=WAIT, **options))


def open_socket(server):
    host, port = server.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=WAIT)


def post(connection, body=b'{"inputs": 1}', **headers):
    connection.request("POST", PATH, body, headers)
    return answer(connection)


def answer(connection):
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(response.read())


def read_all(sock):
    """What a socket gives until the server closes it: status and body."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while received := sock.recv(65536):
            data += received
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_connection_is_kept_for_the_next_request(rest):
    with connect(rest) as connection:
        for number in range(3):
            assert post(connection, f'{{"inputs": {number}}}'.encode()) == (200, {"outputs": 2.0 * number})
            used = connection.sock
            assert used is not None
        connection.request("GET", "/v1/models/m")
        assert answer(connection) == (200, {"model_version_status": []})
        assert connection.sock is used


def test_bodies_in_chunks(rest):
    with connect(rest) as connection:
        for _ in range(2):  # the second: nothing of the first one's end is left
            connection.request("POST", PATH, iter([b'{"inp', b'uts": ', b"4}"]), encode_chunked=True)
            assert answer(connection) == (200, {"outputs": 8.0})


def test_chunks_may_have_extensions_and_trailers(rest):
    with connect(rest) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(b'D ;name="value"\r\n{"inputs": 5}\r\n000\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n')
        assert answer(connection) == (200, {"outputs": 10.0})
        assert post(connection)[0] == 200


def test_large_chunks_come_whole(core):
    body = b'{"inputs": 1}'.ljust(3 << 20)
    with RestServer(core, port=0, threads=1) as server, connect(server) as connection:
        connection.request("POST", PATH, iter([body[:5], body[5:]]), encode_chunked=True)
        assert answer(connection) == (200, {"outputs": 2.0})


def test_an_answer_to_head_has_no_body(rest):
    with connect(rest) as connection:
        connection.request("HEAD", "/v1/models/m")
        response = connection.getresponse()
        assert (response.status, response.read()) == (400, b"")
        assert post(connection)[0] == 200


class TestLimits:
    def test_a_length_past_the_limit(self, rest):
        with open_socket(rest) as sock:
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nContent-Length: 20000\r\n\r\n".encode() + b" " * 20_000)
            sock.shutdown(socket.SHUT_WR)
            status, body = read_all(sock)
        assert status == 413
        assert "exceeds the maximum" in body["error"]

    def test_chunks_past_the_limit(self, rest):
        with open_socket(rest) as sock:
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(3):
                sock.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == (413, {"error": "the body is larger than the server takes"})

    def test_a_size_of_a_chunk_without_an_end(self, rest):
        with open_socket(rest) as sock:
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + b"0" * 200_000)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock)[0] == 413

    @pytest.mark.parametrize("size", ["0xD", "+D", "1_3", "D g", "-D", "", "d" * 17])
    def test_a_size_of_a_chunk_that_is_none(self, rest, size):
        """What Python, but no proxy, takes for a number would end a request elsewhere than the proxy sees it end."""
        with open_socket(rest) as sock:
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            sock.sendall(f'{size}\r\n{{"inputs": 1}}\r\n0\r\n\r\n'.encode())
            sock.shutdown(socket.SHUT_WR)
            status, body = read_all(sock)
        assert (status, body["error"][:16]) == (400, "the size of a ch")

    @pytest.mark.parametrize("end", ["\r\n0\r\nX: 1", "", "\r\n", " \r\n0\r\n\r\n", "\r\n0\n\r\n"])
    def test_chunks_that_do_not_end_as_they_should(self, rest, end):
        with open_socket(rest) as sock:
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            sock.sendall(f'D\r\n{{"inputs": 1}}{end}'.encode())
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock)[0] == 400

    @pytest.mark.parametrize(
        ("request_text", "status"),
        [
            ("nonsense\r\n\r\n", 400),
            ("get /v1/models/m HTTP/1.1\r\n\r\n", 400),
            ("GET /v1/models/m HTTP/9.0\r\n\r\n", 505),
            ("POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}", 400),
            ("POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: x\r\n\r\n{}", 400),
            ("POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 50\r\n\r\n{}", 400),
            ("POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
            ("POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 2\r\n 3\r\n\r\n{}", 400),
            ("POST /v1/models/m:predict HTTP/1.1\r\n Content-Length: 2\r\n\r\n{}", 400),
            (
                "POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
                "2\r\n{}\r\n0\r\n\r\n",
                400,
            ),
            ("POST /v1/models/m:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            ("POST /v1/models/m:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}", 400),
            ("POST /v1/models/m:predict HTTP/1.1\r\nTransfer-Encoding: br\r\n\r\n", 501),
            (f"GET /{'x' * 100_000} HTTP/1.1\r\n\r\n", 414),
            (f"GET /v1/models/m HTTP/1.1\r\nX: {'x' * 100_000}\r\n\r\n", 413),
        ],
    )
    def test_what_is_no_http_is_told_in_json(self, rest, request_text, status):
        with open_socket(rest) as sock:
            sock.sendall(request_text.encode())
            sock.shutdown(socket.SHUT_WR)
            got, body = read_all(sock)
        assert got == status
        assert body["error"]


class TestSlowClients:
    @pytest.fixture
    def hasty(self, core):
        with RestServer(core, port=0, threads=1, read_timeout=0.5) as server:
            yield server

    @pytest.mark.parametrize("sent", ["POST /v1/mod", f"POST {PATH} HTTP/1.1\r\nContent-Length: 50\r\n\r\n{{"])
    def test_a_request_that_never_ends(self, hasty, sent):
        with open_socket(hasty) as sock:
            sock.sendall(sent.encode())
            assert read_all(sock) == (408, {"error": "Request Timeout"})

    def test_a_byte_now_and_then_is_no_way_to_hold_a_thread(self, hasty):
        ended = threading.Event()

        def trickle(sock):
            with contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    sock.sendall(b" ")

        with open_socket(hasty) as sock:
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nContent-Length: 9999\r\n\r\n".encode())
            sender = threading.Thread(target=trickle, args=(sock,))
            sender.start()
            try:
                head = sock.recv(1000)
            finally:
                ended.set()
                sender.join()
        assert head.startswith(b"HTTP/1.1 408 ")

    def test_connections_that_say_nothing_hold_no_thread(self, core):
        with RestServer(core, port=0, threads=1) as server, contextlib.ExitStack() as idle:
            for _ in range(5):
                idle.enter_context(open_socket(server))
            with connect(server) as connection:
                assert post(connection)[0] == 200


def test_more_connections_than_may_wait_are_told_so(core, monkeypatch):
    monkeypatch.setattr(http_connection, "_QUEUED", 1)
    core.gate.clear()
    with RestServer(core, port=0, threads=1) as server, contextlib.ExitStack() as open_ones:
        running, waiting = (open_ones.enter_context(connect(server)) for _ in range(2))
        running.request("POST", PATH, b'{"inputs": 1}')
        assert core.entered.wait(WAIT)
        waiting.request("POST", PATH, b'{"inputs": 2}')
        while server._http.requests.qsize < 1:
            threading.Event().wait(0.01)
        with open_socket(server) as refused:
            refused.sendall(b"GET /v1/models/tiny HTTP/1.1\r\nHost: here\r\n\r\n")  # in one piece: nothing comes after
            assert refused.recv(100).startswith(b"HTTP/1.1 503 ")
        core.gate.set()
        assert answer(running) == (200, {"outputs": 2.0})
        assert answer(waiting) == (200, {"outputs": 4.0})


class TestOpenConnections:
    @pytest.fixture
    def full(self, core, monkeypatch):
        """A server of at most two connections, which have idled since their first request."""
        monkeypatch.setattr(http_connection, "_OPEN", 2)
        with RestServer(core, port=0) as server, connect(server) as first, connect(server) as second:
            assert post(first)[0] == post(second)[0] == 200
            yield server, first, second

    def test_more_are_closed_and_those_there_are_answered(self, full):
        server, first, second = full
        with open_socket(server) as refused, contextlib.suppress(ConnectionResetError):
            assert refused.recv(1) == b""
        assert post(first)[0] == post(second)[0] == 200

    def test_one_that_goes_makes_room(self, full):
        server, first, _ = full
        post(first, Connection="close")
        until(lambda: len(server._http.open) == 1)
        with connect(server) as third:
            assert post(third)[0] == 200

    def test_a_process_that_may_open_few_files_keeps_half_of_them(self, core, monkeypatch):
        monkeypatch.setattr(http_connection.resource, "getrlimit", lambda _: (2, 2))
        with RestServer(core, port=0) as server, connect(server) as first:
            assert post(first)[0] == 200
            with open_socket(server) as refused, contextlib.suppress(ConnectionResetError):
                assert refused.recv(1) == b""


def test_a_limit_of_the_server_is_one_of_bodies_too(small_model):
    with serve(small_model, port=0, rest_port=0, limits=Limits(message_bytes=100)) as server:
        host, port = server.rest_address.rsplit(":", 1)
        for size, status in ((100, 200), (101, 413)):
            with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=WAIT)) as connection:
                connection.request("POST", "/v1/models/small:predict", b'{"inputs": {"x": [[1.5]]}}'.ljust(size))
                assert connection.getresponse().status == status


class TestStop:
    def test_what_runs_is_answered_and_nothing_new_is_taken(self, core):
        core.gate.clear()
        with RestServer(core, port=0) as server, connect(server) as connection:
            connection.request("POST", PATH, b'{"inputs": 3}')
            assert core.entered.wait(WAIT)
            stopping = threading.Thread(target=server.stop, args=(WAIT,))
            stopping.start()
            with contextlib.suppress(ConnectionError), open_socket(server) as late:
                assert late.recv(1) == b""  # taken by the system before the port was closed, then dropped
            core.gate.set()
            assert answer(connection) == (200, {"outputs": 6.0})
            stopping.join(WAIT)
            assert not stopping.is_alive()
            with pytest.raises(ConnectionRefusedError):
                open_socket(server)

    def test_a_server_that_never_answered_stops_too(self, core):
        RestServer(core, port=0).stop()

    def test_a_taken_port(self, rest, core):
        port = int(rest.address.rsplit(":", 1)[1])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            RestServer(core, port=port)


class TestTls:
    @pytest.fixture(scope="class")
    def authority(self):
        return trustme.CA()

    @pytest.fixture(scope="class")
    def files(self, authority, tmp_path_factory):
        folder = tmp_path_factory.mktemp("tls")
        pair = authority.issue_cert("127.0.0.1")
        pair.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        pair.private_key_pem.write_to_path(folder / "key.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        return folder

    @pytest.fixture
    def trusting(self, authority):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    def test_https(self, core, files, trusting):
        options = {"certificate": files / "cert.pem", "private_key": files / "key.pem"}
        server = RestServer(core, port=0, threads=1, **options)
        with server, open_socket(server) as silent, open_socket(server) as plain:
            plain.sendall(b"GET /v1/models/m HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1 200" not in plain.recv(1000)
            with connect(server, context=trusting) as connection:
                assert post(connection) == (200, {"outputs": 2.0})
                assert post(connection) == (200, {"outputs": 2.0})
            silent.settimeout(0.01)
            with pytest.raises(TimeoutError):  # still open: it kept nobody waiting
                silent.recv(1)

    def test_mutual_tls_wants_a_certificate_of_the_authority(self, core, files, trusting, authority):
        options = {"certificate": files / "cert.pem", "private_key": files / "key.pem", "client_ca": files / "ca.pem"}
        with RestServer(core, port=0, **options) as server:
            with connect(server, context=trusting) as connection, pytest.raises(OSError):  # noqa: PT011 - of TLS or TCP
                post(connection)
            authority.issue_cert("shop-frontend").configure_cert(trusting)
            with connect(server, context=trusting) as connection:
                assert post(connection) == (200, {"outputs": 2.0})
        assert len(core.requests) == 1

    def test_files_that_do_not_fit(self, core, files):
        with pytest.raises(ValueError, match="HTTPS needs certificate and private_key"):
            RestServer(core, port=0, certificate=files / "cert.pem")
        with pytest.raises(ValueError, match="none.pem"):
            RestServer(core, port=0, certificate=files / "none.pem", private_key=files / "key.pem")
        with pytest.raises(ValueError, match="cannot use"):
            RestServer(core, port=0, certificate=files / "cert.pem", private_key=files / "ca.pem")
