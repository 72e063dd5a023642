"""``rank``, ``load-test`` and ``promote`` against servers without a model: labels, TLS, tables and exit codes."""

from __future__ import annotations

import itertools
import json

import grpc
import pytest
import trustme

from tests.serving.fake_server import FakeServer
from tests.serving.model_server import ModelServer
from tfmmrank.cli.main import FAILED, FINE, MISUSE, run


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def requests(tmp_path):
    file = tmp_path / "requests.jsonl"
    file.write_text('{"query": "red", "item_ids": ["i1", "i2"]}\n{"query": "blue", "item_ids": ["i3"]}\n', "utf-8")
    return ["--requests", str(file)]


def test_the_label_is_asked_for(server, requests):
    assert run(["rank", "red", "--items", "i1", "--address", server.address, "--label", "canary"]) == FINE
    once = ["--rate", "20", "--duration", "0.1", "--warmup", "0", "--arrivals", "constant", "--label", "stable"]
    assert run(["load-test", "--address", server.address, *requests, *once]) == FINE
    assert [request.model_spec.version_label for request in server.requests] == ["canary", "stable", "stable"]


@pytest.fixture
def mutual_tls(tmp_path):
    """A server's credentials, and the options of a client that it lets in."""
    authority = trustme.CA()
    ours, theirs = authority.issue_cert("client"), authority.issue_cert("127.0.0.1")
    files = {"ca": authority.cert_pem, "cert": ours.cert_chain_pems[0], "key": ours.private_key_pem}
    options = []
    for name, pem in files.items():
        pem.write_to_path(tmp_path / name)
        options += [f"--tls-{name}", str(tmp_path / name)]
    pair = (theirs.private_key_pem.bytes(), theirs.cert_chain_pems[0].bytes())
    return grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True), options


def test_mutual_tls(mutual_tls, tmp_path, requests, capsys):
    credentials, options = mutual_tls
    with FakeServer(credentials=credentials) as server:
        asked = ["--address", server.address, *options]
        assert run(["rank", "red", "--items", "i1,i3", *asked]) == FINE
        assert run(["load-test", *asked, *requests, "--concurrency", "1", "--duration", "0.1", "--warmup", "0"]) == FINE
        assert run(["rank", "red", "--items", "i1", *asked[:4]]) == FAILED  # without a certificate of its own
    (tmp_path / "key").write_text("none")
    assert run(["rank", "red", "--items", "i1", *asked]) == FAILED
    assert f"{tmp_path / 'key'}: are no certificate with its private key" in capsys.readouterr().err


def test_promote_over_mutual_tls(mutual_tls, tmp_path, capsys):
    credentials, options = mutual_tls
    (tmp_path / "shop" / "2").mkdir(parents=True)
    config = f'model_config_list {{ config {{ name: "shop" base_path: "{tmp_path / "shop"}" }} }}'
    (tmp_path / "models.config").write_text(config)
    promote = ["promote", str(tmp_path / "models.config"), "shop", "--version", "2", "--label", "stable"]
    with ModelServer(config, found=[2], credentials=credentials) as server:
        assert run([*promote, "--address", server.address, *options[:2]]) == FAILED  # without a certificate of its own
        assert (tmp_path / "models.config").read_text() == config
        assert run([*promote, "--address", server.address, *options]) == FINE
        assert server.labels == {"stable": 2}
    capsys.readouterr()
    assert run([*promote, *options]) == MISUSE
    assert "TLS is for a running server: give its --address too" in capsys.readouterr().err


def test_load_tests_table_and_exit_code(server, requests, capsys):
    count = itertools.count()

    def refuse(request, context):
        if next(count) % 4 == 3:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    server.before = refuse
    arguments = ["load-test", "--address", server.address, *requests, "--rate", "40", "--arrivals", "constant"]
    arguments += ["--duration", "0.5", "--warmup", "0"]
    assert run(arguments) == FAILED
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("20 requests in ")
    assert ", 40 a second; answered " in lines[0]
    assert lines[1] == "status OK 15, RESOURCE_EXHAUSTED 5"
    assert "p90 failed" in lines
    assert "p99.9 failed" in lines
    assert sum(int(line.split()[2]) for line in lines if line.startswith("≤")) == 15
    assert run([*arguments, "--allow-errors", "--json"]) == FINE
    found = json.loads(capsys.readouterr().out)
    assert found["statuses"] == {"OK": 15, "RESOURCE_EXHAUSTED": 5}
    assert found["latency_ms"]["p99"] is None


def test_a_wrong_requests_file_is_named(server, tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text('{"query": "red"}\n')
    rate = ["--rate", "1", "--address", server.address]
    assert run(["load-test", "--requests", str(tmp_path / "r.jsonl"), *rate]) == FAILED
    assert 'r.jsonl, line 1: "item_ids" is None; expected a list of ids' in capsys.readouterr().err
    assert run(["load-test", "--requests", str(tmp_path / "nowhere"), *rate]) == FAILED
    assert f"{tmp_path / 'nowhere'}: No such file or directory" in capsys.readouterr().err
