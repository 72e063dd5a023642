"""The runbook's commands do what it says."""

import os
import re
import subprocess

import pytest
import yaml
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.deployment.folder import SERVING, documents
from tfmmrank.serving.protocol.config_protos import parse_config
from tfmmrank.serving.rollout.promotion import promote, rollback

RSYNC = """#!/bin/bash
echo "$3" >> copies
cp -a ${2/#backup:/backup/} "$3"
"""
# A pod's /models is the folder "volume" here; each command is noted in "calls", with the folder's entries after it.
KUBECTL = """#!/bin/bash
case $1 in
  cp)
    to=${3/ranker-loader:/}
    cp -r "$2" "${to/\\/models/volume}"
    [ -z "$BREAKS_OFF" ] || : > "${to/\\/models/volume}/saved_model.pb" ;;
  exec)
    command=("${@:2}")
    while [ "${command[0]}" != -- ]; do command=("${command[@]:1}"); done
    command=("${command[@]:1}")
    "${command[@]//\\/models/$PWD/volume}" ;;
  apply) [ "$3" != - ] || cat > applied ;;
esac
done=$?
echo "$* | $(ls volume/shop 2>/dev/null | xargs)" >> calls
exit $done
"""


def blocks() -> list[str]:
    """All shell blocks."""
    return re.findall(r"^```sh\n(.*?)^```", (SERVING / "RUNBOOK.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(title: str) -> str:
    """The first shell block below a title."""
    text = (SERVING / "RUNBOOK.md").read_text("utf-8")
    return re.findall(r"^```sh\n(.*?)^```", text.split(f"\n## {title}\n")[1], re.DOTALL | re.MULTILINE)[0]


@pytest.fixture
def kubectl(tmp_path):
    """Runs a block with the imitation of kubectl; returns what it was asked and what the volume's model then held."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").write_text(KUBECTL)
    (tmp_path / "bin" / "kubectl").chmod(0o755)
    (tmp_path / "volume").mkdir()
    (tmp_path / "serving").symlink_to(SERVING)

    def run(block: str, **environment: str) -> list[tuple[str, list[str]]]:
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, **environment}
        subprocess.run(["bash", "-uc", block], cwd=tmp_path, env=environment, check=True, timeout=60)
        calls = [line.split(" | ") for line in (tmp_path / "calls").read_text().splitlines()]
        return [(asked, held.split()) for asked, held in calls]

    return run


@pytest.fixture
def version(tmp_path):
    """A model's version on the operator's machine."""
    folder = tmp_path / "models" / "shop" / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text("graph")
    (folder / "variables" / "variables.index").write_text("index")
    return folder


def test_commands_parse():
    for block in blocks():
        subprocess.run(["bash", "-n"], input=block, text=True, check=True, timeout=60)


def test_a_version_appears_whole_on_the_volume(tmp_path, kubectl, version):
    (tmp_path / "volume" / "shop" / "copy-1" / "variables").mkdir(parents=True)
    (tmp_path / "volume" / "shop" / "copy-1" / "left_over").write_text("of a copy that broke off")
    calls = kubectl(commands("Models on Kubernetes"))
    held = [entries for _, entries in calls]
    renamed = next(number for number, entries in enumerate(held) if entries == ["1"])
    assert calls[renamed][0] == "exec ranker-loader -- mv -T /models/shop/copy-1 /models/shop/1"
    assert all("1" not in entries for entries in held[:renamed])
    found = {
        path.relative_to(tmp_path / "volume" / "shop" / "1"): path.read_text()
        for path in (tmp_path / "volume" / "shop" / "1").rglob("*")
        if path.is_file()
    }
    assert found == {path.relative_to(version): path.read_text() for path in version.rglob("*") if path.is_file()}
    assert calls[-1][0] == "delete -f serving/kubernetes/loader.yaml"


def test_a_copy_that_breaks_off_is_not_renamed(kubectl, version):
    calls = kubectl(commands("Models on Kubernetes"), BREAKS_OFF="1")
    assert calls[-1][1] == ["copy-1"]


def test_a_version_is_not_written_over(tmp_path, kubectl, version):
    there = tmp_path / "volume" / "shop" / "1"
    there.mkdir(parents=True)
    (there / "saved_model.pb").write_text("served")
    kubectl(commands("Models on Kubernetes"))
    assert (there / "saved_model.pb").read_text() == "served"
    assert {path.name for path in there.iterdir()} == {"saved_model.pb"}


def test_alerts_go_to_the_operator(tmp_path, kubectl):
    kubectl(commands("Monitoring on Kubernetes"))
    rule = yaml.safe_load((tmp_path / "applied").read_text())
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == documents("prometheus/alerts.yml")[0]


def test_both_promotions_go_back_at_once(tmp_path):
    """On Kubernetes, by the file alone; the label goes to a version that stayed loaded, or servers would refuse it."""
    file = tmp_path / "models.config"
    file.write_text((SERVING / "config" / "models.config").read_text("utf-8"))
    for number in (1, 2):
        (tmp_path / "shop" / str(number)).mkdir(parents=True)
    before = parse_config(file, ModelServerConfig)
    promote(file, "shop", 2, base_path=tmp_path / "shop")
    loaded = promote(file, "shop", 2, "stable", base_path=tmp_path / "shop").versions
    label = rollback(file, "shop")
    assert (label.labels, label.versions) == ({"stable": 1}, [1, 2])
    rollback(file, "shop")
    assert parse_config(file, ModelServerConfig) == before
    assert set(before.model_config_list.config[0].version_labels.values()) <= set(loaded)


def test_restore(tmp_path):
    """Versions appear by a rename, since the server loads what has a number; promotions come back too."""
    kept = {
        "models/shop/1/saved_model.pb": "one", "models/shop/2/saved_model.pb": "two",
        "config/models.config": "promoted", "config/models.config.history.json": "[]",
    }  # fmt: skip
    for file, content in kept.items():
        (tmp_path / "backup" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "backup" / file).write_text(content)
    for folder in ("models/shop", "serving/config", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "serving" / "config" / "models.config").write_text("from git")
    for name, script in (("rsync", RSYNC), ("docker", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", commands("Restore")], cwd=tmp_path, env={"PATH": path}, check=True, timeout=60)
    copies = (tmp_path / "copies").read_text().split()
    assert not [copy for copy in copies if re.search(r"/\d+/?$", copy)], "the server would load half a copy"
    for file, content in kept.items():
        restored = file.replace("config/", "serving/config/", 1) if file.startswith("config") else file
        assert (tmp_path / restored).read_text() == content
    assert {entry.name for entry in (tmp_path / "models" / "shop").iterdir()} == {"1", "2"}
