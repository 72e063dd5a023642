import json
import subprocess
import sys

import pytest

from tests.serving.model_server import ModelServer
from tfmmrank.cli.main import FAILED, FINE, MISUSE, run

CONFIG = """# Models.
model_config_list {{
  config {{
    name: "shop" base_path: "{folder}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 }} }}
    version_labels {{ key: "stable" value: 1 }}  # since May
  }}
}}
"""


@pytest.fixture
def file(tmp_path):
    for version in (1, 2):
        (tmp_path / "shop" / str(version)).mkdir(parents=True)
    (tmp_path / "models.config").write_text(CONFIG.format(folder=tmp_path / "shop"), "utf-8")
    return tmp_path / "models.config"


def test_promote_and_back_with_a_server(file, capsys):
    with ModelServer(file.read_text("utf-8")) as server:
        arguments = ["promote", str(file), "shop", "--address", server.address]
        assert run([*arguments, "--version", "2", "--label", "canary", "--json"]) == FINE
        made = json.loads(capsys.readouterr().out)
        assert made["labels"] == {"stable": 1, "canary": 2}
        assert made["versions"] == [1, 2]
        assert made["reloaded"] is True
        assert run([*arguments, "--rollback"]) == FINE
        out, _ = capsys.readouterr()
        assert out == f'"shop": canary is gone (it was version 2); {server.address} serves it\n'
        assert server.labels == {"stable": 1}


def test_promote_for_people(file, capsys):
    assert run(["promote", str(file), "shop", "--version", "2", "--label", "stable"]) == FINE
    out, error = capsys.readouterr()
    assert out == '"shop": stable is version 2 (it was 1); no running server was told\n'
    assert "comments below its head were dropped" in error
    assert run(["promote", str(file), "shop", "--version", "1"]) == FINE
    assert capsys.readouterr().out == '"shop": versions to load: 1, 2; no running server was told\n'


def test_misuse_and_failure(file, capsys):
    assert run(["promote", str(file), "shop"]) == MISUSE
    assert "which version? Give --version, or --rollback" in capsys.readouterr().err
    assert run(["promote", str(file), "shop", "--rollback", "--version", "2"]) == MISUSE
    capsys.readouterr()
    assert run(["promote", str(file), "shop", "--version", "7", "--label", "canary"]) == FAILED
    assert "has no version 7; versions: 1, 2" in capsys.readouterr().err
    assert run(["promote", str(file), "shop", "--rollback"]) == FAILED
    assert "there is nothing to take back" in capsys.readouterr().err


def test_promote_does_without_tensorflow(file):
    code = f"""
import sys
from tfmmrank.cli.main import run
assert run(["promote", {str(file)!r}, "shop", "--version", "2", "--label", "canary", "--quiet"]) == 0
print([name for name in ("tensorflow", "tf_keras", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
