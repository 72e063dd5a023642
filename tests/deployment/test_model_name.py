"""Who serves a model of another name finds every file to change on the README's list, and nothing else there."""

import re

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.deployment.folder import SERVING, documents
from tfmmrank.serving.protocol.config_protos import parse_config

TITLE = "## A model of another name"


def model() -> str:
    (config,) = parse_config(SERVING / "config" / "models.config", ModelServerConfig).model_config_list.config
    return config.name


def section() -> str:
    return (SERVING / "README.md").read_text("utf-8").split(f"{TITLE}\n")[1].split("\n## ")[0]


def naming(name: str) -> set[str]:
    """Files that name the model. Pages and clients are examples, rules' tests make their series up."""
    files = [path.relative_to(SERVING) for path in SERVING.rglob("*") if path.is_file()]
    kept = [
        path
        for path in files
        if path.parts[0] != "clients" and not re.search(r"\.md$|_test\.yml$|\.history\.json$", path.name)
    ]
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    return {path.as_posix() for path in kept if word.search((SERVING / path).read_text("utf-8"))}


def test_every_file_is_listed():
    assert f"another name than `{model()}`" in section()
    listed = re.findall(r"^- `([^`]+)`", section(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == naming(model())


def test_all_name_the_model_that_is_configured():
    """The places that the list tells, one by one."""
    name = model()
    assert documents("compose.yaml")[0]["services"]["tfserving"]["healthcheck"]["test"][-1] == name
    (container,) = documents("kubernetes/deployment.yaml")[0]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"][-1] == name
    (service,) = documents("kubernetes/inferenceservice.yaml")
    assert service["metadata"]["name"] == name
    assert service["spec"]["predictor"]["model"]["storageUri"].rsplit("/", 1)[1] == name
    clusters = documents("envoy/envoy.yaml")[0]["static_resources"]["clusters"]
    (check,) = next(cluster for cluster in clusters if cluster["name"] == "ranker")["health_checks"]
    assert check["http_health_check"]["path"] == f"/v1/models/{name}"
    jobs = {job["job_name"]: job for job in documents("prometheus/prometheus.yml")[0]["scrape_configs"]}
    (target,) = jobs["model_available"]["static_configs"]
    assert target["targets"] == [f"http://tfserving:8501/v1/models/{name}"]
    assert target["labels"] == {"model_name": name}
