"""``tfmmrank train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tfmmrank.cli.output import Output, with_output, with_plugins

_HOW_TO_READ = ("on_bad_row", "max_image_pixels", "chunk_rows")  # of a recipe's data part; the rest says what to read


@click.command("train")
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", type=int, default=None, help="Instead of the recipe's train.seed.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Instead of the recipe's train.epochs.")
@click.option(
    "--members", default=1, show_default=True, type=click.IntRange(1),
    help="Train an ensemble of so many rankers, of consecutive seeds (RUN/members); their mean score ranks.",
)  # fmt: skip
@click.option(
    "--resume/--restart", default=True, show_default=True, help="Go on from RUN's last checkpoint, or start afresh."
)
@with_output
@with_plugins
def command(
    output: Output,
    recipe: Path,
    data: Path,
    run: Path,
    seed: int | None,
    epochs: int | None,
    members: int,
    resume: bool,
) -> None:
    """Train the ranker that RECIPE describes on the dataset DATA, into the folder RUN.

    RUN gets the best epoch's ranker (ranker/), history.json, TensorBoard logs (tensorboard/) and checkpoints. Killed or
    interrupted, the same command goes on from the last checkpoint.
    """
    from tfmmrank.data import Prepared
    from tfmmrank.runs import check_run, keep_recipe
    from tfmmrank.schema import Recipe, RecipeError

    loaded = Recipe.load(recipe).with_train(seed=seed, epochs=epochs)
    prepared = Prepared.open(data)
    check_data(loaded, prepared)
    check_run(loaded, run, resume)

    from tfmmrank.training import build_ranker, fit, fit_ensemble, make_strategy

    try:
        if members > 1:
            _, histories = fit_ensemble(loaded, prepared, run, members, resume=resume, progress=output.progress)
        else:
            with make_strategy().scope():
                ranker = build_ranker(loaded, prepared, output.progress)
                keep_recipe(loaded, run)
                histories = [fit(ranker, loaded.train, prepared, run, resume=resume, progress=output.progress)]
    except RecipeError as error:
        raise RecipeError(f"{recipe}: {error}") from error
    if members > 1:
        kept = [best_epoch(history) for history in histories]
        lines = [f"{run}: an ensemble", *(f"  member {k}: {describe_best(best)}" for k, best in enumerate(kept))]
        output.result({"run": str(run), "members": kept}, "\n".join(lines))
        return
    best = best_epoch(histories[0])
    output.result({"run": str(run), **best}, f"{run}: {describe_best(best)}")


def check_data(recipe: Any, data: Any) -> None:
    """Says on stderr when the dataset was prepared by another recipe."""
    from tfmmrank.schema import plain

    parts = (recipe.data.model_validate(data.meta["data"]), recipe.data)
    # File names alone: a dataset does not say where its paths start.
    before, now = (plain(part, lambda path: path.name) for part in parts)
    changed = [
        key for key in type(recipe.data).model_fields if key not in _HOW_TO_READ and before.get(key) != now.get(key)
    ]
    if changed:
        click.echo(
            f"tfmmrank: warning: {data.path} was prepared by a recipe with another data.{changed[0]}; prepare it again "
            "if that matters",
            err=True,
        )


def best_epoch(history: dict[str, list[float]]) -> dict[str, Any]:
    """The epoch whose weights were kept and its figures; the last one where there was no validation."""
    watched = history.get("val_ndcg@10")
    epochs = len(history.get("loss", []))
    best = max(range(len(watched)), key=lambda epoch: watched[epoch]) if watched else epochs - 1
    return {"epochs": epochs, "best_epoch": best + 1, **{name: values[best] for name, values in history.items()}}


def describe_best(best: dict[str, Any]) -> str:
    """One line about the epoch kept."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in best.items() if isinstance(value, float))
    return f"kept epoch {best['best_epoch']} of {best['epochs']}: {figures}"
