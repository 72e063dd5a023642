"""The rules fire where they should, and every query asks for metrics that a server exports."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.deployment import promql
from tests.deployment.folder import SERVING, documents, run
from tfmmrank.serving.monitoring.metrics import ServingMetrics

PROMETHEUS = SERVING / "prometheus"
QUERIES = {**promql.dashboard_queries(), **promql.rule_queries()}

# Not the embedded server's: who exports them.
OTHERS = {
    "up": "Prometheus",
    "probe_success": "blackbox exporter",
    "container_memory_working_set_bytes": "cAdvisor",
    "kube_deployment_spec_replicas": "kube-state-metrics",
    "kube_deployment_status_replicas_available": "kube-state-metrics",
    "kube_pod_container_resource_limits": "kube-state-metrics",
    "kube_pod_container_status_ready": "kube-state-metrics",
    "kube_pod_status_phase": "kube-state-metrics",
}
# Of those, what compose.yaml's Prometheus has.
STOCK = {
    "up", "probe_success", ":tensorflow:cc:saved_model:load_attempt_count", ":tensorflow:serving:request_count",
    ":tensorflow:serving:request_latency_bucket", ":tensorflow:serving:runtime_latency_bucket",
}  # fmt: skip


def test_configuration():
    run(["promtool", "check", "config", PROMETHEUS / "prometheus.yml"])


def test_configuration_in_a_cluster(tmp_path):
    """With targets in place of the discovery, which some builds of promtool lack (Debian's)."""
    (config,) = documents("prometheus/kubernetes.yml")
    for job in config["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        job["static_configs"] = [{"targets": ["a:8501"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    run(["promtool", "check", "config", tmp_path / "prometheus.yml"])


def test_memory_is_of_the_container_that_serves():
    (deployment,) = documents("kubernetes/deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    named = re.findall(r'container="(.*?)"', "".join(QUERIES.values()))
    assert set(named) == {container["name"]}


def test_rules_fire_where_they_should():
    run(["promtool", "test", "rules", PROMETHEUS / "alerts_test.yml"])


def test_each_rule_is_tested_firing_and_silent():
    cases = [case for test in documents("prometheus/alerts_test.yml")[0]["tests"] for case in test["alert_rule_test"]]
    alerts = set(promql.rule_queries())
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    # RequestsFail is silent for two models of the test where it fires for the third.
    assert silent >= alerts - {"RequestsFail"}


def test_queries_parse(tmp_path):
    """As rules, since promtool checks no dashboard."""
    rules = [{"record": f"query_{i}", "expr": query} for i, query in enumerate(QUERIES.values())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in run(["promtool", "check", "rules", file])


@pytest.mark.parametrize("query", ["sum by (a (b)", "rate(a)", "histogram_quantile(a)"])
def test_a_query_that_does_not_parse_is_found(query, tmp_path):
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": [{"record": "a", "expr": query}]}]}))
    with pytest.raises(AssertionError, match="could not parse expression|parse error"):
        run(["promtool", "check", "rules", file])


def test_metric_names_of_a_query():
    query = 'sum by (le, a) (rate(:x:y_bucket{b=~"c|d", e!="f{}"}[5m])) / on (a) group_left () g_total offset 1h > 2e3'
    assert promql.metric_names(query) == {":x:y_bucket", "g_total"}
    assert promql.metric_names('h{i="j"} unless k and increase(l[15m]) > 0.5 or 3 * m') == {"h", "k", "l", "m"}


def test_every_metric_is_exported():
    exported = set(re.findall(r"^([a-zA-Z_:][\w:]*)", observed(ServingMetrics()), re.MULTILINE))
    for name, query in QUERIES.items():
        assert promql.metric_names(query) <= exported | set(OTHERS), name


def observed(metrics) -> str:
    """The exposition after one observation of each kind."""
    metrics.observe_request("Predict", "GRPC", "shop", "OK", 0.01)
    metrics.observe_runtime("Predict", "shop", 0.008)
    metrics.observe_load(Path("/models/shop/1"), True)
    metrics.model_state("shop", 1, "AVAILABLE")
    scores, known = np.array([[0.5, -1.0]], np.float32), np.array([[True, False]])
    metrics.observe_ranking("shop", "rank", known, scores, np.ones((1, 2), bool))
    metrics.observe_missing("shop", "image", 1, 2)
    metrics.observe_cache("shop", "hit")
    metrics.observe_log("shop", "dropped")
    return metrics.exposition().decode()


def test_each_panel_and_rule_says_who_fills_it():
    own = [panel for panel in promql.panels() if "embedded server alone" in panel["description"].lower()]
    names = {panel["title"]: set().union(*map(promql.metric_names, queries(panel))) for panel in promql.panels()}
    assert {title for title, used in names.items() if any(name.startswith("tfmmrank_") for name in used)} == {
        panel["title"] for panel in own
    }
    for group in promql.groups():
        used = set().union(*(promql.metric_names(rule["expr"]) for rule in group["rules"]))
        if group["name"] == "serving":
            assert used <= STOCK, group["name"]
        else:
            assert not used & (STOCK - {"up"}), group["name"]


def queries(panel: dict) -> list[str]:
    return [promql.fill_in(target["expr"]) for target in panel["targets"]]


def test_alerts_lead_to_the_runbook():
    runbook = (SERVING / "RUNBOOK.md").read_text("utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", runbook, re.M)
    }
    for group in promql.groups():
        for rule in group["rules"]:
            file, anchor = rule["annotations"]["runbook"].split("#")
            assert file == "serving/RUNBOOK.md"
            assert anchor in anchors, rule["alert"]
            assert rule["labels"]["severity"] in ("critical", "warning")


def test_dashboard_is_whole():
    board = promql.dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        rows = range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in rows}
        assert not cells & places, f"{panel['title']} covers another panel"
        assert place["x"] + place["w"] <= 24
        places |= cells
    (datasource,) = documents("grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == datasource["uid"]
    for panel in promql.panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"model", "__rate_interval"}


def test_latency_is_shown_in_its_unit():
    for panel in promql.panels():
        if any("_latency_bucket" in query for query in queries(panel)):
            assert panel["fieldConfig"]["defaults"]["unit"] == "µs"
