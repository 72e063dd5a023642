"""An Optuna study in a folder: begun once, gone on with after a kill, refused to another search."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from tfmmrank.atomic import write_text
from tfmmrank.schema import Recipe
from tfmmrank.tuning.space import own_params

STUDY_FILE = "study.json"
STORAGE_FILE = "study.db"
FORMAT = 1
_NAME = "tfmmrank"
#: How often a trial is begun that is killed each time: perhaps it is the trial that kills, by its memory.
MOST_TRIES = 3


@contextlib.contextmanager
def open_study(out: Path, recipe: Recipe, data: Any, seed: int, pruner: Any | None = None) -> Iterator[optuna.Study]:
    """Opens the study in a folder, or begins it there with the recipe's own values as the first trial.

    Trials that were running when their process was killed are ended, and queued to be tried again.

    Args:
        out: the study's folder; its database is ``study.db``, what it searches stands in ``study.json``.
        recipe: with the ranges.
        data: a ``Prepared`` dataset.
        seed: of the search.
        pruner: Optuna's; default: the median of the trials so far, after five trials, after three epochs.

    Raises:
        ValueError: when the folder holds something else, another search that got somewhere, or one that is at work.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / STUDY_FILE).is_file():
        raise ValueError(f"{out}: is not empty and holds no study ({STUDY_FILE} is missing); choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    verbosity = optuna.logging.get_verbosity()
    with _alone(out):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if not (out / STUDY_FILE).is_file():
            _write_note(out, recipe, data, seed)
        storage = _storage(out / STORAGE_FILE)
        try:
            yield _study_of(out, storage, recipe, data, seed, pruner)
        finally:
            storage.remove_session()
            storage.engine.dispose()
            optuna.logging.set_verbosity(verbosity)


def _study_of(out: Path, storage: Any, recipe: Recipe, data: Any, seed: int, pruner: Any) -> optuna.Study:
    options: dict[str, Any] = {
        "storage": storage,
        "study_name": _NAME,
        "direction": "maximize",
        "load_if_exists": True,
        "pruner": pruner or optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
    }
    study = optuna.create_study(**options)
    another = _another(out / STUDY_FILE, recipe, data, seed)
    if another:
        if _got_somewhere(study):
            raise ValueError(f"{out / STUDY_FILE}: {another}; choose another folder")
        # Of a study that came to nothing, by a mistake in its recipe perhaps, there is nothing to keep.
        optuna.delete_study(study_name=_NAME, storage=storage)
        shutil.rmtree(out / "trials", ignore_errors=True)
        study = optuna.create_study(**options)
        _write_note(out, recipe, data, seed)
    own = own_params(recipe)
    if own and not study.get_trials(deepcopy=False):
        study.enqueue_trial(own)
    _end_killed(study)
    return study


def next_trial(study: optuna.Study, drawn_from: Mapping[str, BaseDistribution], seed: int) -> optuna.Trial:
    """The next trial: a queued one, or one drawn by TPE.

    The draw depends on the seed and the trials that ended, so that a study that was killed tries what it would have.
    """
    state = np.random.SeedSequence([seed, len(ended(study))]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(state))
    return study.ask(dict(drawn_from))


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: those that ended, without the killed ones that are tried again."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("retry_of") for trial in trials}
    return [trial for trial in trials if trial.state.is_finished() and trial.number not in again]


def _end_killed(study: optuna.Study) -> None:
    """Ends trials that nobody trains any more, and queues their parameters. Killed in between, it does so once."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    retried = {trial.user_attrs.get("retry_of") for trial in trials.values()}
    for number, trial in trials.items():
        if trial.state != TrialState.RUNNING:
            continue
        if number not in retried and _tries(trials, trial) < MOST_TRIES:
            # Where the kill came before all were drawn: those that had been chosen.
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            study.enqueue_trial(params, user_attrs={"retry_of": number})
        study.tell(number, state=TrialState.FAIL)


def _tries(trials: Mapping[int, FrozenTrial], trial: FrozenTrial) -> int:
    """How often a trial was begun, this time included."""
    before = trial.user_attrs.get("retry_of")
    return 1 if before is None else 1 + _tries(trials, trials[before])


def _got_somewhere(study: optuna.Study) -> bool:
    return any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in study.get_trials(deepcopy=False))


def _note(recipe: Recipe, data: Any, seed: int) -> dict[str, Any]:
    """What makes a search this one, as JSON values."""
    parts = recipe.model_dump(mode="json", exclude={"root", "data"})
    return json.loads(json.dumps({"format": FORMAT, "build": data.build, "seed": seed, **parts}))


def _write_note(out: Path, recipe: Recipe, data: Any, seed: int) -> None:
    write_text(out / STUDY_FILE, json.dumps(_note(recipe, data, seed), indent=1, ensure_ascii=False))


def _another(file: Path, recipe: Recipe, data: Any, seed: int) -> str | None:
    """What differs from the note of the study begun, in words; None when nothing does."""
    try:
        begun = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        return f"is damaged ({error})"
    if begun.get("format") != FORMAT:
        return f"has format {begun.get('format')}, and this version reads {FORMAT}"
    now = _note(recipe, data, seed)
    if begun["build"] != now["build"]:
        return f"this study was begun on another dataset, or before {data.path} was prepared again"
    old, new = _flat(begun), _flat(now)
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            return f"this study was begun with another {key} ({old.get(key)!r}, now {new.get(key)!r})"
    return None


def _flat(note: dict[str, Any]) -> dict[str, Any]:
    parts = {f"{part}.{key}": value for part in ("model", "train", "tune") for key, value in note[part].items()}
    return {**parts, "--seed": note["seed"]}


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds the folder's lock. Raises ValueError when another process does."""
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"{out}: another search is at work here; wait for it, or choose another folder"
                ) from error
        yield
    finally:
        os.close(descriptor)


def _storage(file: Path) -> Any:
    """Optuna's storage in an SQLite file: what a kill interrupts is as if it had not begun."""
    url = URL.create("sqlite", database=str(file.resolve())).render_as_string()
    try:
        return optuna.storages.RDBStorage(url)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:  # Runtime: by its version
        why = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{file}: cannot be read ({why}); choose another folder") from error
