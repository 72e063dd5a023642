"""The runbook's commands do what it says."""

import os
import re
import subprocess

from tests.deployment.folder import SERVING

RSYNC = """#!/bin/bash
echo "$3" >> copies
cp -a ${2/#backup:/backup/} "$3"
"""


def commands(title: str) -> str:
    """The first shell block below a title."""
    text = (SERVING / "RUNBOOK.md").read_text("utf-8")
    return re.findall(r"^```sh\n(.*?)^```", text.split(f"\n## {title}\n")[1], re.DOTALL | re.MULTILINE)[0]


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
