"""The conformance tests, counted by what they ask the embedded server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.examples import ROOT
from benchmarks.serving.figures import Figures

_ANY, _ALL = "any of these", "all of tests/serving"


def conformance(out: Path) -> Figures:
    """Runs ``tests/serving`` against the embedded server, and counts the tests in which it answered, by method.

    A test that asks several methods counts for each, one that asks over REST for the REST API too. Tests that ask no
    server (arithmetic, clients of a scripted server), or one in another process, are in the last line alone.

    Raises:
        RuntimeError: when a test fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TFMMRANK_SERVING_")}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        plugin = ["-p", "benchmarks.serving.asked", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", "-q", *plugin, "tests/serving"]
        ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout[-5000:]}")
        return count(ElementTree.parse(report).getroot())


def count(report: ElementTree.Element) -> Figures:
    """Tests by method of a JUnit report that ``benchmarks.serving.asked`` was told in."""
    passed, skipped = Counter[str](), Counter[str]()
    for case in report.iter("testcase"):
        asked = {str(found.get("value")) for found in case.iter("property") if found.get("name") == "asked"}
        rows = [*asked, *([_ANY] if asked else []), _ALL]
        (skipped if case.find("skipped") is not None else passed).update(rows)
    order = sorted(passed | skipped, key=lambda name: (name == _ALL, name == _ANY, name))
    return {name: {"tests passed": passed[name], "skipped": skipped[name]} for name in order}
