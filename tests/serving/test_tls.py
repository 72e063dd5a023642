"""TLS and mutual TLS, with certificates made for the test, and ports that are open without."""

from __future__ import annotations

import warnings

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tfmmrank.serving import serve
from tfmmrank.serving.server.tls import ServerTls, is_loopback, warn_if_open, with_port

pytestmark = pytest.mark.embedded_only


class Files:
    """A server's and a client's certificate of one authority, and a client's of another."""

    def __init__(self, folder):
        ca, stranger = trustme.CA(), trustme.CA()
        self.folder = folder
        self.ca = self._write("ca.pem", ca.cert_pem.bytes())
        self.certificate, self.key = self._pair("server", ca.issue_cert("localhost", "127.0.0.1"))
        self.client = self._pair("client", ca.issue_cert("client.test"))
        self.stranger = self._pair("stranger", stranger.issue_cert("stranger.test"))

    def _pair(self, name, issued):
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return self._write(f"{name}.pem", chain), self._write(f"{name}.key", issued.private_key_pem.bytes())

    def _write(self, name, contents):
        (self.folder / name).write_bytes(contents)
        return self.folder / name


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("tls"))


def check(address, ca, pair=None):
    """Asks for the server's health over TLS; returns the status, or gRPC's code."""
    certificate, key = (file.read_bytes() for file in pair) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, certificate)
    with grpc.secure_channel(address.replace("127.0.0.1", "localhost"), credentials) as channel:
        try:
            return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60).status
        except grpc.RpcError as error:
            return error.code().name


SERVING = health_pb2.HealthCheckResponse.SERVING


def test_tls(small_model, files):
    with serve(small_model, port=0, tls=ServerTls.from_files(files.certificate, files.key)) as server:
        assert check(server.address, files.ca) == SERVING
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert caught.value.code().name == "UNAVAILABLE"


def test_mutual_tls_wants_a_certificate_of_the_authority(small_model, files):
    tls = ServerTls.from_files(files.certificate, files.key, files.ca)
    with serve(small_model, port=0, tls=tls) as server:
        assert check(server.address, files.ca, files.client) == SERVING
        assert check(server.address, files.ca) == "UNAVAILABLE"
        assert check(server.address, files.ca, files.stranger) == "UNAVAILABLE"


def ssl_config(folder, **fields):
    file = folder / "ssl.config"
    lines = []
    for name, value in fields.items():
        text = str(value).lower() if isinstance(value, bool) else '"' + value.replace("\n", "\\n") + '"'
        lines.append(f"{name}: {text}\n")
    file.write_text("".join(lines))
    return file


def test_ssl_config_holds_the_contents_as_for_tensorflow_serving(files, tmp_path):
    texts = {"server_key": files.key.read_text(), "server_cert": files.certificate.read_text()}
    plain = ServerTls.from_ssl_config(ssl_config(tmp_path, **texts))
    assert (plain.server_key, plain.server_cert, plain.client_verify) == (*texts.values(), False)
    ca = files.ca.read_text()
    mutual = ServerTls.from_ssl_config(ssl_config(tmp_path, **texts, custom_ca=ca, client_verify=True))
    assert (mutual.custom_ca, mutual.client_verify) == (ca, True)
    files_too = ServerTls.from_files(files.certificate, files.key, files.ca)
    assert (files_too.server_key, files_too.custom_ca) == (mutual.server_key, mutual.custom_ca)


def test_faults_of_files_are_told(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pem"):
        ServerTls.from_files(tmp_path / "none.pem", files.key)
    with pytest.raises(ValueError, match="server.key: holds no PEM block of a certificate"):
        ServerTls.from_files(files.key, files.key)
    with pytest.raises(ValueError, match="server.pem: holds no PEM block of an unencrypted private key"):
        ServerTls.from_files(files.certificate, files.certificate)
    with pytest.raises(ValueError, match="server.pem and .*client.key: no certificate with its private key: key value"):
        ServerTls.from_files(files.certificate, files.client[1])
    (tmp_path / "noise.pem").write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="noise.pem: not PEM text"):
        ServerTls.from_files(tmp_path / "noise.pem", files.key)
    locked = files.key.read_text().replace("BEGIN RSA", "BEGIN ENCRYPTED").replace("BEGIN EC", "BEGIN ENCRYPTED")
    (tmp_path / "locked.key").write_text(locked)
    with pytest.raises(ValueError, match="locked.key: holds no PEM block of an unencrypted private key"):
        ServerTls.from_files(files.certificate, tmp_path / "locked.key")
    broken = files.certificate.read_text().replace("M", "N")
    (tmp_path / "broken.pem").write_text(broken)
    with pytest.raises(ValueError, match="broken.pem and .*server.key: no certificate with its private key"):
        ServerTls.from_files(tmp_path / "broken.pem", files.key)
    config = ssl_config(tmp_path, server_key=str(files.key), server_cert=str(files.certificate))
    with pytest.raises(ValueError, match="ssl.config: server_key: holds no PEM block"):
        ServerTls.from_ssl_config(config)
    config = ssl_config(
        tmp_path, server_key=files.key.read_text(), server_cert=files.certificate.read_text(), client_verify=True
    )
    with pytest.raises(ValueError, match="ssl.config: custom_ca: holds no PEM block of certificates of authorities"):
        ServerTls.from_ssl_config(config)
    damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    texts = {"server_key": files.key.read_text(), "server_cert": files.certificate.read_text()}
    with pytest.raises(ValueError, match="ssl.config: custom_ca: damaged certificates of authorities"):
        ServerTls.from_ssl_config(ssl_config(tmp_path, **texts, custom_ca=damaged))
    config = ssl_config(tmp_path, server_key=files.client[1].read_text(), server_cert=files.certificate.read_text())
    with pytest.raises(ValueError, match="ssl.config: server_cert and server_key: no certificate with its private key"):
        ServerTls.from_ssl_config(config)


def test_what_other_machines_reach_in_the_clear_is_warned_of():
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "a.host")] == [False] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_open("127.0.0.1", tls=False, plain_rest=True)
        warn_if_open("0.0.0.0", tls=True, plain_rest=False)
    with pytest.warns(UserWarning, match=r"^gRPC on 0\.0\.0\.0 can be reached by other machines without TLS"):
        warn_if_open("0.0.0.0", tls=False, plain_rest=False)
    with pytest.warns(UserWarning, match="^gRPC and REST on :: can be reached"):
        warn_if_open("::", tls=False, plain_rest=True)
    with pytest.warns(UserWarning, match="^REST on a.host can be reached"):
        warn_if_open("a.host", tls=True, plain_rest=True)


def test_addresses_are_written_as_clients_read_them():
    assert with_port("127.0.0.1", 8500) == "127.0.0.1:8500"
    assert with_port("::1", 8500) == "[::1]:8500"
