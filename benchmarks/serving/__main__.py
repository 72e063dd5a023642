"""``python -m benchmarks.serving [SECTION ...]``: what serving is judged by, on the embedded server and loopback.

Each section prints its figures and writes ``benchmarks/results/serving_SECTION.json``; ``benchmarks.pages`` writes them
into docs/serving.md. A section runs alone on its machine, or it measures the others too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path

from benchmarks.examples import ROOT
from benchmarks.pages import serving_table
from benchmarks.quality import RESULTS
from benchmarks.serving.conformance import conformance
from benchmarks.serving.figures import Figures
from benchmarks.serving.fuzz import fuzz
from benchmarks.serving.latency import candidates, latency, warmup
from benchmarks.serving.swaps import crash, swap
from benchmarks.serving.table import million
from benchmarks.serving.weights import weights
from tfmmrank.atomic import write_text

SECTIONS: dict[str, Callable[[Path], Figures]] = {
    "latency": latency,
    "candidates": candidates,
    "swap": swap,
    "warmup": warmup,
    "fuzz": fuzz,
    "crash": crash,
    "million": million,
    "conformance": conformance,
    "weights": weights,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"which (default: {' '.join(SECTIONS)})")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="of models and datasets")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of a JSON file a section")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f'no section "{name}"; sections: {", ".join(SECTIONS)}')
    options.results.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.sections or list(SECTIONS):
        started = time.monotonic()
        try:
            figures = SECTIONS[name](options.out)
        except Exception:  # the other sections' figures are wanted all the same
            traceback.print_exc()
            failed.append(name)
            continue
        found = {
            "figures": figures, "seeds": [0], "machine": f"{os.cpu_count()} CPU cores",
            "date": date.today().isoformat(), "minutes": round((time.monotonic() - started) / 60, 1),
        }  # fmt: skip
        print(f"{name}\n\n{serving_table(found)}", flush=True)
        write_text(options.results / f"serving_{name}.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    if failed:
        sys.exit(f"benchmarks: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
