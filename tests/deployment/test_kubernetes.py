"""The Kubernetes files fit their schemas and one another."""

import re

import pytest
import yaml

from tests.deployment.folder import SERVING, documents, run
from tests.deployment.test_compose import FLAGS

KUBERNETES = "1.34"
FILES = [
    *(
        f"kubernetes/{name}.yaml"
        for name in ("deployment", "storage", "loader", "service", "autoscaler", "disruption", "network")
    ),
    "envoy/deployment.yaml",
    "envoy/disruption.yaml",
]


@pytest.fixture(scope="module")
def resources() -> dict[tuple[str, str], dict]:
    """All of them by kind and name."""
    found = [document for file in FILES for document in documents(file)]
    named = {(document["kind"], document["metadata"]["name"]): document for document in found}
    assert len(named) == len(found)
    return named


@pytest.fixture(scope="module")
def pod(resources):
    return resources["Deployment", "ranker"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def config_maps() -> dict[str, dict[str, str]]:
    """Name to {key: file} of the generated ones."""
    return {
        generated["name"]: {file.rsplit("/", 1)[-1]: f"{folder}/{file}" for file in generated["files"]}
        for folder in ("config", "envoy")
        for generated in documents(f"{folder}/kustomization.yaml")[0]["configMapGenerator"]
    }


@pytest.mark.parametrize("file", FILES)
def test_schema(file):
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(file):
        validate.validate(document, KUBERNETES, strict=True)


def test_schema_refuses_what_is_misspelt(pod):
    validate = pytest.importorskip("kubernetes_validate")
    (deployment,) = documents("kubernetes/deployment.yaml")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")
    with pytest.raises(validate.ValidationError, match="readinesProbe"):
        validate.validate(deployment, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", ["kubernetes", "config", "envoy"])
def test_kustomization(folder):
    (kustomization,) = documents(f"{folder}/kustomization.yaml")
    assert kustomization["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    assert set(kustomization) <= {"apiVersion", "kind", "resources", "configMapGenerator"}
    for resource in kustomization.get("resources", []):
        path = SERVING / folder / resource
        assert path.is_file() or (path / "kustomization.yaml").is_file()
    for generated in kustomization.get("configMapGenerator", []):
        for file in generated["files"]:
            assert "/" not in file, "kustomize reads no file above its own folder"
            assert (SERVING / folder / file).is_file()


def test_kustomization_names_every_file():
    (kustomization,) = documents("kubernetes/kustomization.yaml")
    present = {path.name for path in (SERVING / "kubernetes").glob("*.yaml")}
    by_hand = {"kustomization.yaml", "inferenceservice.yaml", "loader.yaml", "podmonitor.yaml"}
    assert present - by_hand == set(kustomization["resources"]) - {"../config"}
    (kustomization,) = documents("envoy/kustomization.yaml")
    present = {path.name for path in (SERVING / "envoy").glob("*.yaml")}
    assert present - {"kustomization.yaml", "envoy.yaml"} == set(kustomization["resources"])


def test_kustomize_builds(resources):
    """All but what is made by hand comes out, and each ConfigMap under the name that a pod mounts."""
    built = [
        document
        for folder in ("kubernetes", "envoy")
        for document in yaml.safe_load_all(run(["kubectl", "kustomize", SERVING / folder]))
    ]
    named = {(document["kind"], document["metadata"]["name"]): document for document in built}
    assert {name for name in named if name[0] != "ConfigMap"} == set(resources) - {("Pod", "ranker-loader")}
    mounted = {
        volume["configMap"]["name"]
        for (kind, _), document in named.items()
        if kind == "Deployment"
        for volume in document["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    }
    assert mounted == {name for kind, name in named if kind == "ConfigMap"}


def pod_specs(resources) -> dict[str, dict]:
    """Of each Deployment and each Pod, by name."""
    return {
        name: document["spec"]["template"]["spec"] if kind == "Deployment" else document["spec"]
        for (kind, name), document in resources.items()
        if kind in ("Deployment", "Pod")
    }


def test_volumes_exist(resources, config_maps):
    for name, spec in pod_specs(resources).items():
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in spec["containers"][0]["volumeMounts"]:
            volume = volumes.pop(mount["name"])
            if "configMap" in volume:
                assert volume["configMap"]["name"] in config_maps
                assert "subPath" not in mount, "it would not change with its ConfigMap"
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in resources
                assert mount.get("readOnly", False) == (name != "ranker-loader")
        assert not volumes


def test_the_loader_writes_what_the_servers_read(resources, pod, container):
    """The same volume in the same place as the same user; its pod is no replica, and the image is on the nodes."""
    document = resources["Pod", "ranker-loader"]
    spec = document["spec"]
    (loader,) = spec["containers"]
    for each in (spec, pod["spec"]):
        (volume,) = [volume for volume in each["volumes"] if volume["name"] == "models"]
        assert volume["persistentVolumeClaim"]["claimName"] == "ranker-models"
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert loader["volumeMounts"] == [{"name": "models", "mountPath": mounted["models"]}]
    shared = {"runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"}
    assert {key: spec["securityContext"][key] for key in shared} == pod["spec"]["securityContext"]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
    assert loader["securityContext"] == container["securityContext"]
    assert loader["image"] == container["image"]
    assert document["metadata"]["labels"] != pod["metadata"]["labels"], "the Service would take it for a server"


def test_flags_and_probes_read_files_that_are_mounted(pod, container, config_maps):
    claimed = {
        volume["name"]: volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume
    }
    mounted = {
        f"{mount['mountPath']}/{key}"
        for mount in container["volumeMounts"]
        if mount["name"] in claimed
        for key in config_maps[claimed[mount["name"]]]
    }
    for argument in container["args"]:
        name, value = argument.removeprefix("--").split("=", 1)
        assert name in FLAGS
        assert not value.startswith("/config") or value in mounted
    for probe in ("startupProbe", "readinessProbe"):
        shell, script, model = container[probe]["exec"]["command"]
        assert (shell, model) == ("bash", "shop")
        assert script in mounted


def test_models_config_keeps_its_name_and_the_rest_does_not():
    """The server reads models.config again by itself; what it reads once must replace the pods."""
    kept = {
        generated["name"]: generated.get("options", {}).get("disableNameSuffixHash", False)
        for generated in documents("config/kustomization.yaml")[0]["configMapGenerator"]
    }
    assert kept == {"ranker-models-config": True, "ranker-server-config": False}


def test_liveness_does_not_depend_on_the_model(container):
    assert container["livenessProbe"]["grpc"]["port"] == 8500
    assert "--enable_grpc_healthcheck_service=true" in container["args"]


def test_a_pod_ends_after_its_last_connection(pod, container):
    """TensorFlow Serving does not handle SIGTERM: the sleep must outlast every connection (their age varies by 10%)."""
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    limits = dict(limit.split("=") for limit in arguments["grpc_channel_arguments"].split(","))
    age, grace = int(limits["grpc.max_connection_age_ms"]), int(limits["grpc.max_connection_age_grace_ms"])
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert sleep >= (1.1 * age + grace) / 1000
    assert pod["spec"]["terminationGracePeriodSeconds"] > sleep


def test_envoys_pod_ends_after_its_last_request(resources):
    """A request comes at the latest when its connection's age and drain time are over, and runs as long as it may."""
    spec = resources["Deployment", "ranker-envoy"]["spec"]["template"]["spec"]
    sleep = float(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    (config,) = documents("envoy/envoy.yaml")
    listener = next(each for each in config["static_resources"]["listeners"] if each["name"] == "grpc")
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = [route for host in manager["route_config"]["virtual_hosts"] for route in host["routes"]]
    longest = max(seconds(route["route"]["timeout"]) for route in routes if "route" in route)
    age, drain = manager["common_http_protocol_options"]["max_connection_duration"], manager["drain_timeout"]
    assert sleep >= seconds(age) + seconds(drain) + longest
    assert spec["terminationGracePeriodSeconds"] > sleep


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def test_pods_have_few_rights(resources):
    for spec in pod_specs(resources).values():
        assert spec["securityContext"]["runAsNonRoot"]
        assert not spec["automountServiceAccountToken"]
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert container["resources"]["limits"].keys() == {"memory"}
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", container["image"])


def test_selectors_meet_labels_and_ports(resources):
    labels = {name: doc["spec"]["template"] for (kind, name), doc in resources.items() if kind == "Deployment"}
    pods = {
        name: (template["metadata"]["labels"], {port["name"] for port in template["spec"]["containers"][0]["ports"]})
        for name, template in labels.items()
    }
    for (kind, name), document in resources.items():
        if kind == "Service":
            meets = [ports for labels, ports in pods.values() if document["spec"]["selector"].items() <= labels.items()]
            assert len(meets) == 1, name
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= meets[0]
    for name, (labels, _) in pods.items():
        budget = resources["PodDisruptionBudget", name]["spec"]
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "an unready pod would hold up a drain"
    policy = resources["NetworkPolicy", "ranker"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pods["ranker"][0].items()
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= pods["ranker"][1]
    target = resources["HorizontalPodAutoscaler", "ranker"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in resources


def test_envoy_finds_the_pods(resources):
    (config,) = documents("envoy/envoy.yaml")
    ranker = next(cluster for cluster in config["static_resources"]["clusters"] if cluster["name"] == "ranker")
    endpoint = ranker["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    service = resources["Service", address["address"]]["spec"]
    assert service["clusterIP"] == "None", "one address would be one replica"
    ports = {port["name"]: port["port"] for port in service["ports"]}
    assert (address["port_value"], endpoint["health_check_config"]["port_value"]) == (ports["grpc"], ports["rest"])
    (check,) = ranker["health_checks"]
    assert bytes.fromhex(check["http_health_check"]["receive"][0]["text"]) == b'"AVAILABLE"'
    listening = {
        listener["name"]: listener["address"]["socket_address"]["port_value"]
        for listener in config["static_resources"]["listeners"]
    }
    ports = resources["Deployment", "ranker-envoy"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert {port["name"]: port["containerPort"] for port in ports} == listening


# Of KServe's InferenceService, what ours uses; its own schema comes with the cluster.
INFERENCE_SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["predictor"],
            "properties": {
                "predictor": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["model"],
                    "properties": {
                        "minReplicas": {"type": "integer", "minimum": 0},
                        "maxReplicas": {"type": "integer", "minimum": 1},
                        "canaryTrafficPercent": {"type": "integer", "minimum": 0, "maximum": 100},
                        "timeout": {"type": "integer", "minimum": 1},
                        "model": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["modelFormat", "storageUri"],
                            "properties": {
                                "modelFormat": {
                                    "type": "object",
                                    "required": ["name"],
                                    "properties": {"name": {"const": "tensorflow"}},
                                },
                                "runtimeVersion": {"type": "string"},
                                "protocolVersion": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
                                "storageUri": {"type": "string", "pattern": "^(pvc|s3|gs|https?)://"},
                                "args": {"type": "array", "items": {"type": "string", "pattern": "^--"}},
                                "ports": {"type": "array", "items": {"type": "object", "required": ["containerPort"]}},
                                "resources": {"type": "object"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_inference_service(resources):
    jsonschema = pytest.importorskip("jsonschema")
    (service,) = documents("kubernetes/inferenceservice.yaml")
    jsonschema.validate(service, INFERENCE_SERVICE)
    model = service["spec"]["predictor"]["model"]
    claim = model["storageUri"].removeprefix("pvc://").split("/")[0]
    assert ("PersistentVolumeClaim", claim) in resources
    image = resources["Deployment", "ranker"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"tensorflow/serving:{model['runtimeVersion']}"
    assert all(argument.removeprefix("--").split("=")[0] in FLAGS for argument in model["args"])
    broken = yaml.safe_load(yaml.safe_dump(service))
    broken["spec"]["predictor"]["model"]["storageURI"] = "pvc://x"
    with pytest.raises(jsonschema.ValidationError, match="storageURI"):
        jsonschema.validate(broken, INFERENCE_SERVICE)
