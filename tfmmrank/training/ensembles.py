"""Training an ensemble: one ranker a seed, each resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfmmrank.atomic import replace_directory
from tfmmrank.ensemble import Ensemble
from tfmmrank.ranker import Ranker
from tfmmrank.runs import MEMBERS, check_run, keep_queries, keep_recipe
from tfmmrank.schema import Recipe
from tfmmrank.training.build import build_ranker
from tfmmrank.training.fit import fit
from tfmmrank.training.session import fresh_session
from tfmmrank.training.strategies import make_strategy


def fit_ensemble(
    recipe: Recipe, data: Any, run: str | Path, members: int, *, resume: bool = True, progress: bool = True
) -> tuple[Ensemble, list[dict[str, list[float]]]]:
    """Trains a recipe from several seeds, and leaves the ensemble under ``run/ranker``.

    Member k has the recipe's seed plus k and its run in ``run/members/k``. Interrupted, the same call goes on; called
    for more members, it trains those that are new. ``keras.backend.clear_session`` is called around every training,
    which is under ``make_strategy``'s scope.

    Args:
        recipe: the recipe.
        data: a ``Prepared`` dataset with a split ``train``, and ``valid`` for early stopping.
        run: the ensemble's folder.
        members: how many, at least 2.
        resume: whether to go on with what the folder holds; False starts all afresh.
        progress: whether to show progress bars.

    Returns:
        The ensemble, and each member's history as ``fit`` gives it.

    Raises:
        ValueError: for fewer than two members, or a folder of other trainings.
        FloatingPointError: when a loss is no longer finite.
    """
    if members < 2:
        raise ValueError(f"an ensemble of {members} rankers; expected at least 2")
    run, histories = Path(run), []
    recipes = [recipe.with_train(seed=recipe.train.seed + number) for number in range(members)]
    folders = [run / MEMBERS / str(number) for number in range(members)]
    for each, folder in zip(recipes, folders, strict=True):
        check_run(each, folder, resume)
    keep_recipe(recipe, run)
    (run / "history.json").unlink(missing_ok=True)  # of a ranker trained here before
    strategy = make_strategy()
    for each, folder in zip(recipes, folders, strict=True):
        with fresh_session(), strategy.scope():
            ranker = build_ranker(each, data, progress)
            keep_recipe(each, folder)
            histories.append(fit(ranker, each.train, data, folder, resume=resume, progress=progress))
    ensemble = Ensemble([Ranker.load_ranker(folder / "ranker") for folder in folders]).build_from_columns()
    with replace_directory(run / "ranker") as aside:
        ensemble.save_ranker(aside)
    keep_queries(run, data)
    return ensemble, histories
