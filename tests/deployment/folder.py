"""Where the deployment files lie, and how the tests read and call what belongs to them."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

SERVING = Path(__file__).parents[2] / "serving"


def documents(path: str) -> list[dict]:
    """A YAML file's documents."""
    return [document for document in yaml.safe_load_all((SERVING / path).read_text("utf-8")) if document]


def run(command: list, **options) -> str:
    """Runs a program that must succeed; returns what it printed. The test is skipped where it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
