"""The compose files say what compose understands, and what TensorFlow Serving's flags read exists."""

import re

import pytest
import yaml

from tests.deployment.folder import SERVING, documents, run

FILES = ["compose.yaml", "compose.gpu.yaml"]
BATCHING = ["--enable_batching=true", "--batching_parameters_file=/config/batching.config"]

# Of those in tensorflow_serving/model_servers/main.cc. The server only prints "unknown argument" for another.
FLAGS = {
    "port", "rest_api_port", "model_config_file", "model_config_file_poll_wait_seconds", "monitoring_config_file",
    "allow_version_labels_for_unavailable_models", "num_load_threads", "num_unload_threads", "grpc_channel_arguments",
    "enable_batching", "batching_parameters_file", "ssl_config_file", "enable_grpc_healthcheck_service",
}  # fmt: skip


@pytest.fixture(scope="module")
def services():
    return documents("compose.yaml")[0]["services"]


@pytest.mark.parametrize("file", FILES)
def test_schema(file):
    run(["check-jsonschema", "--builtin-schema", "vendor.compose-spec", SERVING / file])


def test_schema_refuses_what_is_misspelt(tmp_path):
    compose = documents("compose.yaml")[0]
    compose["services"]["tfserving"]["helthcheck"] = compose["services"]["tfserving"].pop("healthcheck")
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose))
    with pytest.raises(AssertionError, match="helthcheck"):
        run(["check-jsonschema", "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml"])


@pytest.mark.parametrize("file", FILES)
def test_images_are_pinned(file):
    for service in documents(file)[0]["services"].values():
        assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+\.\d+(-gpu)?", service["image"])


def test_tensorflow_serving_is_new_enough(services):
    """Older ones lack the ops that an export may use."""
    for file in FILES:
        release = documents(file)[0]["services"]["tfserving"]["image"].split(":")[1]
        assert tuple(map(int, release.removesuffix("-gpu").split("."))) >= (2, 20, 0)


def test_every_service_is_bounded_watched_and_restarted(services):
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["cap_drop"] == ["ALL"], name


def test_the_healthcheck_is_the_probe(services):
    command, shell, probe, model = services["tfserving"]["healthcheck"]["test"]
    assert (command, shell, model) == ("CMD", "bash", "shop")
    assert (SERVING / probe.removeprefix("/")).is_file()


def test_nothing_listens_beyond_this_machine(services):
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_mounts_exist_and_are_read_only(services):
    for name, service in services.items():
        for mount in service["volumes"]:
            source, target, *mode = re.sub(r"\$\{MODELS:-(.*?)\}", r"\1", mount).split(":")
            if source.startswith("./"):
                assert (SERVING / source).is_dir(), f"{name}: a file that is replaced would stay the old one inside"
            if source != "prometheus":
                assert mode == ["ro"], f"{name}: {target}"


@pytest.mark.parametrize("file", FILES)
def test_flags_are_tensorflow_servings(file):
    for argument in documents(file)[0]["services"]["tfserving"]["command"]:
        name, value = argument.removeprefix("--").split("=", 1)
        assert name in FLAGS
        if value.startswith("/config/"):
            assert (SERVING / value.removeprefix("/")).is_file()


def test_gpu_differs_by_batching_alone(services):
    gpu = documents("compose.gpu.yaml")[0]["services"]["tfserving"]
    assert gpu["command"] == services["tfserving"]["command"] + BATCHING
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_prometheus_and_grafana_find_their_services(services):
    prometheus = documents("prometheus/prometheus.yml")[0]
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    assert jobs["tfserving"]["static_configs"][0]["targets"] == ["tfserving:8501"]
    assert "--rest_api_port=8501" in services["tfserving"]["command"]
    (target,) = jobs["model_available"]["static_configs"][0]["targets"]
    assert target == "http://tfserving:8501/v1/models/shop"
    assert jobs["model_available"]["relabel_configs"][-1]["replacement"].split(":")[0] in services
    (datasource,) = documents("grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    assert "prometheus" in services


def test_blackbox_asks_for_the_state(services):
    module = documents("prometheus/blackbox.yml")[0]["modules"]["model_available"]
    (pattern,) = module["http"]["fail_if_body_not_matches_regexp"]
    assert re.search(pattern, '"state": "AVAILABLE"')
    for state in ("START", "LOADING", "UNLOADING", "END"):
        assert not re.search(pattern, f'"state": "{state}", "error_code": "UNAVAILABLE"')


def test_dashboards_lie_where_grafana_looks(services):
    (provider,) = documents("grafana/provisioning/dashboards/tfmmrank.yaml")[0]["providers"]
    grafana = services["grafana"]
    mounts = dict(mount.split(":")[:2][::-1] for mount in grafana["volumes"])
    folder = SERVING / mounts[provider["options"]["path"]]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (folder / home.rsplit("/", 1)[1]).is_file()
