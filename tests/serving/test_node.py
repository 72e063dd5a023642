"""The Node example asks the same server and gets the same answer; its messages are TensorFlow Serving's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving.fake_server import FakeServer
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import type_name

EXAMPLE = Path(__file__).parents[2] / "serving" / "clients" / "node"
NETWORK = {"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT"}


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The example with its packages beside it."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is absent: the Node example is not run")
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm ci: no answer from the registry within 120 s")
    found = set(re.findall(r"\bE[A-Z_]+\b", done.stderr)) & NETWORK
    if done.returncode and found:
        pytest.skip(f"npm ci cannot reach the registry: {', '.join(found)}")
    assert done.returncode == 0, done.stderr  # a lock that does not fit, a package of other content
    return folder / "rank.mjs"


def node(script, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(["node", script, *arguments], capture_output=True, text=True, timeout=60)


def test_ranks_as_the_python_client(script, server, client, now):
    for q in (0, 1):
        ids, context = [*now.ids(q), "nobody"], now.context(q)
        season = context["season"].decode()
        age = "" if context["user age"] != context["user age"] else str(float(context["user age"]))
        asked = [now.query(q), *ids, "--address", server.address, "--model", "tiny", "--timeout", "60", "--json"]
        done = node(script, *asked, "--text", f"season={season}", "--number", f"user age={age}")
        assert done.returncode == 0, done.stderr
        expected = client.rank(now.query(q), ids, **context)
        found = json.loads(done.stdout)
        assert [item["item_id"] for item in found] == expected.item_ids
        assert [item["score"] for item in found] == expected.scores.tolist()
        assert [item["known"] for item in found] == expected.known.tolist()


def test_prints_for_people_and_refusals_end_with_one(script, server):
    done = node(script, "red", "i1", "--address", server.address, "--model", "other")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(r"rank\.mjs: 5 NOT_FOUND: .*Latest\(other\)", done.stderr)
    assert node(script, "red").returncode == 1
    with FakeServer() as fake:
        fake.packed = True
        done = node(script, "red", "i3", "nobody", "i5", "--address", fake.address, "--model", "m", "--label", "canary")
        assert done.stdout.splitlines() == ["i5 5.0000", "i3 3.0000", "nobody (unknown)"], done.stderr
        assert fake.requests[0].model_spec.version_label == "canary"


def test_messages_are_tensorflow_servings():
    """Names and numbers of every field that the example's files declare, against those of ``wire``, itself tested."""
    declared, types = {}, {}
    for file in EXAMPLE.rglob("*.proto"):
        blocks = []
        for line in file.read_text("utf-8").splitlines():
            if line.endswith("{"):
                message = re.match(r"\s*message (\w+)", line)
                blocks.append(message[1] if message else (blocks or [None])[-1])
            elif line.strip() == "}":
                blocks.pop()
            elif field := re.match(r"\s+(?:repeated )?[\w.<>, ]+ (\w+) = (\d+);", line):
                declared[blocks[-1], field[1]] = int(field[2])
            elif value := re.match(r"\s+DT_(\w+) = (\d+);", line):
                types[value[1].lower()] = int(value[2])
    assert len(declared) == 18
    for (message, field), number in declared.items():
        assert wire._MESSAGES[message][field][0] == number, f"{message}.{field}"
    assert types.pop("invalid") == 0
    assert {name: type_name(number) for name, number in types.items()} == {name: name for name in types}
    service = (EXAMPLE / "protos/tensorflow_serving/apis/prediction_service.proto").read_text("utf-8")
    package, name, method = (re.search(rf"{word} ([\w.]+)", service)[1] for word in ("package", "service", "rpc"))
    assert f"/{package}.{name}/{method}" == wire.PREDICT


def test_the_lock_is_complete_and_names_no_place():
    lock = json.loads((EXAMPLE / "package-lock.json").read_text("utf-8"))
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert len(packages) > 10
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())
    assert lock["packages"][""]["dependencies"] == json.loads((EXAMPLE / "package.json").read_text())["dependencies"]
