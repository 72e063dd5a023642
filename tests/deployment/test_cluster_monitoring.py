"""In a cluster the servers are scraped by the job that the alerts ask for, with the operator and without."""

import pytest

from tests.deployment.folder import documents

# Of the Prometheus operator's PodMonitor, what ours uses; its own schema comes with the cluster.
POD_MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {
                "selector": {"type": "object", "required": ["matchLabels"]},
                "podMetricsEndpoints": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": r"^\d+s$"},
                            "relabelings": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "properties": {key: {"type": "string"} for key in ("targetLabel", "replacement")},
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def pod():
    return documents("kubernetes/deployment.yaml")[0]["spec"]["template"]


@pytest.fixture(scope="module")
def ports(pod) -> set[str]:
    (container,) = pod["spec"]["containers"]
    return {port["name"] for port in container["ports"]}


def test_pod_monitor(pod, ports):
    jsonschema = pytest.importorskip("jsonschema")
    (monitor,) = documents("kubernetes/podmonitor.yaml")
    jsonschema.validate(monitor, POD_MONITOR)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    assert {"targetLabel": "job", "replacement": "tfserving"} in endpoint["relabelings"], "alerts.yml asks for this job"
    job = prometheus_job()
    assert (endpoint["path"], endpoint["interval"]) == (job["metrics_path"], job["scrape_interval"])


def test_prometheus_without_the_operator(pod, ports):
    job = prometheus_job()
    assert job["job_name"] == "tfserving", "alerts.yml asks for this job"
    keep = next(rule for rule in job["relabel_configs"] if rule.get("action") == "keep")
    prefix = "__meta_kubernetes_pod_"
    assert keep["source_labels"] == [f"{prefix}label_app_kubernetes_io_name", f"{prefix}container_port_name"]
    name, port = keep["regex"].split(";")
    assert name == pod["metadata"]["labels"]["app.kubernetes.io/name"]
    assert port in ports


def prometheus_job() -> dict:
    (job,) = documents("prometheus/kubernetes.yml")[0]["scrape_configs"]
    return job
