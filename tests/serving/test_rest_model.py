"""The REST API of a served model, as ``serving/openapi.yaml`` has it, asked of whichever server is tested."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.deployment.folder import SERVING
from tests.serving.conftest import ADDRESS, REST_ADDRESS
from tests.serving.served_shop import TOLERANCE, assert_table_scores

schemathesis = pytest.importorskip("schemathesis")


class Rest:
    """Asks a server; every answer, and every question that is answered, has to be as the contract says."""

    def __init__(self, address):
        self.url, self.contract = f"http://{address}", schemathesis.openapi.from_path(str(SERVING / "openapi.yaml"))

    def ask(self, document, verb="predict", **where):
        operation = self._operation("POST", f":{verb}", where)
        body = json.dumps(document)  # NaN too, which the contract has in words alone
        status, answer = self._answer(operation, where, data=body, headers={"Content-Type": "application/json"})
        assert status != 200 or operation.body[0].is_valid(json.loads(body, parse_constant=lambda _: 0.0))
        return status, answer

    def get(self, what="", **where):
        return self._answer(self._operation("GET", what, where), where)

    def _operation(self, method, what, where):
        kind = "/versions/{version}" if "version" in where else "/labels/{label}" if "label" in where else ""
        return self.contract[f"/v1/models/{{model}}{kind}{what}"][method]

    def _answer(self, operation, where, **body):
        case = operation.Case(path_parameters={"model": "tiny", **where})
        response = case.call(base_url=self.url, **body)
        operation.validate_response(response)
        assert str(response.status_code) in operation.definition.raw["responses"]
        return response.status_code, response.json()


@pytest.fixture(scope="module")
def rest(request):
    if ADDRESS and not REST_ADDRESS:
        pytest.skip("needs TFMMRANK_SERVING_REST, host:port of the REST API of TFMMRANK_SERVING_ADDRESS")
    return Rest(REST_ADDRESS or request.getfixturevalue("server").rest_address)


def plain(value):
    """A raw value as JSON: bytes as base64, numpy's numbers as Python's."""
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else float(value)


def as_text(context):
    return {"user age": float(context["user age"]), "season": context["season"].decode()}


def test_rows_have_the_scores_that_the_model_has(rest, now):
    lists = [q for q in range(len(now)) if now.size(q) == now.size(0)]
    rows = [
        {"query": now.query(q), "item_ids": now.ids(q), "num_items": now.size(q), **as_text(now.context(q))}
        for q in lists
    ]
    status, answer = rest.ask({"signature_name": "rank", "instances": rows})
    assert status == 200
    assert len(lists) > 1
    for q, prediction in zip(lists, answer["predictions"], strict=True):
        assert_table_scores(prediction["scores"], now.predicted[q])
        assert prediction["known"] == [True] * now.size(q)


def test_columns_have_the_scores_that_the_model_has(rest, now):
    inputs = {"query": [now.query(0)], "item_ids": [now.ids(0)], "num_items": [now.size(0)]}
    context = {name: [value] for name, value in as_text(now.context(0)).items()}
    status, answer = rest.ask({"inputs": {**inputs, **context}}, version=1)
    assert status == 200
    assert_table_scores(answer["outputs"]["scores"][0], now.predicted[0])


def test_pictures_in_base64_and_missing_numbers(rest, then):
    q = next(q for q in range(len(then)) if any(np.isnan(item["price"]) for item in then.items(q)))
    items = {name: [[plain(item[name]) for item in then.items(q)]] for name in then.items(q)[0]}
    context = {name: [value] for name, value in as_text(then.context(q)).items()}
    inputs = {"query": [then.query(q)], "num_items": [then.size(q)], **context, **items}
    status, answer = rest.ask({"signature_name": "rank_features", "inputs": inputs})
    assert status == 200
    np.testing.assert_allclose(answer["outputs"][0], then.predicted[q], rtol=0, atol=TOLERANCE)


def test_one_input_stands_alone_and_so_does_one_output(rest):
    status, rows = rest.ask({"signature_name": "describe", "instances": ["a", "b"]})
    assert status == 200
    _, columns = rest.ask({"signature_name": "describe", "inputs": ["a", "b"]})
    assert rows["predictions"] == columns["outputs"]
    assert ["num_items" in json.loads(text) for text in columns["outputs"]] == [True, True]


def test_examples_share_the_context(rest, then):
    request = {
        "context": {"query": then.query(1), **as_text(then.context(1))},
        "examples": [{name: plain(value) for name, value in item.items()} for item in then.items(1)],
    }
    status, answer = rest.ask({"signature_name": "regress", **request}, "regress")
    assert status == 200
    np.testing.assert_allclose(answer["results"], then.predicted[1], rtol=0, atol=TOLERANCE)
    status, classes = rest.ask({"signature_name": "classify", **request}, "classify", version=1)
    assert (status, classes["results"]) == (200, [[["", score]] for score in answer["results"]])


def test_features_that_the_model_does_not_read_are_not_looked_at(rest):
    example = {"query": "red", "title": "a shoe", "price": 3.0}
    request = {"signature_name": "regress", "examples": [example, {**example, "colour": "red"}, {}]}
    status, answer = rest.ask(request, "regress")
    assert status == 200
    assert answer["results"][0] == answer["results"][1]
    request["examples"] = [{**example, "price": 3}]  # a whole number is an int64
    assert rest.ask(request, "regress")[0] == 400


def test_status(rest):
    for where in ({}, {"version": 1}, {"label": "any"}):
        assert rest.get(**where) == (
            200,
            {
                "model_version_status": [
                    {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
                ]
            },
        )


def test_metadata(rest):
    status, answer = rest.get("/metadata")
    assert status == 200
    spec = answer["model_spec"]
    assert (spec["name"], spec["version"], spec["signature_name"]) == ("tiny", "1", "")
    signature = answer["metadata"]["signature_def"]["signature_def"]["rank"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    ids = signature["inputs"]["item_ids"]
    assert ids["dtype"] == "DT_STRING"
    assert ids["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "-1", "name": ""}], "unknown_rank": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "document", "status", "message"),
    [
        ({"model": "none"}, {"inputs": 1}, 404, "Servable not found for request"),
        ({"version": 9}, {"inputs": 1}, 404, "Servable not found for request"),
        ({"label": "none"}, {"inputs": 1}, 400, "Unrecognized servable version label: none"),
        ({}, {"signature_name": "x", "inputs": 1}, 400, 'Serving signature name: "x" not found in signature def'),
        ({}, {"inputs": {"query": ["a"]}}, 400, "Missing named input"),
    ],
)
def test_refusals(rest, where, document, status, message):
    got, answer = rest.ask(document, **where)
    assert got == status
    assert message in answer["error"]
