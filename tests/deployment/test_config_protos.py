"""TensorFlow Serving's configuration files parse with its messages, and a mistake in one is told."""

import re
import subprocess
import sys

import pytest
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.deployment.folder import SERVING, documents, run
from tfmmrank.serving.protocol.config_protos import BatchingParameters, MonitoringConfig, SSLConfig, parse_config

CONFIG = SERVING / "config"
MAKE_SSL = CONFIG / "make_ssl_config.sh"
FILES = {
    "models.config": ModelServerConfig,
    "batching.config": BatchingParameters,
    "monitoring.config": MonitoringConfig,
    "ssl.config": SSLConfig,
}


def test_models():
    (model,) = parse_config(CONFIG / "models.config", ModelServerConfig).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("shop", "/models/shop", "tensorflow")
    loaded = model.model_version_policy.specific.versions
    assert set(model.version_labels) <= {"stable", "canary"}
    assert set(model.version_labels.values()) <= set(loaded), "a label of a version that is not loaded"


def test_batching():
    batching = parse_config(CONFIG / "batching.config", BatchingParameters)
    assert batching.pad_variable_length_inputs, "lists of different lengths would be refused"
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value, "TensorFlow Serving does not start otherwise"
    assert 0 < batching.batch_timeout_micros.value <= 5000
    assert batching.num_batch_threads.value >= 1


def test_monitoring_path_is_the_one_that_is_scraped():
    monitoring = parse_config(CONFIG / "monitoring.config", MonitoringConfig).prometheus_config
    jobs = {job["job_name"]: job for job in documents("prometheus/prometheus.yml")[0]["scrape_configs"]}
    assert monitoring.enable
    assert monitoring.path == jobs["tfserving"]["metrics_path"]


def test_ssl_asks_clients_for_certificates():
    ssl = parse_config(CONFIG / "ssl.config", SSLConfig)
    assert ssl.client_verify
    assert ssl.server_key.startswith("-----BEGIN PRIVATE KEY-----\n")


def test_ssl_config_from_certificates(tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = authority.issue_cert("ranker.example")
    files = {"server_key": server.private_key_pem, "server_cert": server.cert_chain_pems[0]}
    files["custom_ca"] = authority.cert_pem
    for name, pem in files.items():
        pem.write_to_path(tmp_path / name)
    written = tmp_path / "ssl.secret.config"
    told = run(["bash", "-c", 'umask 022; exec "$@"', "", MAKE_SSL, *(tmp_path / name for name in files), written])
    assert written.stat().st_mode & 0o777 == 0o600, "others could read the private key"
    user = documents("compose.yaml")[0]["services"]["tfserving"]["user"].split(":")[0]
    assert f"chown {user} {written}" in told
    ssl = parse_config(written, SSLConfig)
    for name, pem in files.items():
        assert getattr(ssl, name).encode() == pem.bytes()
    assert ssl.client_verify


def test_ssl_config_of_the_wrong_file(tmp_path):
    (tmp_path / "key").write_text("no key\n")
    (tmp_path / "written").write_text("as before")
    files = [*[tmp_path / "key"] * 3, tmp_path / "written"]
    done = subprocess.run([MAKE_SSL, *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"{tmp_path / 'key'}: no PEM block" in done.stderr
    assert (tmp_path / "written").read_text() == "as before"
    assert {path.name for path in tmp_path.iterdir()} == {"key", "written"}


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_key_fails(name, tmp_path):
    """Each key of each file, one letter short, is refused, at its line."""
    lines = (CONFIG / name).read_text("utf-8").splitlines()
    keys = [(i, match) for i, line in enumerate(lines) if (match := re.match(r" *(\w+) ?[:{]", line))]
    assert keys
    for i, match in keys:
        key = match[1]
        broken = [*lines[:i], lines[i].replace(key, key[:-1], 1), *lines[i + 1 :]]
        (tmp_path / name).write_text("\n".join(broken))
        place, told = (
            f"{tmp_path / name}:{i + 1}: tensorflow.serving.",
            f'has no key "{key[:-1]}"; did you mean "{key}"?',
        )
        with pytest.raises(ValueError, match=f"^{re.escape(place)}.*{re.escape(told)}"):
            parse_config(tmp_path / name, FILES[name])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_batch_size { value: many }", ":1: not a valid BatchingParameters: "),
        ("\nmax_batch_size {", ":2: not a valid BatchingParameters: "),
        ("max_batch_size { value: 1 }\nmax_batch_size { value: 2 }", ":2: not a valid BatchingParameters: "),
        ("pad_variable_length_inputs: true\npad_variable_length_inputs: false", ":2: not a valid"),
    ],
)
def test_mistakes_are_told_with_their_line(text, told, tmp_path):
    file = tmp_path / "batching.config"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{file}{told}")):
        parse_config(file, BatchingParameters)


def test_not_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        parse_config(tmp_path / "x", MonitoringConfig)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        parse_config(tmp_path / "x", MonitoringConfig)


def test_bytes_are_those_of_the_protocol():
    """Field numbers and wire types, written out by hand: tag = number * 8 + wire type."""
    batching = BatchingParameters(allowed_batch_sizes=[5], pad_variable_length_inputs=True)
    batching.max_batch_size.value = 3
    batching.thread_pool_name.value = "a"
    assert batching.SerializeToString() == b"\x0a\x02\x08\x03" + b"\x2a\x03\x0a\x01a" + b"\x32\x01\x05" + b"\x38\x01"
    monitoring = MonitoringConfig(prometheus_config={"enable": True, "path": "/m"})
    assert monitoring.SerializeToString() == b"\x0a\x06\x08\x01\x12\x02/m"
    ssl = SSLConfig(server_key="k", server_cert="c", custom_ca="a", client_verify=True)
    assert ssl.SerializeToString() == b"\x0a\x01k\x12\x01c\x1a\x01a\x20\x01"
    assert BatchingParameters.DESCRIPTOR.full_name == "tensorflow.serving.BatchingParameters"


def test_a_wheel_that_has_the_messages_does_no_harm():
    code = (
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "theirs = descriptor_pb2.FileDescriptorProto(name='later_wheel.proto', package='tensorflow.serving')\n"
        "theirs.message_type.add(name='MonitoringConfig')\n"
        "descriptor_pool.Default().Add(theirs)\n"
        "from tfmmrank.serving.protocol.config_protos import MonitoringConfig\n"
        "assert MonitoringConfig(prometheus_config={'enable': True}).prometheus_config.enable"
    )
    run([sys.executable, "-c", code])


def test_reading_the_files_does_not_load_tensorflow():
    code = (
        "import sys; from tfmmrank.serving.protocol.config_protos import BatchingParameters, parse_config\n"
        "from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig\n"
        f"parse_config({str(CONFIG / 'batching.config')!r}, BatchingParameters)\n"
        f"parse_config({str(CONFIG / 'models.config')!r}, ModelServerConfig)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    run([sys.executable, "-c", code])
