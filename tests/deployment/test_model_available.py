"""The probe tells an AVAILABLE model from one that is known alone."""

import subprocess

import pytest

from tests.deployment.folder import SERVING
from tests.deployment.status_server import status_server

PROBE = SERVING / "config" / "model_available.sh"


def probe(port: int, *models: str) -> int:
    command = ["bash", PROBE, *models]
    return subprocess.run(command, env={"REST_PORT": str(port)}, capture_output=True, timeout=60).returncode


def test_available():
    with status_server("AVAILABLE") as server:
        assert probe(server.server_port, "shop") == 0
        assert probe(server.server_port, "shop", "shop") == 0


def test_one_version():
    with status_server("AVAILABLE") as server:
        assert probe(server.server_port, "shop/versions/1") == 0
        assert probe(server.server_port, "shop/versions/2") != 0


@pytest.mark.parametrize("state", ["START", "LOADING", "UNLOADING", "END"])
def test_known_but_not_available(state):
    with status_server(state) as server:
        assert probe(server.server_port, "shop") != 0


def test_one_of_two_models():
    with status_server("AVAILABLE") as server:
        assert probe(server.server_port, "shop", "unknown") != 0


def test_no_server():
    with status_server("AVAILABLE") as server:
        port = server.server_port
    assert probe(port, "shop") != 0


def test_no_model_named():
    with status_server("AVAILABLE") as server:
        assert probe(server.server_port) != 0
