from __future__ import annotations

import pytest

from tests.serving.conftest import served

__all__ = ["served"]


@pytest.fixture(scope="session")
def servable(served):
    """The shop's exported version, loaded."""
    from tfmmrank.export import Servable

    servable = Servable(served.model_dir / "1")
    yield servable
    servable.close()
