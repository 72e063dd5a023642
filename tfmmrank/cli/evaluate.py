"""``tfmmrank evaluate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tfmmrank.cli.output import Output, with_output, with_plugins

#: What a report looks at before the model: the first of these that the dataset allows.
BEFORE = ("bm25", "popularity", "random")


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True, help="Which lists to measure on.")
@click.option("--k", default=10, show_default=True, type=click.IntRange(1), help="Cut-off of NDCG, precision, recall.")
@click.option(
    "--gain", type=click.Choice(["exp2", "linear"]), default="exp2", show_default=True,
    help="NDCG's gain of a grade: 2^grade - 1, or the grade itself.",
)  # fmt: skip
@click.option(
    "--empty", type=click.Choice(["skip", "zero", "one"]), default="skip", show_default=True,
    help="What NDCG and all metrics but AUC do with a query that has no positive grade.",
)  # fmt: skip
@click.option(
    "--baselines", type=click.Choice(["simple", "all"]), is_flag=False, flag_value="simple", default=None,
    help="Beside it: random, popularity, BM25, the cosines of pretrained encoders and the oracle; all: LambdaMART and "
    "a plain DNN on the same features, too, which takes minutes. Without a value: simple.",
)  # fmt: skip
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Write a page into this folder: curves, table, slices, ranked pictures. Implies --baselines simple.",
)
@click.option(
    "--ablate", "part", type=click.Choice(["masked", "retrained", "fusions", "all"]), is_flag=False, flag_value="all",
    default=None,
    help="Beside it: the ranker with each modality hidden (masked); trained anew without each (retrained); and with "
    "each other fusion (fusions). All but masked may take long: every ranker is a training like the first, into "
    "RUN/ablation; interrupted, the same command goes on. Without a value: all.",
)  # fmt: skip
@with_output
@with_plugins
def command(
    output: Output,
    run: Path,
    data: Path,
    split: str,
    k: int,
    gain: Any,
    empty: Any,
    baselines: str | None,
    report: Path | None,
    part: str | None,
) -> None:
    """Measure the ranker of the training folder RUN on the dataset DATA.

    Ties rank worst first. What the numbers rest on is printed with them.
    """
    from tfmmrank.data import Prepared
    from tfmmrank.runs import refuse_seen_queries

    prepared = Prepared.open(data)
    prepared.lists(split)  # an unknown split is told before TensorFlow is imported
    refuse_seen_queries(run, prepared, split)
    if part not in (None, "masked"):
        _check_recipe(run, prepared)  # and a run that cannot be trained anew

    from tfmmrank.evaluation import ablate, compare, fit_baselines, scores_of
    from tfmmrank.ranker import Ranker

    ranker = Ranker.load_ranker(run / "ranker")
    systems = {"model": scores_of(ranker, prepared, split, progress=output.progress)}
    others = []
    if baselines or report is not None:
        others = fit_baselines(prepared, ranker, progress=output.progress, systems=baselines or "simple")
        systems.update({baseline.name: baseline.scores(prepared, split) for baseline in others})
    if split == "valid" and baselines == "all":
        click.echo(
            "tfmmrank: warning: by the split valid the model's epoch and the baselines' settings were chosen; what the "
            "table says of it is no measurement",
            err=True,
        )
    table = compare(prepared, split, systems, k=k, gain=gain, empty=empty)
    _check_measured(table, prepared, split)
    chosen = {other.name: other.chosen for other in others if hasattr(other, "chosen")}
    found: dict[str, Any] = {**table.to_dict(), "chosen": {name: asdict(trial) for name, trial in chosen.items()}}
    text = "\n".join([str(table), *(f"{name}: {trial}" for name, trial in chosen.items())])
    ablation = None
    if part is not None:
        ablation = ablate(
            run, prepared, split, part, ranker=ranker, scores=systems["model"], progress=output.progress,
            say=output.say, k=k, gain=gain, empty=empty,
        )  # fmt: skip
        found["ablation"] = ablation.to_dict()
        text += f"\n\n{ablation}"
    if report is not None:
        notes = [f"{name} was chosen on the validation lists: {trial}." for name, trial in chosen.items()]
        page = report_page(report, prepared, table, systems, run, notes=notes, ablation=ablation)
        found["report"] = str(page)
        text += f"\nreport: {page}"
    output.result(found, text)


def _check_measured(table: Any, data: Any, split: str) -> None:
    if not table.per_query("model").used:
        raise ValueError(
            f'no query of split "{split}" of dataset {data.path} has a positive label: there is nothing to measure by'
        )


def _check_recipe(run: Path, data: Any) -> None:
    """Checks what an ablation is to train by, and says on stderr when the dataset is of another recipe."""
    from tfmmrank.cli.train import check_data
    from tfmmrank.evaluation.ablation import recipe_of

    check_data(recipe_of(run), data)


def baseline_scores(data: Any, split: str, progress: bool = False, seed: int = 0) -> dict[str, Any]:
    """Scores by the name of the baseline: the simple ones that the dataset allows without a ranker."""
    from tfmmrank.evaluation import fit_baselines

    return {found.name: found.scores(data, split) for found in fit_baselines(data, seed=seed, progress=progress)}


def read_history(run: Path) -> dict[str, list[float]] | None:
    """What ``fit`` left in the run's history.json, if it is there."""
    file = run / "history.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def report_page(
    folder: Path,
    data: Any,
    table: Any,
    systems: dict[str, Any],
    run: Path,
    title: str | None = None,
    notes: Sequence[str] = (),
    ablation: Any | None = None,
) -> Path:
    """Writes the report of the system ``model``; the look before is the best known baseline's."""
    from tfmmrank.evaluation.report import recipe_facts, write_report
    from tfmmrank.schema import RECIPE_FILE, Recipe

    before = next(name for name in BEFORE if name in systems)
    recipe = run / RECIPE_FILE
    return write_report(
        folder,
        title=title or f"{data.name}: ranking report",
        table=table,
        history=read_history(run),
        data=data,
        split=table.split,
        before=(before, systems[before]),
        after=("model", systems["model"]),
        notes=notes,
        ablation=ablation,
        facts=recipe_facts(Recipe.load(recipe)) if recipe.is_file() else None,
    )
