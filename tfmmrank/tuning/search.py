"""The search: trial after trial, each stopped where it falls behind."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from tqdm import tqdm

from tfmmrank.atomic import write_text
from tfmmrank.ranges import NO_RANGES
from tfmmrank.schema import RECIPE_FILE, Recipe, RecipeError
from tfmmrank.tuning.outcome import Outcome, describe, read_outcome, trial_folder
from tfmmrank.tuning.space import distributions, values_of
from tfmmrank.tuning.study import ended, next_trial, open_study

#: So many failures alike, and no trial that ever got further, and the search ends.
_HOPELESS = 3


def tune(
    recipe: Recipe,
    data: Any,
    out: str | Path,
    *,
    trials: int = 30,
    timeout: float | None = None,
    seed: int = 0,
    pruner: Any | None = None,
    progress: bool = True,
) -> Outcome:
    """Searches the ranges that a recipe declares under ``tune`` for the best NDCG@10 on the validation lists.

    A trial is a training by the recipe with some of its options changed; its value is the best validation NDCG@10 of
    its epochs. The first trial is the recipe as it is, where that is among what is searched; Optuna's TPE draws the
    others. All have the same ``train.seed``, so that they differ in their options alone. Test lists are never read.

    Called again with the same folder it goes on: killed trials are tried again, and what ended counts.
    ``keras.backend.clear_session`` is called before and after every trial.

    Args:
        recipe: with ``tune``.
        data: a ``Prepared`` dataset with the splits ``train`` and ``valid``.
        out: the study's folder: ``best.yaml`` is the winning recipe, ``trials.csv`` has all trials, ``trials/NNNN``
            are their runs, of which the best alone keeps its weights.
        trials: how many, all calls together.
        timeout: minutes after which this call begins no further trial; None: no limit.
        seed: of the search; not of the models.
        pruner: an Optuna pruner, told validation NDCG@10 by epoch; default: a trial that after three epochs has not
            reached the median of the trials before it ends, once five are complete.
        progress: whether to show a progress bar and a line a trial.

    Returns:
        The outcome of all trials in ``out``.

    Raises:
        RecipeError: when the recipe has no ranges, or ranges of options that there are not.
        ValueError: for a dataset without validation lists; when ``out`` holds something else or another search; when
            no trial came to anything.
    """
    out = Path(out)
    if not recipe.tune:
        raise RecipeError(NO_RANGES)
    if "valid" not in data.splits or not len(data.lists("valid")):
        raise ValueError(f"{data.path}: has no validation lists, by which trials are compared; prepare it with some")
    search = _Search(recipe, data, out, seed)
    with open_study(out, recipe, data, seed, pruner) as study:
        ends = math.inf if timeout is None else time.monotonic() + 60 * timeout
        done = len(ended(study))
        with tqdm(total=max(trials, done), initial=done, desc="trials", unit="trial", disable=not progress) as bar:
            while len(ended(study)) < trials and time.monotonic() < ends:
                number = search.run(study, bar)
                found = read_outcome(out, recipe, study)
                found.write()
                if progress:
                    bar.write(_line(found, number), file=sys.stderr)
                bar.update()
                _check_hope(found)
        found = read_outcome(out, recipe, study, importances=True)
        found.write()
    if found.best is None:
        raise ValueError(f"no trial came to an end: {_reasons(found)}")
    return found


class _Search:
    """Runs trials; imports TensorFlow with the first."""

    def __init__(self, recipe: Recipe, data: Any, out: Path, seed: int) -> None:
        self.recipe, self.data, self.out, self.seed = recipe, data, out, seed
        self.drawn_from = distributions(recipe.tune)
        self._strategy: Any = None

    def run(self, study: optuna.Study, bar: Any) -> int:
        """Runs the next trial and returns its number. Whatever ends the process leaves it to be tried again."""
        from tfmmrank.training import make_strategy
        from tfmmrank.tuning.trial import TrialError, check_options, train_trial

        if self._strategy is None:
            check_options(self.recipe)
            self._strategy = make_strategy()
        trial = next_trial(study, self.drawn_from, self.seed)
        bar.set_postfix_str(f"trial {trial.number}")

        def told(epoch: int, value: float, last: bool) -> None:
            trial.report(value, epoch)
            bar.set_postfix_str(f"trial {trial.number}, epoch {epoch + 1}: {value:.4f}")
            if not last and trial.should_prune():
                raise optuna.TrialPruned

        run = trial_folder(self.out, trial.number)
        try:
            recipe = self._recipe_of(trial)
            write_text(run / RECIPE_FILE, recipe.to_yaml())
            value = max(train_trial(recipe, self.data, run, self._strategy, told))
            if not math.isfinite(value):
                raise TrialError(f"validation NDCG@10 is {value}")
            study.tell(trial, value)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except (TrialError, RecipeError) as error:
            trial.set_user_attr("error", str(error))
            study.tell(trial, state=TrialState.FAIL)
        return trial.number

    def _recipe_of(self, trial: optuna.Trial) -> Recipe:
        """The trial's recipe. Raises RecipeError when its parts do not fit together."""
        recipe = self.recipe.with_values(values_of(self.recipe.tune, trial.params))
        wrong = [line for line in recipe.wrong_towers() if line not in self.recipe.wrong_towers()]
        if wrong:
            raise RecipeError("; ".join(wrong))
        return recipe


def _check_hope(found: Outcome) -> None:
    """Ends the search when trials fail alike and none ever got further. Raises ValueError."""
    counted = [trial for trial in found.trials if trial.state != "killed"]
    errors = [trial.error for trial in counted if trial.error]
    if len(errors) == len(counted) and len(errors) >= _HOPELESS and len(set(errors[-_HOPELESS:])) == 1:
        raise ValueError(f"all of {len(errors)} trials failed, the last {_HOPELESS} alike: {errors[-1]}")


def _reasons(found: Outcome) -> str:
    errors = list(dict.fromkeys(trial.error for trial in found.trials if trial.error))
    states = [trial.state for trial in found.trials]
    return "; ".join(errors[:3]) or f"{', '.join(states) or 'none was begun'}"


def _line(found: Outcome, number: int) -> str:
    trial = next(trial for trial in found.trials if trial.number == number)
    reached = f" {trial.value:.4f}" if trial.value is not None else ""
    told = f"trial {number}: {trial.state}{reached}, {trial.epochs} epochs, {trial.seconds or 0:.0f} s; "
    best = f"  (best {found.best.value:.4f}, trial {found.best.number})" if found.best is not None else ""
    return told + (trial.error or describe(trial.values)) + best
