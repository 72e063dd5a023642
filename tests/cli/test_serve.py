"""``tfmmrank serve``: what its options become, without a model."""

from __future__ import annotations

import json
import types

import pytest

from tests.serving.test_tls import Files, ssl_config
from tfmmrank.cli.main import FAILED, FINE, MISUSE, run
from tfmmrank.serving.server import server as server_module
from tfmmrank.serving.server.batch_tensors import Batching
from tfmmrank.serving.server.limits import Limits
from tfmmrank.serving.server.manager import VersionState


@pytest.fixture
def served(monkeypatch):
    """Calls of ``serve``: their arguments; the servers end at once."""
    calls = []

    def serve(model, **options):
        calls.append({"model": model, **options})
        states = [VersionState("m", 3, "AVAILABLE"), VersionState("m", 2, "END"), VersionState("n", 7, "AVAILABLE")]
        manager = types.SimpleNamespace(states=lambda: states)
        return types.SimpleNamespace(
            address="127.0.0.1:1", rest_address="127.0.0.1:2", name="m", version=3,
            core=types.SimpleNamespace(manager=manager), run=lambda grace: calls.append(grace),
        )  # fmt: skip

    monkeypatch.setattr(server_module, "serve", serve)
    return calls


@pytest.fixture
def model(tmp_path):
    (tmp_path / "m" / "3").mkdir(parents=True)
    return tmp_path / "m"


def test_a_folder_alone(served, model, capsys):
    assert run(["serve", str(model), "--json"]) == FINE
    options, grace = served
    assert (options["model"], options["models"], grace) == (model, None, 10.0)
    assert (options["host"], options["port"], options["rest_port"]) == ("127.0.0.1", 8500, None)
    assert (options["batching"], options["tls"], options["limits"]) == (None, None, Limits())
    assert "metrics" not in options
    assert json.loads(capsys.readouterr().out) == {
        "address": "127.0.0.1:1", "rest_address": "127.0.0.1:2", "model": "m", "version": 3,
        "models": {"m": [3], "n": [7]},
    }  # fmt: skip


def test_options_as_tensorflow_serving_names_them(served, model, tmp_path, capsys):
    files = Files(tmp_path)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{model}" model_platform: "tensorflow" }} }}'
    )
    batching = tmp_path / "batching.config"
    batching.write_text("max_batch_size { value: 16 }")
    tls = ssl_config(tmp_path, server_key=files.key.read_text(), server_cert=files.certificate.read_text())
    arguments = [
        "--model-config-file", config, "--model-config-file-poll-wait-seconds", "5", "--rest-api-port", "0",
        "--file-system-poll-wait-seconds", "0", "--enable-batching", "--batching-parameters-file", batching,
        "--ssl-config-file", tls, "--grpc-max-threads", "3", "--max-candidates", "1000", "--max-concurrent-requests",
        "64", "--allow-version-labels-for-unavailable-models", "--allow-reload-from", tmp_path,
        "--no-grpc-healthcheck-service", "--grace-seconds", "2",
    ]  # fmt: skip
    assert run(["serve", *map(str, arguments)]) == FINE
    options, grace = served
    assert (options["model"], options["models"], grace) == (None, config, 2.0)
    assert (options["config_poll_seconds"], options["poll_seconds"], options["rest_port"]) == (5.0, 0.0, 0)
    assert options["batching"] == Batching(max_batch_size=16)
    assert options["tls"].server_cert == files.certificate.read_text()
    assert options["limits"] == Limits(candidates=1000, concurrent_requests=64)
    assert options["allow_labels_for_unavailable"] is True
    assert (options["allow_reload_from"], options["workers"], options["health"]) == ((tmp_path,), 3, False)
    assert 'serving "m" version 3, "n" version 7 on 127.0.0.1:1, REST on 127.0.0.1:2' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give MODEL, or --model-config-file: one of them"),
        (["{m}", "--model-config-file", "models.config"], "give MODEL, or --model-config-file: one of them"),
        (["{m}", "--batching-parameters-file", "b"], "--batching-parameters-file goes with --enable-batching"),
        (["{m}", "--tls-key", "key.pem"], "TLS takes both --tls-certificate and --tls-key"),
        (["{m}", "--ssl-config-file", "s", "--tls-key", "k"], "--ssl-config-file, or --tls-certificate and --tls-key"),
        (["{m}", "--monitoring-config-file", "{on}"], "--monitoring-config-file goes with --rest-api-port"),
    ],
)
def test_options_that_do_not_go_together(served, model, tmp_path, capsys, arguments, message):
    on = tmp_path / "monitoring.config"
    on.write_text("prometheus_config { enable: true }")
    assert run(["serve", *(argument.format(m=model, on=on) for argument in arguments)]) == MISUSE
    assert message in capsys.readouterr().err
    assert not served


def test_faults_of_config_files_are_told_before_anything_is_loaded(served, model, tmp_path, capsys):
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path}/none" model_platform: "tensorflow" }} }}'
    )
    assert run(["serve", "--model-config-file", str(config)]) == FAILED
    assert f"{tmp_path}/none: is no folder; expected the base_path of model m" in capsys.readouterr().err
    config.write_text("max_batch_size: 3")
    assert run(["serve", str(model), "--enable-batching", "--batching-parameters-file", str(config)]) == FAILED
    assert f"{config}:1" in capsys.readouterr().err
    assert not served
