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
from collections.abc import Callable
from datetime import date
from pathlib import Path

from benchmarks.examples import ROOT, data_folder
from benchmarks.quality import RESULTS
from benchmarks.serving.conformance import conformance
from benchmarks.serving.fuzz import fuzz
from benchmarks.serving.latency import Figures, candidates, latency, warmup
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
    for name in options.sections or list(SECTIONS):
        if name == "weights" and not data_folder().is_dir():
            sys.exit(f"benchmarks: the evaluation data is not at {data_folder()}; set TFMMRANK_DATA to its folder")
        started = time.monotonic()
        figures = SECTIONS[name](options.out)
        for what, values in figures.items():
            for figure, value in values.items():
                print(f"{what:<56}{figure:<28}{value:>12.4g}", flush=True)
        found = {
            "figures": figures, "seeds": [0], "machine": f"{os.cpu_count()} CPU cores",
            "date": date.today().isoformat(), "minutes": round((time.monotonic() - started) / 60, 1),
        }  # fmt: skip
        write_text(options.results / f"serving_{name}.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
