"""The REST API's answers, in-process, of a core that answers what a test sets."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.serving.rest_core import ScriptedCore
from tests.serving.test_versions import until
from tfmmrank.export.servable import RequestError
from tfmmrank.serving.monitoring.metrics import ServingMetrics
from tfmmrank.serving.server.rest_handler import RestHandler


@pytest.fixture
def core():
    return ScriptedCore()


@pytest.fixture
def handler(core):
    return RestHandler(core)


def ask(handler, document, path="/v1/models/tiny:predict", **options):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    response = handler.answer("POST", path, body, **options)
    assert response.content_type == "application/json"
    return response.status, json.loads(response.body)


def get(handler, path):
    response = handler.answer("GET", path)
    return response.status, json.loads(response.body)


class TestPaths:
    def test_labels_and_names_are_unquoted(self, handler, core):
        assert ask(handler, {"inputs": 1}, "/v1/models/my%20shop/labels/ca%C3%A9:predict")[0] == 200
        spec = core.requests[0].model_spec
        assert (spec.name, spec.version_label, spec.HasField("version")) == ("my shop", "caé", False)

    def test_paths_are_of_any_case(self, handler):
        assert ask(handler, {"inputs": 1}, "/V1/Models/m/Versions/1:PREDICT")[0] == 200

    def test_versions(self, handler, core):
        for text, version in (("7", 7), ("0007", 7), (str(2**63 - 1), 2**63 - 1), ("0" * 30 + "3", 3), ("0", 0)):
            assert ask(handler, {"inputs": 1}, f"/v1/models/m/versions/{text}:predict")[0] == 200
            assert core.requests[-1].model_spec.version.value == version
            assert core.requests[-1].model_spec.HasField("version")

    @pytest.mark.parametrize("version", [str(2**63), "9" * 5000, "0" * 30 + "9" * 30])
    def test_a_version_of_too_many_digits(self, handler, version):
        status, answer = ask(handler, {"inputs": 1}, f"/v1/models/m/versions/{version}:predict")
        assert (status, answer["error"][:28]) == (400, "Failed to convert version: " + version[0])

    @pytest.mark.parametrize(
        ("method", "path", "status", "message"),
        [
            ("POST", "/v1/models/m", 400, "Malformed request: POST /v1/models/m"),
            ("POST", "/v1/models/m:train", 400, "Malformed request: POST /v1/models/m:train"),
            ("POST", "/v1/models/m/versions/x:predict", 400, "Malformed request"),
            ("POST", "/v1/models/m/versions/1/labels/a:predict", 400, "Malformed request"),
            ("POST", "/v1/models/:predict", 400, "Malformed request"),
            ("GET", "/v1/models/m:predict", 400, "Malformed request: GET"),
            ("DELETE", "/v1/models/m", 400, "Malformed request: DELETE"),
            ("HEAD", "/v1/models/m", 400, "Malformed request: HEAD"),
            ("GET", "/v1/models", 400, "Missing model name in request."),
            ("GET", "/v1/models/%ff", 400, "Failed to decode model name: %ff"),
            ("GET", "/v1/models/m/labels/%ff", 400, "Failed to decode model version label: %ff"),
            ("GET", "/", 404, "Not found: GET /"),
            ("POST", "/v2/models/m/infer", 404, "Not found"),
            ("GET", "/monitoring/prometheus/metrics", 404, "Not found"),
        ],
    )
    def test_paths_that_are_none(self, handler, method, path, status, message):
        response = handler.answer(method, path, b"{}")
        assert response.status == status
        assert json.loads(response.body)["error"].startswith(message)


class TestExamples:
    def test_classify(self, handler, core):
        request = {
            "signature_name": "classify", "context": {"query": "红"},
            "examples": [{"price": 2.5, "tags": ["a", {"b64": "/w=="}], "size": [1, True, -3], "none": []}, {}],
        }  # fmt: skip
        assert ask(handler, request, "/v1/models/m:classify") == (200, {"results": [[["relevant", 0.25]]]})
        sent = core.requests[0]
        assert sent.model_spec.signature_name == "classify"
        given = sent.input.example_list_with_context
        assert given.context.features.feature["query"].bytes_list.value == ["红".encode()]
        features = given.examples[0].features.feature
        assert features["price"].float_list.value == [2.5]
        assert features["tags"].bytes_list.value == [b"a", b"\xff"]
        assert features["size"].int64_list.value == [1, 1, -3]
        assert features["none"].WhichOneof("kind") is None
        assert len(given.examples) == 2

    def test_examples_without_context_are_a_list(self, handler, core):
        assert ask(handler, {"examples": [{"a": float("nan")}]}, "/v1/models/m:regress") == (200, {"results": [0.5]})
        given = core.requests[0].input
        assert given.WhichOneof("kind") == "example_list"
        assert np.isnan(given.example_list.examples[0].features.feature["a"].float_list.value[0])

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ({}, "key 'examples' is expected and was not found"),
            ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
            ({"examples": []}, "'examples' value is an empty array"),
            ({"examples": [{}, 3]}, "examples[1]: Example must be JSON object but got JSON Number"),
            ({"context": [], "examples": [{}]}, "context: Example must be JSON object but got JSON Array"),
            ({"examples": [{"a": [1, 2.5]}]}, "examples[0]: Feature: a: Unexpected element type: 2.5"),
            ({"examples": [{"a": [1, 2.5]}]}, "expecting type: int64"),
            ({"examples": [{"a": ["x", 1]}]}, "expecting type: bytes"),
            ({"examples": [{"a": [0.5, "x"]}]}, "expecting type: float"),
            ({"examples": [{"a": None}]}, "unexpected JSON type: Null"),
            ({"examples": [{"a": [[1]]}]}, "unexpected JSON type: Array"),
            ({"examples": [{"a": {"b": 1}}]}, "unexpected JSON type: Object"),
            ({"examples": [{"a": 2**63}]}, "Only int64 is supported"),
            ({"examples": [{"a": 1e39}]}, "without loss of precision"),
            ({"examples": [{"a": {"b64": "?"}}]}, "Unable to base64 decode"),
        ],
    )  # fmt: skip
    def test_what_is_no_example_is_refused(self, handler, core, document, message):
        status, answer = ask(handler, document, "/v1/models/m:classify")
        assert status == 400
        assert message in answer["error"]
        assert not core.requests


class TestStatuses:
    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("CANCELLED", 499), ("UNKNOWN", 500), ("INVALID_ARGUMENT", 400), ("DEADLINE_EXCEEDED", 504),
            ("NOT_FOUND", 404), ("ALREADY_EXISTS", 409), ("PERMISSION_DENIED", 403), ("UNAUTHENTICATED", 401),
            ("RESOURCE_EXHAUSTED", 429), ("FAILED_PRECONDITION", 400), ("ABORTED", 409), ("OUT_OF_RANGE", 400),
            ("UNIMPLEMENTED", 501), ("INTERNAL", 500), ("UNAVAILABLE", 503), ("DATA_LOSS", 500),
        ],
    )  # fmt: skip
    def test_each_of_grpcs_has_one_of_https(self, handler, core, code, status):
        core.failure = RequestError(code, 'no "such" 颜色')
        assert ask(handler, {"inputs": 1}) == (status, {"error": 'no "such" 颜色'})
        assert get(handler, "/v1/models/m") == (status, {"error": 'no "such" 颜色'})

    def test_a_fault_of_the_server_is_told_to_its_log_alone(self, handler, core, capsys):
        core.failure = RuntimeError("the secret of the house")
        status, answer = ask(handler, {"inputs": 1})
        assert status == 500
        assert answer["error"].startswith("Internal error")
        assert "secret" not in answer["error"]
        log = capsys.readouterr().err
        assert "RuntimeError: the secret of the house" in log
        assert "Traceback" in log

    def test_the_request_timeout_is_the_runs(self, core):
        handler = RestHandler(core, request_timeout=1.5)
        ask(handler, {"inputs": 1})
        ask(handler, {"examples": [{}]}, "/v1/models/m:classify")
        ask(handler, {"examples": [{}]}, "/v1/models/m:regress")
        assert core.timeouts == [1.5] * 3

    def test_long_messages_are_cut(self, handler, core):
        core.failure = RequestError("INTERNAL", "x" * 5000)
        assert len(ask(handler, {"inputs": 1})[1]["error"]) == 1024


class TestBodies:
    def test_a_signature_without_inputs_cannot_be_called(self, handler):
        status, answer = ask(handler, {"signature_name": "nothing", "inputs": {}})
        assert status == 400
        assert "Failed to get input map" in answer["error"]

    def test_bytes_come_back_as_bytes(self, handler):
        status, answer = ask(handler, {"signature_name": "text", "instances": ["a", {"b64": "/w=="}]})
        assert (status, answer) == (200, {"predictions": [{"b64": "YQ=="}, {"b64": "/w=="}]})

    def test_gzip(self, handler):
        packed = gzip.compress(b'{"inputs": [1.5, NaN]}')
        status, answer = ask(handler, packed, encoding="GZIP")
        assert status == 200
        np.testing.assert_array_equal(answer["outputs"], [3, np.nan])

    @pytest.mark.parametrize(
        ("body", "encoding", "message"),
        [
            (gzip.compress(b"{}")[:-4], "gzip", "no gzip: it is cut short"),
            (gzip.compress(b"{}") + b"x", "gzip", "or something follows it"),
            (b"{}", "gzip", "no gzip"),
            (b"{}", "br", 'Content-Encoding "br" is not supported; expected gzip or none'),
            (b"", "", "JSON Parse error: The document is empty"),
            (b"[" * 100_000, "", "nested too deeply"),
            (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "nested too deeply"),
            (b'{"inputs": "\xff"}', "", "not UTF-8"),
        ],
    )
    def test_broken_bodies(self, handler, body, encoding, message):
        status, answer = ask(handler, body, encoding=encoding)
        assert status == 400
        assert message in answer["error"]

    def test_no_more_is_unpacked_than_the_server_takes(self, core):
        handler = RestHandler(core, max_body=1000)
        packed = gzip.compress(b" " * 10_000_000)
        assert ask(handler, packed[:100_000], encoding="gzip") == (413, {"error": "the body has more than 1000 bytes"})
        assert ask(handler, b" " * 1001)[0] == 413
        assert ask(handler, b'{"inputs": 1}'.ljust(1000))[0] == 200


class TestLargeBodies:
    """Two are read at once; what they say may take far more memory than they do."""

    @staticmethod
    def large():
        return b'{"inputs": 1}'.ljust((1 << 20) + 1)

    @pytest.mark.parametrize("packed", [False, True])
    def test_more_wait_and_are_refused_in_the_end(self, core, packed):
        handler = RestHandler(core, request_timeout=0.05)
        body, options = (gzip.compress(self.large()), {"encoding": "gzip"}) if packed else (self.large(), {})
        core.gate.clear()
        with ThreadPoolExecutor() as pool:
            running = [pool.submit(ask, handler, body, **options) for _ in range(2)]
            until(lambda: len(core.requests) == 2)
            status, answer = ask(handler, body, **options)
            assert (status, answer["error"]) == (429, "the server reads 2 bodies above 1048576 bytes at once already")
            small = pool.submit(ask, handler, self.large()[:-1])  # takes no place
            until(lambda: len(core.requests) == 3)
            core.gate.set()
            assert [future.result() for future in (*running, small)] == [(200, {"outputs": 2.0})] * 3
        assert ask(handler, body, **options)[0] == 200

    def test_a_place_is_free_again_whatever_happened(self, handler, core):
        for body in (self.large() + b"x", b"[" * (2 << 20)):
            for _ in range(3):
                assert ask(handler, body)[0] == 400
        core.failure = RuntimeError("broken")
        for _ in range(3):
            assert ask(handler, self.large())[0] == 500


class TestMetrics:
    COUNT = ":tensorflow:serving:request_count"

    def test_predictions_are_counted_and_the_page_shows_them(self, core):
        handler = RestHandler(core, ServingMetrics())
        ask(handler, {"inputs": 1}, "/v1/models/my%20shop:Predict")
        ask(handler, {}, "/v1/models/my%20shop:predict")
        core.failure = RuntimeError("broken")
        ask(handler, {"examples": [{}]}, "/v1/models/my%20shop:regress")
        get(handler, "/v1/models/my%20shop")  # a probe, which would dilute the share of failures
        response = handler.answer("GET", "/monitoring/prometheus/metrics?debug=1")
        assert (response.status, response.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        counts = [line for line in response.body.decode().splitlines() if line.startswith(self.COUNT)]
        assert counts == [
            f'{self.COUNT}{{model_name="my shop",status="{status}"}} 1.0'
            for status in ("OK", "INVALID_ARGUMENT", "INTERNAL")
        ]
        latency = ':tensorflow:serving:request_latency_count{API="predict",entrypoint="REST",model_name="my shop"} 1.0'
        assert latency in response.body.decode()

    def test_the_page_may_lie_elsewhere(self, core):
        handler = RestHandler(core, ServingMetrics(), metrics_path="/metrics")
        assert handler.answer("GET", "/metrics").status == 200
        assert handler.answer("POST", "/metrics").status == 404
        assert handler.answer("GET", "/monitoring/prometheus/metrics").status == 404


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just({"b64": "AA=="}),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "s_bytes", "b64", "query", "item_ids"]) | st.text(max_size=4), values)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(["instances", "inputs", "examples", "context", "signature_name", "x"])
BODIES = st.binary(max_size=60) | st.dictionaries(KEYS, JSON_VALUES | st.just("text")).map(json.dumps).map(str.encode)
TARGETS = st.sampled_from(
    ["/v1/models/m:predict", "/v1/models/m:classify", "/v1/models/m/versions/3:regress", "/v1/models/tiny:predict"]
) | st.text(max_size=30).map("/v1/models/".__add__)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", ""]),
    target=TARGETS,
    body=BODIES,
    encoding=st.sampled_from(["", "", "", "gzip", "deflate"]),
)
@example(
    method="POST", target="/v1/models/m:predict", body=b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", encoding=""
)
def test_whatever_is_sent_is_answered_in_json(method, target, body, encoding):
    response = FUZZED.answer(method, target, body, encoding)
    assert response.status in {200, 400, 404, 413}
    assert isinstance(json.loads(response.body), dict)


FUZZED = RestHandler(ScriptedCore())
