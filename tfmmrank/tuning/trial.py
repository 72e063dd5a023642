"""One trial: a ranker trained by one recipe, told of after each epoch, and forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmmrank.data import DataError
from tfmmrank.fusion import fusions
from tfmmrank.schema import Recipe, RecipeError, TowerConfig
from tfmmrank.stack import keras, tf
from tfmmrank.towers import towers
from tfmmrank.training import build_ranker, fit
from tfmmrank.training.build import check_option
from tfmmrank.training.session import fresh_session

WATCHED = "val_ndcg@10"


class TrialError(Exception):
    """A trial that came to nothing, in words; others may fare better."""


def train_trial(
    recipe: Recipe, data: Any, run: Path, strategy: Any, told: Callable[[int, float, bool], None]
) -> list[float]:
    """Trains one recipe into a folder, and gives the memory back.

    Args:
        recipe: of this trial.
        data: a ``Prepared`` dataset.
        run: the trial's folder, a run like any other.
        strategy: a ``tf.distribute.Strategy``.
        told: called after each epoch with its number from 0 on, its validation NDCG@10, and whether it is the last;
            what it raises ends the trial.

    Returns:
        Validation NDCG@10 by epoch.

    Raises:
        TrialError: when the loss is no longer finite, the recipe's parts do not fit together, or memory is short.
    """
    try:
        with fresh_session(), strategy.scope():
            ranker = build_ranker(recipe, data, progress=False)
            watcher = _Watcher(told)
            return fit(ranker, recipe.train, data, run, resume=False, progress=False, callbacks=[watcher])[WATCHED]
    except DataError:
        raise  # nothing that another trial could do better
    except (FloatingPointError, ValueError, tf.errors.ResourceExhaustedError) as error:
        raise TrialError(_in_one_line(error)) from error


def check_options(recipe: Recipe) -> None:
    """Checks the tuned options of towers and fusions against their classes, which the recipe's schema does not know.

    Raises:
        RecipeError: for a kind that there is not, an option that no kind in question takes, or a value of another type.
    """
    places = {f"model.towers.{name}": (towers, tower.kind) for name, tower in recipe.model.towers.items()}
    places["model.fusion"] = (fusions, recipe.model.fusion.kind)
    for place, (registry, kind) in places.items():
        tuned_kind = recipe.tune.get(f"{place}.kind")
        kinds = tuned_kind.samples() if tuned_kind is not None else [kind]
        for key, values in recipe.tune.items():
            parent, _, option = key.rpartition(".")
            for value in values.samples() if parent == place else ():
                try:
                    if option == "kind":
                        registry[value]
                    elif option not in TowerConfig.model_fields:  # the schema has seen to those
                        _check_sample(registry, kinds, option, value)
                except ValueError as error:
                    raise RecipeError(f"tune.{key}: {error}") from error


def _check_sample(registry: Any, kinds: list[str], option: str, value: Any) -> None:
    """Checks a value against the kinds that it may meet: one that takes it is enough."""
    errors = []
    for kind in kinds:
        try:
            return check_option(registry, kind, option, value)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


class _Watcher(keras.callbacks.Callback):
    def __init__(self, told: Callable[[int, float, bool], None]) -> None:
        super().__init__()
        self.told = told

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Passes the epoch on; early stopping, which ran before, has said whether it is the last."""
        last = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        self.told(epoch, float((logs or {})[WATCHED]), last)


def _in_one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if lines[0].startswith("in user code") else "; ".join(lines)
