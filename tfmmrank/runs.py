"""The folder of a training: the recipe that it holds, and whether another recipe may go on in it. No TensorFlow."""

from __future__ import annotations

from pathlib import Path

from tfmmrank.atomic import write_text
from tfmmrank.schema import RECIPE_FILE, Recipe

#: The folder of the members' runs, in an ensemble's run.
MEMBERS = "members"
RESTART = "pass --restart to begin it again, or choose another folder"


def check_run(recipe: Recipe, run: Path, resume: bool = True, cure: str = RESTART) -> None:
    """Checks that a folder is free, or holds a run to go on with.

    Args:
        recipe: to train by.
        run: the folder.
        resume: whether to go on from its last checkpoint.
        cure: what to do about a run of another recipe, for the message.

    Raises:
        ValueError: when the folder holds something other than a run, or, resuming, a run whose recipe had another model
            or other training options; more epochs are fine.
    """
    file = run / RECIPE_FILE
    if not file.is_file():
        if run.is_dir() and any(run.iterdir()):
            raise ValueError(f"{run}: is not empty and holds no run ({RECIPE_FILE} is missing); choose another folder")
        return
    if not resume or not (run / "checkpoints" / "checkpoint").is_file():  # nothing to go on from
        return
    begun = Recipe.load(file)
    for part, old, new in (("model", begun.model, recipe.model), ("train", begun.train, recipe.train)):
        old_values, new_values = old.model_dump(mode="json"), new.model_dump(mode="json")
        differing = [key for key in new_values if old_values.get(key) != new_values[key] and key != "epochs"]
        if differing:
            raise ValueError(
                f"{file}: this run was begun with another {part}.{differing[0]} ({old_values.get(differing[0])!r}, now "
                f"{new_values[differing[0]]!r}); {cure}"
            )


def keep_recipe(recipe: Recipe, run: Path) -> None:
    """Writes the recipe into the run, with absolute paths: the run's folder is not the recipe's."""
    write_text(run / RECIPE_FILE, recipe.to_yaml())
