"""The REST API's schema: what reads it for a living can read it, and it lists what the embedded server routes."""

import pytest

from tests.deployment.folder import SERVING

schemathesis = pytest.importorskip("schemathesis")


def test_operations():
    schema = schemathesis.openapi.from_path(str(SERVING / "openapi.yaml"))
    operations = [result.ok() for result in schema.get_all_operations()]  # raises for one that is not valid
    assert {(operation.method.upper(), operation.path) for operation in operations} == {
        ("GET", "/v1/models/{model}"), ("GET", "/v1/models/{model}/metadata"), ("POST", "/v1/models/{model}:predict"),
        ("POST", "/v1/models/{model}:regress"), ("POST", "/v1/models/{model}:classify"),
    }  # fmt: skip
