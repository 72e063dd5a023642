"""Metrics as Prometheus reads them: TensorFlow Serving's names and buckets, and the model's health."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from tfmmrank.serving.monitoring.metrics import ServingMetrics
from tfmmrank.serving.protocol.tensors import write_tensor
from tfmmrank.serving.server.core import ServerCore
from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import ModelConfig

REQUESTS = ":tensorflow:serving:request_count"
LOADS = ":tensorflow:cc:saved_model:load_attempt_count"
LATENCY = ":tensorflow:serving:request_latency"
_OWN_NAMES = {f"{name}_total": name for name in (REQUESTS, LOADS)}


@pytest.fixture
def metrics():
    return ServingMetrics()


def read(metrics):
    """Value by name and labels, as Prometheus's library reads the page; it puts _total after every counter's name."""
    page = metrics.exposition().decode()
    return {
        (_OWN_NAMES.get(sample.name, sample.name), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(metrics, name, **labels):
    return read(metrics)[name, frozenset(labels.items())]


def histogram(metrics, name, **labels):
    """Count by bound, as not cumulative, without the empty ones."""
    cumulative = {
        float(dict(found)["le"]): count
        for (sample, found), count in read(metrics).items()
        if sample == f"{name}_bucket" and {*labels.items()} <= found
    }
    bounds = sorted(cumulative)
    counts = np.diff([0, *(cumulative[bound] for bound in bounds)])
    return {bound: count for bound, count in zip(bounds, counts, strict=True) if count}


class TestRequests:
    def test_requests_are_counted_by_model_and_status(self, metrics):
        for status in ("OK", "OK", "NOT_FOUND"):
            metrics.observe_request("Predict", "GRPC", "shop", status, 0.001)
        assert value(metrics, REQUESTS, model_name="shop", status="NOT_FOUND") == 1
        page = metrics.exposition().decode()
        assert f"# TYPE {REQUESTS} counter\n" in page
        assert f'\n{REQUESTS}{{model_name="shop",status="OK"}} 2.0\n' in page

    def test_latencies_are_microseconds_of_what_was_answered(self, metrics):
        labels = {"model_name": "shop", "API": "predict", "entrypoint": "REST"}
        for seconds, status in ((0.000010, "OK"), (0.0000101, "OK"), (0.001, "OK"), (5000.0, "OK"), (9.0, "INTERNAL")):
            metrics.observe_request("predict", "REST", "shop", status, seconds)
        # 10·1.8⁸ = 1,102: the first bound that is not less than 1,000 µs
        assert histogram(metrics, LATENCY, **labels) == {10: 1, 18: 1, 1102: 1, np.inf: 1}
        assert value(metrics, f"{LATENCY}_count", **labels) == 4
        assert value(metrics, f"{LATENCY}_sum", **labels) == pytest.approx(10 + 10.1 + 1000 + 5e9)

    def test_buckets_are_those_of_tf_serving(self, metrics):
        metrics.observe_request("predict", "REST", "shop", "OK", 1)
        bounds = [dict(labels)["le"] for name, labels in read(metrics) if name == f"{LATENCY}_bucket"]
        assert bounds[:8] == ["10", "18", "32.4", "58.32", "104.976", "188.957", "340.122", "612.22"]
        assert "708235" in bounds
        assert bounds[-2:] == ["1.47476e+09", "+Inf"]
        assert len(bounds) == 34

    def test_runtime_latency(self, metrics):
        metrics.observe_runtime("Predict", "shop", 0.002)
        labels = {"model_name": "shop", "API": "Predict", "runtime": "TF1"}
        assert value(metrics, ":tensorflow:serving:runtime_latency_sum", **labels) == 2000

    def test_names_that_clients_invent_are_bounded(self, metrics):
        metrics.model_state("shop", 1, "AVAILABLE")
        for number in range(300):
            metrics.observe_request("Predict", "GRPC", f"none {number}" + "x" * 500, "NOT_FOUND", 0)
        metrics.observe_request("Predict", "GRPC", "shop", "OK", 0)
        counts = {
            dict(labels)["model_name"]: count for (name, labels), count in read(metrics).items() if "count" in name
        }
        assert len(counts) == 102
        assert max(map(len, counts)) == 100
        assert counts["other"] == 200
        assert counts["shop"] == 1

    def test_loads_have_the_name_that_the_alert_asks_for(self, metrics):
        metrics.observe_load(Path("/models/shop/2"), True)
        metrics.observe_load(Path("/models/shop/3"), False)
        metrics.observe_load(Path("/models/shop/3"), False)
        assert value(metrics, LOADS, model_path="/models/shop/2", status="success") == 1
        assert value(metrics, LOADS, model_path="/models/shop/3", status="fail") == 2
        assert f"# TYPE {LOADS} counter\n" in metrics.exposition().decode()

    def test_a_version_is_in_one_state(self, metrics):
        name = "tfmmrank_model_version_state"
        for state in ("START", "LOADING", "AVAILABLE"):
            metrics.model_state("shop", 1, state)
        metrics.model_state("shop", 2, "LOADING")
        states = {labels for sample, labels in read(metrics) if sample == name}
        assert states == {
            frozenset({"model_name": "shop", "version": "1", "state": "AVAILABLE"}.items()),
            frozenset({"model_name": "shop", "version": "2", "state": "LOADING"}.items()),
        }
        metrics.model_state("shop", 1, "END")
        assert sum(sample == name for sample, _ in read(metrics)) == 1


class TestRanking:
    LABELS = {"model_name": "shop", "signature_name": "rank"}

    def test_unknown_items_and_padding_have_no_score(self, metrics):
        known = np.array([[True, False, True], [True, True, True]])
        scores = np.array([[0.3, -1e8, -5.0], [0.0, 200.0, -1e9]], np.float32)
        metrics.observe_ranking("shop", "rank", known, scores, np.arange(3) < np.array([[3], [2]]))
        assert value(metrics, "tfmmrank_ranked_items_total", **self.LABELS) == 5
        assert value(metrics, "tfmmrank_unknown_items_total", **self.LABELS) == 1
        assert histogram(metrics, "tfmmrank_list_length", **self.LABELS) == {2: 1, 5: 1}
        assert histogram(metrics, "tfmmrank_scores", **self.LABELS) == {-4: 1, 0: 1, 0.5: 1, np.inf: 1}
        assert value(metrics, "tfmmrank_scores_sum", **self.LABELS) == pytest.approx(195.3)

    def test_all_are_known_where_nothing_says_otherwise(self, metrics):
        metrics.observe_ranking("shop", "rank", None, np.array([[1.0, np.nan]], np.float32), np.ones((1, 2), bool))
        metrics.observe_ranking("shop", "rank", None, np.zeros((2, 0), np.float32), np.ones((2, 0), bool))
        assert value(metrics, "tfmmrank_ranked_items_total", **self.LABELS) == 2
        assert value(metrics, "tfmmrank_unknown_items_total", **self.LABELS) == 0
        assert histogram(metrics, "tfmmrank_scores", **self.LABELS) == {1: 1, np.inf: 1}
        assert value(metrics, "tfmmrank_scores_sum", **self.LABELS) == 1
        assert histogram(metrics, "tfmmrank_list_length", **self.LABELS) == {1: 2, 2: 1}

    def test_random_scores_are_counted_as_numpy_counts_them(self, metrics, rng):
        scores = rng.normal(0, 40, (20, 50)).astype(np.float32)
        metrics.observe_ranking("shop", "rank", None, scores, np.ones((20, 50), bool))
        counts = histogram(metrics, "tfmmrank_scores", **self.LABELS)
        bounds = np.array([-np.inf, *(-0.25 * 2.0 ** np.arange(9, -1, -1)), 0, *(0.25 * 2.0 ** np.arange(10)), np.inf])
        for low, high in itertools.pairwise(bounds):
            assert counts.get(high, 0) == ((scores > low) & (scores <= high)).sum()

    def test_missing_values(self, metrics):
        metrics.observe_missing("shop", "picture", 3, 10)
        metrics.observe_missing("shop", "picture", 0, 5)
        labels = {"model_name": "shop", "column": "picture"}
        assert value(metrics, "tfmmrank_missing_values_total", **labels) == 3
        assert value(metrics, "tfmmrank_values_total", **labels) == 15

    def test_cache_and_log(self, metrics):
        metrics.observe_cache("shop", "hit", 3)
        metrics.observe_cache("shop", "miss")
        metrics.observe_log("shop", "dropped")
        assert value(metrics, "tfmmrank_result_cache_total", model_name="shop", result="hit") == 3
        assert value(metrics, "tfmmrank_result_cache_total", model_name="shop", result="miss") == 1
        assert value(metrics, "tfmmrank_request_log_records_total", model_name="shop", result="dropped") == 1


def test_only_lists_whose_lengths_are_told_are_counted(metrics, tmp_path):
    """``predict_elwc`` says -1e9 in padding, and not where that begins."""
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    class Model:
        signatures = {"rank": None, "predict_elwc": None}
        fingerprint = ""

        def __init__(self, *_):
            pass

        def run(self, *_):
            return {"scores": np.array([[0.5, -1e9]], np.float32)}

        def close(self):
            pass

    (tmp_path / "1").mkdir()
    manager = ModelManager(Model, poll_seconds=0)
    manager.start({"shop": ModelConfig("shop", tmp_path)})
    core = ServerCore(manager, metrics=metrics)
    for signature, inputs in (("predict_elwc", {"input_ranking_data": [b""]}), ("rank", {"num_items": np.int32([1])})):
        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "shop", signature
        for name, array in inputs.items():
            write_tensor(request.inputs[name], array)
        core.predict(request)
    manager.close()
    page = metrics.exposition().decode()
    assert "predict_elwc" not in page
    assert "input_ranking_data" not in page
    assert value(metrics, "tfmmrank_ranked_items_total", model_name="shop", signature_name="rank") == 1
    assert value(metrics, "tfmmrank_scores_sum", model_name="shop", signature_name="rank") == 0.5


def test_nothing_is_lost_between_threads(metrics):
    def work():
        for _ in range(500):
            metrics.observe_request("Predict", "GRPC", "shop", "OK", 0.001)
            metrics.observe_ranking("shop", "rank", None, np.ones((1, 3), np.float32), np.ones((1, 3), bool))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, REQUESTS, model_name="shop", status="OK") == 2000
    assert value(metrics, "tfmmrank_scores_count", model_name="shop", signature_name="rank") == 6000


def test_a_registry_may_hold_other_metrics_too():
    registry = CollectorRegistry()
    Counter("shop_visits", "Visits.", registry=registry).inc()
    assert value(ServingMetrics(registry), "shop_visits_total") == 1


def fill(metrics, model="shop"):
    metrics.model_state(model, 3, "AVAILABLE")
    metrics.observe_request("predict", "REST", model, "OK", 0.01)
    metrics.observe_runtime("Predict", model, 0.01)
    metrics.observe_ranking(model, "rank", None, np.ones((1, 3), np.float32), np.ones((1, 3), bool))
    metrics.observe_missing(model, "picture", 1, 3)
    metrics.observe_cache(model, "hit")
    metrics.observe_log(model, "written")


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is not installed"
)
def test_promtool_reads_the_page(metrics):
    fill(metrics, 'a "quoted" \\ model\nof 颜色')
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics.exposition(), capture_output=True)
    complaints = done.stderr.decode().splitlines()
    assert done.returncode in (0, 3), complaints  # 3: read, but it has advice
    # It advises other names than TensorFlow Serving's; of ours it has none to give.
    assert [line for line in complaints if not line.startswith(":tensorflow:serving:")] == []
    assert complaints
