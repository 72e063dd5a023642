"""``tfmmrank train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tfmmrank.cli.output import Output, with_output, with_plugins

RECIPE_FILE = "recipe.yaml"


@click.command("train")
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", type=int, default=None, help="Instead of the recipe's train.seed.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Instead of the recipe's train.epochs.")
@click.option(
    "--resume/--restart", default=True, show_default=True, help="Go on from RUN's last checkpoint, or start afresh."
)
@with_output
@with_plugins
def command(
    output: Output, recipe: Path, data: Path, run: Path, seed: int | None, epochs: int | None, resume: bool
) -> None:
    """Train the ranker that RECIPE describes on the dataset DATA, into the folder RUN.

    RUN gets the best epoch's ranker (ranker/), history.json, TensorBoard logs (tensorboard/) and checkpoints. Killed or
    interrupted, the same command goes on from the last checkpoint.
    """
    from tfmmrank.data import Prepared
    from tfmmrank.schema import Recipe

    chosen = {"seed": seed, "epochs": epochs}
    loaded = Recipe.load(recipe)
    train = loaded.train.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    loaded = loaded.model_copy(update={"train": train})
    prepared = Prepared.open(data)
    keep_recipe(loaded, run, resume)

    from tfmmrank.training import build_ranker, fit, make_strategy

    with make_strategy().scope():
        ranker = build_ranker(loaded, prepared)
        history = fit(ranker, loaded.train, prepared, run, resume=resume, progress=output.progress)
    best = best_epoch(history)
    output.result({"run": str(run), **best}, f"{run}: {describe_best(best)}")


def keep_recipe(recipe: Any, run: Path, resume: bool) -> None:
    """Writes the recipe into the run, with absolute paths.

    Raises:
        ValueError: when resuming a run whose recipe had another model or other training options; more epochs are fine.
    """
    import yaml

    from tfmmrank.atomic import write_text
    from tfmmrank.schema import Recipe

    file = run / RECIPE_FILE
    if resume and file.is_file():
        before = Recipe.load(file)
        for part, old, new in (("model", before.model, recipe.model), ("train", before.train, recipe.train)):
            old_values, new_values = old.model_dump(mode="json"), new.model_dump(mode="json")
            changed = [key for key in new_values if old_values.get(key) != new_values[key] and key != "epochs"]
            if changed:
                raise ValueError(
                    f"{file}: this run was begun with another {part}.{changed[0]} ({old_values.get(changed[0])!r}, now "
                    f"{new_values[changed[0]]!r}); pass --restart to begin it again, or choose another folder"
                )
    run.mkdir(parents=True, exist_ok=True)
    content = _plain(recipe.model_dump(exclude={"root"}, exclude_none=True), recipe)
    write_text(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _plain(value: Any, recipe: Any) -> Any:
    """YAML values; paths made absolute, since the run's folder is not the recipe's."""
    if isinstance(value, Path):
        return str(recipe.path(value))
    if isinstance(value, dict):
        return {key: _plain(part, recipe) for key, part in value.items()}
    return [_plain(part, recipe) for part in value] if isinstance(value, (list, tuple)) else value


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
