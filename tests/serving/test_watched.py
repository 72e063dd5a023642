"""A server with a result cache, a request log and metrics: each is told of what passes."""

import json
import urllib.request

import numpy as np
import pytest

from tfmmrank.data.example_lists import read_records
from tfmmrank.serving import Client, serve

pytestmark = pytest.mark.embedded_only


def test_cached_answers_logged_requests_and_their_counts(cold, tmp_path):
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    from tfmmrank.serving.monitoring.metrics import ServingMetrics
    from tfmmrank.serving.monitoring.request_log import RequestLog
    from tfmmrank.serving.server.result_cache import MemoryCache

    cache, log = MemoryCache(1 << 20), RequestLog(tmp_path / "log", b"k" * 32, rate=1.0)
    options = {"result_cache": cache, "request_log": log, "metrics": ServingMetrics()}
    with serve(cold, port=0, rest_port=0, **options) as server:
        with Client(server.address, "tiny", timeout=60) as client:
            answers = [client.rank("red shoe", ["i1", "i2", "nothing"]) for _ in range(3)]
            other = client.rank("red shoe", ["i2", "i1", "nothing"], **{"user age": float("inf")})
        with urllib.request.urlopen(f"http://{server.rest_address}/monitoring/prometheus/metrics") as page:
            text = page.read().decode()
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.scores, answers[0].scores)
    assert other.item_ids[-1] == "nothing"
    for result in ("hit", "miss"):
        assert f'tfmmrank_result_cache_total{{model_name="tiny",result="{result}"}} 2.0' in text
    # Left out thrice, and once without an end: missing to the model, both.
    assert 'tfmmrank_missing_values_total{column="user age",model_name="tiny"} 4.0' in text
    assert 'tfmmrank_ranked_items_total{model_name="tiny",signature_name="rank"} 12.0' in text
    files = list((tmp_path / "log").glob("*"))
    assert [file.suffix for file in files if file.name.endswith(".partial")] == []
    logs = [PredictionLog.FromString(record) for file in files for record in read_records(file)]
    assert [each.log_metadata.model_spec.name for each in logs] == ["tiny"] * 4
    assert all(b"nothing" not in each.SerializeToString() for each in logs)


def test_padding_is_not_counted_as_missing(cold):
    from tfmmrank.serving.monitoring.metrics import ServingMetrics

    def column(value, padding):
        return [[value, value], [value, padding]]

    texts = {name: column("red", "") for name in ("title", "picture", "Brand")}
    numbers = {name: column(1.0, 0.0) for name in ("price", "past_impressions", "past_ctr", "age_days")}
    user = {"query": ["red", ""], "user age": [30.0, 30.0], "season": ["summer", ""]}
    inputs = {**texts, **numbers, **user, "num_items": [2, 1]}
    body = json.dumps({"signature_name": "rank_features", "inputs": inputs}).encode()
    with serve(cold, port=0, rest_port=0, metrics=ServingMetrics()) as server:
        address = f"http://{server.rest_address}"
        with urllib.request.urlopen(f"{address}/v1/models/tiny:predict", body) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{address}/monitoring/prometheus/metrics") as page:
            text = page.read().decode()
    for name, missing, values in (("title", 0, 3), ("price", 0, 3), ("season", 1, 2), ("query", 1, 2)):
        labels = f'column="{name}",model_name="tiny"'
        assert f"tfmmrank_missing_values_total{{{labels}}} {missing}.0" in text
        assert f"tfmmrank_values_total{{{labels}}} {values}.0" in text
