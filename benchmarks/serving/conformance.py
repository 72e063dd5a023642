"""The conformance tests, counted by what they ask."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.examples import ROOT
from benchmarks.serving.latency import Figures


def conformance(out: Path) -> Figures:
    """Runs ``tests/serving`` against the embedded server, or the one at TFMMRANK_SERVING_ADDRESS."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/serving", f"--junitxml={report}"]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
    found: dict[str, Counter[str]] = {}
    for case in cases:
        asked = str(case.get("classname")).rpartition(".test_")[2].replace("_", " ")
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        found.setdefault(asked, Counter())[outcome] += 1
    figures = {
        f"tests/serving, {asked}": {outcome: float(count) for outcome, count in counts.items()}
        for asked, counts in sorted(found.items())
    }
    figures["tests/serving, all"] = {"tests": float(len(cases)), "exit code": float(ended.returncode)}
    where = os.environ.get("TFMMRANK_SERVING_ADDRESS")
    return {f"{name} (at {where})": counts for name, counts in figures.items()} if where else figures
