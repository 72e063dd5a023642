from __future__ import annotations

import pytest

from tests.serving import served_shop


@pytest.fixture(scope="session")
def served():
    return served_shop.make()


@pytest.fixture(scope="session")
def server(served):
    from tfmmrank.serving import serve

    with serve(served.model_dir, port=0) as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    from tfmmrank.serving import Client

    with Client(server.address, "tiny", timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def now(served):
    """Test lists whose slot features are current, as ``rank`` sees them."""
    return served_shop.Questions(served, now=True)


@pytest.fixture(scope="session")
def then(served):
    """Test lists whose slot features are those of their time."""
    return served_shop.Questions(served, now=False)
