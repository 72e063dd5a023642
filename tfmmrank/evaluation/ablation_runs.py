"""Training an ablation's variants: each a run in a folder of its own, none trained twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmmrank.atomic import write_text
from tfmmrank.evaluation.scoring import scores_of
from tfmmrank.ranker import Ranker
from tfmmrank.runs import check_run, keep_recipe
from tfmmrank.schema import RECIPE_FILE, Recipe
from tfmmrank.training import build_ranker, fit
from tfmmrank.training.session import fresh_session

#: Tells, in an ablation's folder, which lists its rankers are trained on.
LISTS_FILE = "lists.sha256"
#: Stands in a variant's folder once it is trained.
FINISHED_FILE = "finished"


def claim(folder: Path, data: Any, recipes: Mapping[str, Recipe]) -> None:
    """Makes the folder of an ablation, or checks that what it holds can go on, before anything is trained.

    Args:
        folder: of all the variants.
        data: a ``Prepared`` dataset.
        recipes: of the variants, by their folders' names.

    Raises:
        ValueError: when it holds something else, or rankers trained on other lists or begun by other recipes.
    """
    file, lists = folder / LISTS_FILE, _lists_digest(data)
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder}: is not empty and holds no ablation ({LISTS_FILE} is missing); remove it")
        write_text(file, lists + "\n")
    elif file.read_text("utf-8").strip() != lists:
        raise ValueError(
            f"{folder}: its rankers are trained on other lists than {data.path} has for training and validation; "
            "remove it to train them anew"
        )
    for name, recipe in recipes.items():
        check_run(recipe, folder / name, cure=f"remove {folder / name} to train it anew")


def is_trained(recipe: Recipe, run: Path) -> bool:
    """Whether a variant's training came to its end by this very recipe."""
    if not (run / FINISHED_FILE).is_file():
        return False
    begun = Recipe.load(run / RECIPE_FILE)
    pairs = ((begun.model, recipe.model), (begun.train, recipe.train))
    return all(old.model_dump(mode="json") == new.model_dump(mode="json") for old, new in pairs)


def train_variant(recipe: Recipe, data: Any, run: Path, strategy: Any, progress: bool = False) -> None:
    """Trains a variant into a folder that is claimed, or goes on where that was interrupted.

    Args:
        recipe: the variant's.
        data: a ``Prepared`` dataset.
        run: its folder.
        strategy: a ``tf.distribute.Strategy``.
        progress: whether to show progress bars.

    Raises:
        FloatingPointError: when the loss is no longer finite.
    """
    with fresh_session():
        with strategy.scope():
            ranker = build_ranker(recipe, data, progress)
            (run / FINISHED_FILE).unlink(missing_ok=True)
            keep_recipe(recipe, run)
            fit(ranker, recipe.train, data, run, progress=progress)
        write_text(run / FINISHED_FILE, "")


def trained_scores(run: Path, data: Any, split: str, progress: bool = False) -> Any:
    """``scores_of`` a trained variant."""
    with fresh_session():
        return scores_of(Ranker.load_ranker(run / "ranker"), data, split, progress=progress)


def _lists_digest(data: Any) -> str:
    """Changes with the lists that training and early stopping see."""
    parts = [f"{split} {data.lists(split).digest()}" for split in ("train", "valid") if split in data.splits]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
