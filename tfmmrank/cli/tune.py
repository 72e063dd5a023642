"""``tfmmrank tune``."""

from __future__ import annotations

from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output, with_plugins


@click.command("tune")
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--trials", type=click.IntRange(1), default=30, show_default=True, help="How many, earlier ones included."
)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=None, metavar="MINUTES",
    help="Begin no further trial after this time. Default: no limit.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True,
    help="Of the search. The models' is the recipe's train.seed, the same in all trials.",
)  # fmt: skip
@with_output
@with_plugins
def command(output: Output, recipe: Path, data: Path, out: Path, trials: int, timeout: float | None, seed: int) -> None:
    """Search the options that RECIPE declares under "tune" for the best validation NDCG@10 on the dataset DATA.

    OUT gets the winning recipe (best.yaml, to train with), all trials (trials.csv) and their runs (trials/). Killed or
    interrupted, the same command goes on. Needs the extra "tune".
    """
    from tfmmrank.ranges import NO_RANGES
    from tfmmrank.schema import Recipe, RecipeError

    loaded = Recipe.load(recipe)
    if not loaded.tune:
        raise RecipeError(f"{recipe}: {NO_RANGES}")

    from tfmmrank.cli.train import check_data
    from tfmmrank.data import Prepared
    from tfmmrank.tuning import tune

    prepared = Prepared.open(data)
    check_data(loaded, prepared)
    found = tune(loaded, prepared, out, trials=trials, timeout=timeout, seed=seed, progress=output.progress)
    output.result(found.to_dict(), str(found))
