"""The served shop, and a server of it: the embedded one, or the one that TFMMRANK_SERVING_ADDRESS names.

To run these tests against TensorFlow Serving: ``python -m tests.serving.served_shop DIR`` exports the shop's model to
DIR/tiny; serve that as model ``tiny``; then set ``TFMMRANK_SERVING_ADDRESS`` (host:port of gRPC),
``TFMMRANK_SERVING_REST`` (of REST) and ``TFMMRANK_SERVING_MODEL_DIR`` (DIR/tiny, as this machine sees it).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.serving import served_shop

ADDRESS = os.environ.get("TFMMRANK_SERVING_ADDRESS")
REST_ADDRESS = os.environ.get("TFMMRANK_SERVING_REST")
MODEL_DIR = os.environ.get("TFMMRANK_SERVING_MODEL_DIR")


def pytest_runtest_setup(item):
    if ADDRESS and item.get_closest_marker("embedded_only"):
        pytest.skip(f"needs the embedded server; TFMMRANK_SERVING_ADDRESS is {ADDRESS}")


@pytest.fixture(scope="session")
def served():
    served = served_shop.make()
    return served._replace(model_dir=Path(MODEL_DIR)) if MODEL_DIR else served


@pytest.fixture(scope="session")
def cold(served, tmp_path_factory):
    """The model's folder without its warm-up requests: a server of it optimises no more than is asked."""
    from tfmmrank.export.warmup import WARMUP_FILE

    folder = shutil.copytree(served.model_dir, tmp_path_factory.mktemp("cold") / "tiny")
    (folder / "1" / WARMUP_FILE).unlink()
    return folder


@pytest.fixture(scope="session")
def server(served):
    """The embedded server; tests that any server must pass ask for ``server_address``."""
    if ADDRESS:
        pytest.skip(f"needs the embedded server; TFMMRANK_SERVING_ADDRESS is {ADDRESS}")
    from tfmmrank.serving import serve

    with serve(served.model_dir, port=0, rest_port=0) as server:
        yield server


@pytest.fixture(scope="session")
def server_address(request):
    """``host:port`` of gRPC of whichever server is tested."""
    return ADDRESS or request.getfixturevalue("server").address


@pytest.fixture(scope="session")
def client(server_address):
    from tfmmrank.serving import Client

    with Client(server_address, "tiny", timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def now(served):
    """Test lists whose slot features are current, as ``rank`` sees them."""
    return served_shop.Questions(served, now=True)


@pytest.fixture(scope="session")
def then(served):
    """Test lists whose slot features are those of their time."""
    return served_shop.Questions(served, now=False)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A model's folder with one version that takes milliseconds to load; see ``small_model.write_version``."""
    from tests.serving.small_model import write_version

    folder = tmp_path_factory.mktemp("models") / "small"
    write_version(folder / "1")
    return folder
