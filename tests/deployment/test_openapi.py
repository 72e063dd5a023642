"""The REST API's contract: what reads it for a living can read it, and it lists what the embedded server routes."""

import pytest

from tests.deployment.folder import SERVING

schemathesis = pytest.importorskip("schemathesis")


def test_operations():
    schema = schemathesis.openapi.from_path(str(SERVING / "openapi.yaml"))
    operations = [result.ok() for result in schema.get_all_operations()]  # raises for one that is not valid
    expected = {("GET", "/monitoring/prometheus/metrics")}
    for kind in ("", "/versions/{version}", "/labels/{label}"):
        model = "/v1/models/{model}" + kind
        expected |= {("GET", model), ("GET", model + "/metadata")}
        expected |= {("POST", f"{model}:{verb}") for verb in ("predict", "regress", "classify")}
    assert {(operation.method.upper(), operation.path) for operation in operations} == expected
