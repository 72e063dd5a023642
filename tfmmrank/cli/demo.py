"""``tfmmrank demo``: the whole mission on a made-up shop."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np

from tfmmrank.cli.evaluate import baseline_scores, report_page
from tfmmrank.cli.output import Output, with_output

MARKER = "demo.json"
MODEL = "shop"
K = 10
GRPC_QUERIES = 50
#: Of a list's largest score, if that is above 1: the served item table keeps tokens in float16, of 11 bits. A wrong
#: feature moves scores further.
GRPC_TOLERANCE = 5e-3
#: What each ranker reads. Text and picture need the query to be compared with; behaviour is what is known without one.
SINGLE_MODALITIES = {
    "text_only": ("query", "title"),
    "image_only": ("query", "image", "colours"),
    "behaviour_only": ("attributes", "behaviour"),
}


@dataclass(frozen=True)
class GrpcCheck:
    """How scores over gRPC compare with ``predict``; differences are relative to a list's largest score above 1."""

    queries: int
    items: int
    largest_difference: float
    all_known: bool
    median_milliseconds: float

    @property
    def matches(self) -> bool:
        """Whether every item was known and every score within the tolerance."""
        return self.queries > 0 and self.all_known and self.largest_difference <= GRPC_TOLERANCE


@click.command("demo")
@click.option("--out", default="demo", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Of the shop and of training.")
@click.option("--items", default=3000, show_default=True, type=click.IntRange(100), help="Number of items.")
@click.option("--queries", default=800, show_default=True, type=click.IntRange(10), help="Number of queries.")
@click.option("--epochs", default=None, type=click.IntRange(1), help="Instead of the recipe's train.epochs.")
@with_output
def command(output: Output, out: Path, seed: int, items: int, queries: int, epochs: int | None) -> int:
    """Make a shop, train on it, compare, export, serve, and write OUT/report/index.html.

    Trains a ranker on text, picture and behaviour together, and one on each alone; measures them against random,
    popularity, BM25 and the truth; asks up to 50 queries over gRPC. The last line printed is one JSON object.
    """
    result = run_demo(output, out, seed, items, queries, epochs)
    output.result(result)
    return 0 if result["grpc_matches"] else 1


def run_demo(
    output: Output, out: Path, seed: int = 0, items: int = 3000, queries: int = 800, epochs: int | None = None
) -> dict[str, Any]:
    """The demo over the package's own functions; see the command. Running it again replaces what is in ``out``."""
    started = time.monotonic()
    _claim(out)
    with _step(output, f"making a shop of {items:,} items and {queries:,} queries, some pictures broken on purpose"):
        recipe, data = _shop(out, seed, items, queries, epochs, output.progress)
    rankers, scores = {}, {}
    for name, variant in {"model": recipe, **_single_modalities(recipe)}.items():
        with _step(output, f"training {name}: {', '.join(variant.model.towers)}"):
            rankers[name] = _train(variant, data, out / "runs" / name, output.progress)
            scores[name] = _scores(rankers[name], data, output.progress)
    with _step(output, "comparing on the test queries"):
        scores.update(baseline_scores(data, "test", seed=seed))
        table = _compare(data, scores)
        output.say(str(table))
    with _step(output, f"exporting to {out / 'models' / MODEL}"):
        model_dir = _export(rankers["model"], data, out, table, output.progress)
    asked = min(GRPC_QUERIES, len(data.lists("test")))
    with _step(output, f"asking {asked} queries over gRPC"):
        grpc_check = ask_over_grpc(model_dir, data, scores["model"])
    page = report_page(
        out / "report", data, table, scores, out / "runs" / "model",
        title="Demo shop: text + picture + behaviour", notes=_notes(grpc_check),
    )  # fmt: skip
    output.say(f"report: {page}")
    output.say(f"next: tfmmrank serve {model_dir} --rest-api-port 8501")
    result = {**_figures(table), "slices": _slices(table, data), **_grpc_figures(grpc_check), "report": str(page)}
    result["seconds"] = round(time.monotonic() - started, 1)
    result.update(seed=seed, machine=f"{os.cpu_count()} CPU cores", date=date.today().isoformat())
    result["peak_memory_mb"] = _peak_memory_mb()
    (out / MARKER).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return result


@contextmanager
def _step(output: Output, what: str) -> Iterator[None]:
    started = time.monotonic()
    output.say(f"== {what}")
    yield
    output.say(f"   {time.monotonic() - started:.0f} s")


def _claim(out: Path) -> None:
    """Clears an earlier demo's output; refuses a folder that holds anything else."""
    if out.exists() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ValueError(f"{out}: is not empty and holds no earlier demo ({MARKER} is missing); choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("{}\n", "utf-8")
    for folder in ("shop", "runs", "models"):
        shutil.rmtree(out / folder, ignore_errors=True)


def _shop(out: Path, seed: int, items: int, queries: int, epochs: int | None, progress: bool) -> tuple[Any, Any]:
    from tfmmrank.data import prepare
    from tfmmrank.data.demo_shop import make_demo_shop
    from tfmmrank.schema import Recipe

    recipe = Recipe.load(make_demo_shop(out / "shop", seed=seed, items=items, queries=queries))
    recipe = recipe.with_train(seed=seed, epochs=epochs)
    return recipe, prepare(recipe, out / "data", progress=progress)


def _single_modalities(recipe: Any) -> dict[str, Any]:
    """The recipe with all towers dropped but those of one modality."""
    variants = {}
    for name, kept in SINGLE_MODALITIES.items():
        towers = {tower: config for tower, config in recipe.model.towers.items() if tower in kept}
        variants[name] = recipe.model_copy(update={"model": recipe.model.model_copy(update={"towers": towers})})
    return variants


def _train(recipe: Any, data: Any, run: Path, progress: bool) -> Any:
    from tfmmrank.runs import keep_recipe
    from tfmmrank.training import build_ranker, fit

    keep_recipe(recipe, run)
    ranker = build_ranker(recipe, data, progress)
    fit(ranker, recipe.train, data, run, resume=False, progress=progress)
    return ranker


def _scores(ranker: Any, data: Any, progress: bool) -> list[np.ndarray]:
    from tfmmrank.evaluation import scores_of

    return scores_of(ranker, data, "test", progress=progress)


def _compare(data: Any, scores: Mapping[str, Sequence[np.ndarray]]) -> Any:
    from tfmmrank.evaluation import compare

    return compare(data, "test", scores, k=K)


def _export(ranker: Any, data: Any, out: Path, table: Any, progress: bool) -> Path:
    from tfmmrank.export import export

    facts = {"evaluation": {"split": "test", "k": K, **_figures(table)}}
    model_dir = out / "models" / MODEL
    export(ranker, data, model_dir, progress=progress, facts=facts)
    return model_dir


def ask_over_grpc(
    model_dir: Path, data: Any, predicted: Sequence[np.ndarray], queries: int = GRPC_QUERIES
) -> GrpcCheck:
    """Serves a model, ranks test lists by item id over gRPC, and compares with scores from ``predict``.

    Args:
        model_dir: the exported model.
        data: the dataset whose test lists are asked.
        predicted: scores from ``predict``, one array a test list.
        queries: how many lists to ask, spread over the split.
    """
    from tfmmrank.serving import Client, serve

    lists = data.lists("test")
    chosen = np.unique(np.linspace(0, len(lists) - 1, queries).astype(int))
    largest, known, items, times = 0.0, True, 0, []
    with serve(model_dir, port=0) as server, Client(server.address, server.name, timeout=30.0) as client:
        for number in chosen:
            query = lists.queries["query"][number].decode("utf-8")
            ids = [str(name) for name in data.catalogue.ids[lists.item_rows[lists.of(number)]]]
            asked = time.perf_counter()
            ranked = client.rank(query, ids)
            times.append(time.perf_counter() - asked)
            expected = predicted[number][ranked.order]
            scale = max(1.0, float(np.abs(expected).max()))
            largest = max(largest, float(np.abs(ranked.scores - expected).max()) / scale)
            known &= bool(ranked.known.all())
            items += len(ids)
    return GrpcCheck(len(chosen), items, largest, known, float(np.median(times)) * 1000)


def _figures(table: Any) -> dict[str, Any]:
    """NDCG of each system with its interval, and what the numbers rest on."""
    some = table.per_query("model")
    return {
        table.main: {name: round(table.mean(name), 4) for name in table.rows},
        "intervals": {
            name: [round(table.interval(name).low, 4), round(table.interval(name).high, 4)] for name in table.rows
        },
        "convention": f"{some.convention}; {table.level:.0%} bootstrap intervals over queries",
        "queries": {"used": some.used, "skipped": some.skipped},
    }


def _slices(table: Any, data: Any) -> dict[str, float]:
    """NDCG of the model by part of the queries: Chinese or not, all pictures there or not, and so on."""
    from tfmmrank.evaluation import query_slices

    found = table.sliced(query_slices(data, table.split))
    return {name: round(part["systems"]["model"].mean, 4) for name, part in found.items()}


def _grpc_figures(found: GrpcCheck) -> dict[str, Any]:
    return {
        "grpc_matches": found.matches,
        "grpc": {
            "queries": found.queries,
            "items": found.items,
            "largest_difference": found.largest_difference,
            "tolerance": GRPC_TOLERANCE,
            "all_known": found.all_known,
            "median_ms": round(found.median_milliseconds, 2),
        },
    }


def _notes(found: GrpcCheck) -> list[str]:
    return [
        "Everything here is made up: the items, their drawn pictures, the queries and the shoppers. What a query asks "
        "for can partly be read in the title (English or Chinese), partly be seen in the picture only, and how good an "
        "item is shows in ratings and past behaviour. Training grades carry annotator noise; the test grades are the "
        "truth, so the oracle reaches 1.",
        "text_only, image_only and behaviour_only are the same recipe with the other modalities' towers left out.",
        f"The exported model was asked {found.queries} queries ({found.items:,} items) by item id over gRPC: the "
        f"scores differ from predict by at most {found.largest_difference:.1e} of the largest (tolerance "
        f"{GRPC_TOLERANCE:.0e}); "
        f"median {found.median_milliseconds:.1f} ms a query.",
    ]


def _peak_memory_mb() -> float:
    """Peak resident memory of this process in MiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
