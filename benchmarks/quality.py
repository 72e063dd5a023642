"""How well the example recipes rank real data: train, measure on the test split, export, ask over gRPC.

Run as ``python -m benchmarks [NAME ...]``. Prints a table for each recipe and one JSON object at the end, which it also
writes to ``runs/bench/results.json``. The evaluation data is looked for in ``../shared/data`` beside the checkout, or
in the folder that ``TFMMRANK_DATA`` names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("fashion", "crowd", "mq2008")
_DEFAULT_DATA = "../../shared/data"  # as the examples write it, relative to themselves


def data_folder() -> Path:
    """The folder of the evaluation data."""
    return Path(os.environ.get("TFMMRANK_DATA", ROOT / "examples" / _DEFAULT_DATA)).resolve()


def load_example(name: str) -> Any:
    """An example's recipe, reading from ``data_folder()``."""
    from tfmmrank.schema import Recipe

    text = (ROOT / "examples" / f"{name}.yaml").read_text("utf-8")
    content = yaml.safe_load(text.replace(_DEFAULT_DATA, str(data_folder())))
    return Recipe.from_dict(content, root=ROOT / "examples", source=f"examples/{name}.yaml")


def run_example(
    name: str, out: Path, epochs: int | None = None, seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Runs one example and returns its figures."""
    from tfmmrank.cli.demo import ask_over_grpc
    from tfmmrank.cli.evaluate import baseline_scores
    from tfmmrank.data import prepare
    from tfmmrank.evaluation import compare, scores_of
    from tfmmrank.evaluation.metrics import TIES_AVERAGED
    from tfmmrank.export import export
    from tfmmrank.training import build_ranker, fit

    started = time.monotonic()
    recipe = load_example(name)
    chosen = {"seed": seed, **({"epochs": epochs} if epochs is not None else {})}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=chosen)})
    data = prepare(recipe, out / "data", progress=progress)
    ranker = build_ranker(recipe, data)
    history = fit(ranker, recipe.train, data, out / "run", resume=False, progress=progress)
    trained = time.monotonic() - started
    scores = {"model": scores_of(ranker, data, "test"), **baseline_scores(data, "test", seed=seed)}
    table = compare(data, "test", scores)
    print(table, flush=True)
    shutil.rmtree(out / "models", ignore_errors=True)
    export(ranker, data, out / "models" / name, progress=progress)
    main = table.per_query("model")
    figures = {
        table.main: {system: round(table.mean(system), 4) for system in table.rows},
        "bm25_ties_averaged": round(table.mean("bm25", table.main + TIES_AVERAGED), 4)
        if "bm25" in table.rows
        else None,
        "interval": [round(table.interval("model").low, 4), round(table.interval("model").high, 4)],
        "convention": main.convention,
        "queries": {"used": main.used, "skipped": main.skipped},
        "epochs": len(history["loss"]),
        "train_seconds": round(trained, 1),
        "seed": seed,
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores",
    }
    if len(data.catalogue):
        figures["grpc_matches"] = ask_over_grpc(out / "models" / name, data, scores["model"]).matches
    return figures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which examples (default: {' '.join(EXAMPLES)})")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    parser.add_argument("--epochs", type=int, default=None, help="instead of the recipes'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    for name in options.names:
        if name not in EXAMPLES:
            parser.error(f'no example "{name}"; examples: {", ".join(EXAMPLES)}')
    if not data_folder().is_dir():
        sys.exit(f"benchmarks: the evaluation data is not at {data_folder()}; set TFMMRANK_DATA to its folder")
    results = {}
    for name in options.names or EXAMPLES:
        results[name] = run_example(name, options.out / name, options.epochs, options.seed, not options.quiet)
    (options.out / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1), "utf-8")
    print(json.dumps(results, ensure_ascii=False))


if __name__ == "__main__":
    main()
