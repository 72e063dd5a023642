import json
import subprocess
import sys

import pytest

from tests.serving.test_drift import KEY, a_hundred_lists, version, write_log
from tfmmrank.cli.main import FAILED, FINE, MISUSE, run


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    write_log(folder / "logs", a_hundred_lists())
    (folder / "log.key").write_bytes(KEY)
    return [str(folder / "logs"), str(version(folder))], str(folder / "log.key")


def test_json_and_exit_code(shop, capsys, monkeypatch):
    monkeypatch.delenv("TFMMRANK_LOG_KEY", raising=False)
    arguments, key_file = shop
    assert run(["drift", *arguments, "--key-file", key_file, "--json"]) == FINE
    report = json.loads(capsys.readouterr().out)
    assert report["lists"] == 100
    verdicts = {(entry["column"], entry["what"]): entry["verdict"] for entry in report["findings"]}
    assert verdicts["age", "missing"] == "stable"
    assert verdicts["item ids", "unknown"] == "act"
    assert ("season", "values") in verdicts
    assert report["worst"] > 0.25
    assert run(["drift", *arguments, "--fail-over", "0.25", "--json"]) == FAILED
    assert json.loads(capsys.readouterr().out)["hashed"] == ["season"]
    assert run(["drift", *arguments, "--fail-over", str(report["worst"] + 0.01), "--json"]) == FINE
    capsys.readouterr()
    monkeypatch.setenv("TFMMRANK_LOG_KEY", KEY.decode())
    assert run(["drift", *arguments, "--json"]) == FINE
    assert json.loads(capsys.readouterr().out) == report


def test_table(shop, capsys):
    arguments, key_file = shop
    assert run(["drift", *arguments, "--key-file", key_file, "--look", "2", "--act", "3", "--quiet"]) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '"shop" version 3: 100 lists logged'
    assert lines[1].split() == [
        "column",
        "what",
        "lists",
        "PSI",
        "by",
        "chance",
        "KS",
        "p",
        "training",
        "log",
        "verdict",
    ]
    (unknown,) = [line for line in lines if line.startswith("item ids")]
    assert unknown.split()[-3:] == ["0.000", "0.200", "stable"]
    assert lines[-1] == "not in the log: picture"


def test_misuse_and_failure(shop, capsys, tmp_path):
    assert run(["drift", *shop[0], "--fail-over", "0"]) == MISUSE
    capsys.readouterr()
    assert run(["drift", str(tmp_path), shop[0][1]]) == FAILED
    assert "holds no complete request log" in capsys.readouterr().err


def test_drift_does_without_tensorflow(shop):
    code = f"""
import sys
from tfmmrank.cli.main import run
assert run(["drift", *{shop[0]!r}, "--quiet"]) == 0
print([name for name in ("tensorflow", "tf_keras", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
