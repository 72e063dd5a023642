"""What a search found: the trials, the best of them, its recipe."""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tfmmrank.atomic import write_text
from tfmmrank.ranges import label
from tfmmrank.schema import RECIPE_FILE, Recipe
from tfmmrank.tuning.space import values_of

BEST_FILE = "best.yaml"
TRIALS_FILE = "trials.csv"
#: What stays of a trial that is not the best.
_KEPT = (RECIPE_FILE, "history.json", "tensorboard")
#: With fewer complete trials, importances say more of the draw than of the options.
_ENOUGH = 10
_SHOWN, _WIDTH = 5, 16


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: from 0 on; its folder is ``trials/NNNN``.
        state: ``complete``, ``pruned``, ``failed``, ``killed`` (and tried again under another number) or ``running``.
        value: best validation NDCG@10 of its epochs; a pruned one's up to there.
        values: the recipe's values tried, by dotted key.
        epochs: epochs trained.
        seconds: how long it took; None where that is not known.
        error: why it failed.
    """

    number: int
    state: str
    value: float | None
    values: dict[str, Any]
    epochs: int
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class Outcome:
    """What a search found so far.

    Attributes:
        out: the study's folder.
        recipe: what was searched.
        trials: by number.
        importances: share of an option in how the values vary (fANOVA), by dotted key; empty for few trials.
    """

    out: Path
    recipe: Recipe
    trials: list[Tried]
    importances: dict[str, float] = field(default_factory=dict)

    @property
    def ranked(self) -> list[Tried]:
        """The complete trials, best first; of equals, the earlier."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))

    @property
    def best(self) -> Tried | None:
        """The trial that won; None while none is complete."""
        return next(iter(self.ranked), None)

    @property
    def best_file(self) -> Path:
        """The winning recipe's file."""
        return self.out / BEST_FILE

    def write(self) -> None:
        """Writes ``trials.csv`` and ``best.yaml``, and removes the weights of trials that are not the best."""
        write_text(self.out / TRIALS_FILE, self._csv())
        if self.best is not None:
            found = f"# Found by tfmmrank tune: trial {self.best.number}, validation NDCG@10 {self.best.value:.4f}.\n"
            write_text(self.best_file, found + self.recipe.with_values(self.best.values).to_yaml())
        for trial in self.trials:
            if trial is not self.best:
                _strip(trial_folder(self.out, trial.number))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        best = self.best
        return {
            "out": str(self.out),
            "best": None if best is None else {**asdict(best), "run": str(trial_folder(self.out, best.number))},
            "recipe": None if best is None else str(self.best_file),
            "states": dict(Counter(trial.state for trial in self.trials)),
            "importances": self.importances,
            "trials": [asdict(trial) for trial in self.trials],
        }

    def __str__(self) -> str:
        best = self.best
        states = Counter(trial.state for trial in self.trials)
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        lines = [f"{self.out}: {counts}", *self._failures()]
        if best is not None:
            lines += ["", *self._table(), "", f"{self.best_file}: trial {best.number}, val_ndcg@10 {best.value:.4f}"]
        return "\n".join(lines)

    def _failures(self) -> list[str]:
        """One line a kind of failure, the most frequent first."""
        counts = Counter(trial.error for trial in self.trials if trial.error)
        return [f"  failed {count}×: {error}" for error, count in counts.most_common(3)]

    def _table(self) -> list[str]:
        """The best trials side by side, an option a row: options may be many, and their keys are long."""
        shown = self.ranked[:_SHOWN]
        rows = [["trial", *(str(trial.number) for trial in shown)]]
        rows.append(["val_ndcg@10", *(f"{trial.value:.4f}" for trial in shown)])
        rows.append(["epochs", *(str(trial.epochs) for trial in shown)])
        rows.append(["seconds", *(f"{trial.seconds:.0f}" if trial.seconds is not None else "" for trial in shown)])
        rows += [[key, *(_short(trial.values.get(key)) for trial in shown)] for key in self.recipe.tune]
        if self.importances:
            share = ["importance", "", "", "", *(f"{self.importances.get(key, 0.0):.2f}" for key in self.recipe.tune)]
            rows = [[*row, cell] for row, cell in zip(rows, share, strict=True)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return ["  ".join(_cells(row, widths)).rstrip() for row in rows]

    def _csv(self) -> str:
        keys = list(self.recipe.tune)
        file = io.StringIO()
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["number", "state", "val_ndcg@10", *keys, "epochs", "seconds", "error"])
        for trial in self.trials:
            values = [label(trial.values[key]) if key in trial.values else "" for key in keys]
            seconds = None if trial.seconds is None else round(trial.seconds, 1)
            table.writerow([trial.number, trial.state, trial.value, *values, trial.epochs, seconds, trial.error])
        return file.getvalue()


def read_outcome(out: Path, recipe: Recipe, study: optuna.Study, importances: bool = False) -> Outcome:
    """What a study holds; with importances, where there are enough trials."""
    trials = [_tried(trial, recipe) for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    found = Outcome(out, recipe, trials)
    if importances and len(found.ranked) >= _ENOUGH and len({trial.value for trial in found.ranked}) > 1:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        found = Outcome(out, recipe, trials, {key: float(share) for key, share in shares.items()})
    return found


def trial_folder(out: Path, number: int) -> Path:
    """Where a trial trains."""
    return out / "trials" / f"{number:04d}"


def _tried(trial: FrozenTrial, recipe: Recipe) -> Tried:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}
    error = trial.user_attrs.get("error")
    state = states.get(trial.state, "failed" if error else "killed")
    reached = list(trial.intermediate_values.values())
    return Tried(
        number=trial.number,
        state=state,
        value=trial.value if state == "complete" else max(reached) if state == "pruned" and reached else None,
        values=values_of(recipe.tune, trial.params),
        epochs=len(reached),
        seconds=trial.duration.total_seconds() if trial.duration and state not in ("killed", "running") else None,
        error=error,
    )


def _strip(folder: Path) -> None:
    """Removes the weights of a trial: its checkpoints and its ranker."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in _KEPT:
            shutil.rmtree(path, ignore_errors=True)


def _short(value: Any) -> str:
    """A value for people: of a mapping, its values alone."""
    if isinstance(value, dict):
        text = "{" + ", ".join(_short(part) for part in value.values()) + "}"
    else:
        text = f"{value:.3g}" if isinstance(value, float) else label(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def describe(values: Mapping[str, Any]) -> str:
    """A trial's values in one line."""
    return ", ".join(f"{key} {_short(value)}" for key, value in values.items())
