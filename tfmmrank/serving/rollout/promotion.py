"""Canary promotion by labels: moving ``stable`` or ``canary`` to another version in ``models.config``, and back.

TensorFlow Serving checks labels before it loads anything, and refuses the whole configuration when a label's version is
not AVAILABLE. A running server is therefore brought there in two steps: both versions, then the label. The same two
steps go to the file, so that a server that polls it sees the same; when a step fails, file and server get the
configuration back that was there.

A request without a label goes to the highest version that is loaded, which with a canary is the canary: clients that
should be spared ask for ``stable``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfmmrank.export.versions import versions_of
from tfmmrank.serving.rollout.model_service import AVAILABLE, ModelService, ModelServiceError
from tfmmrank.serving.rollout.models_file import ModelsFile
from tfmmrank.serving.rollout.promotion_history import History, change_of, set_state, state_of


@dataclass(frozen=True)
class Promotion:
    """What a promotion, or its rollback, made.

    Attributes:
        model: the model's name.
        label: the label that moved; None where a version was only loaded.
        version: where it stands now; None where it is gone.
        previous: where it stood; None where it was new.
        labels: the model's labels now.
        versions: those that a server keeps loaded; empty where the file leaves that to the folder.
        reloaded: whether a running server has taken it.
        lost_comments: whether the file had comments that could not be kept.
    """

    model: str
    label: str | None
    version: int | None
    previous: int | None
    labels: dict[str, int]
    versions: list[int]
    reloaded: bool
    lost_comments: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def promote(
    config_file: str | Path,
    model: str,
    version: int,
    label: str | None = None,
    server: ModelService | None = None,
    base_path: str | Path | None = None,
    timeout: float = 300.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Promotion:
    """Moves a label to a version and keeps loaded, by the ``specific`` policy, what is needed.

    That is every version with a label, the new one, and the one that the label leaves, so that the way back is short;
    and, where the model had no labels yet, what it served before.

    Args:
        config_file: ``models.config``.
        model: the model's name in it.
        version: where the label goes.
        label: ``stable``, ``canary`` or any other; None only has the version loaded.
        server: a running server to bring there; None changes the file alone.
        base_path: the model's folder on this machine, where the file's ``base_path`` is another machine's.
        timeout: seconds that the server may take to load the version.
        tell: called with what is going on.

    Raises:
        OSError: when the file cannot be read or written.
        ValueError: for a model that the file does not have, or a version that is not in its folder.
        ModelServiceError: when the server refuses; the file is then as it was.
    """
    file = ModelsFile(config_file)
    current = file.model(model)
    _check_version(current, version, base_path, server)
    target = file.config.__class__()
    target.CopyFrom(file.config)
    entry = file.model(model, target)
    previous = current.version_labels.get(label) if label else None
    if label:
        entry.version_labels[label] = version
    keep = {version, *entry.version_labels.values(), *([previous] if previous else [])}
    if not current.version_labels:
        keep |= _served(current, base_path, server)
    _pin(entry, keep)
    reloaded = _bring(file, target, model, {version}, server, timeout, tell)
    if entry != current:
        History(file.path).append(change_of(label, version, current, entry))
    return _outcome(file, entry, label, version, previous, reloaded)


def rollback(
    config_file: str | Path,
    model: str,
    label: str | None = None,
    server: ModelService | None = None,
    timeout: float = 300.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Promotion:
    """Takes the model's latest promotion back: labels and versions are as before it.

    Args:
        config_file: ``models.config``.
        model: the model's name in it.
        label: where given, it must be the one that the latest promotion moved.
        server: a running server to bring there; None changes the file alone.
        timeout: seconds that the server may take to load what it no longer has.
        tell: called with what is going on.

    Raises:
        OSError: when a file cannot be read or written.
        ValueError: when there is nothing to take back, it moved another label, or the file was changed since.
        ModelServiceError: when the server refuses; the file is then as it was.
    """
    file = ModelsFile(config_file)
    current = file.model(model)
    history = History(file.path)
    change = history.latest(model, label)
    if state_of(current) != change["after"]:
        raise ValueError(
            f'{file.path}: model "{model}" was changed since its latest promotion in {history.path}; edit it by '
            "hand, or promote the version that you want back"
        )
    target = file.config.__class__()
    target.CopyFrom(file.config)
    entry = file.model(model, target)
    set_state(entry, change["before"])
    reloaded = _bring(file, target, model, (), server, timeout, tell)
    history.remove(change)
    label = change["label"]
    version = entry.version_labels.get(label) if label else None
    return _outcome(file, entry, label, version, current.version_labels.get(label) if label else None, reloaded)


def _bring(
    file: ModelsFile,
    target: Any,
    model: str,
    versions: Collection[int],
    server: ModelService | None,
    timeout: float,
    tell: Callable[[str], None],
) -> bool:
    """Makes the target the file's and the server's configuration; returns whether there was a server."""
    if server is None:
        file.write(target)
        return False
    both = _both(file, target, model)
    file.write(both)
    try:
        server.reload(both)
        server.wait_available(model, {*versions, *file.model(model, target).version_labels.values()}, timeout, tell)
        file.write(target)
        server.reload(target)
    except BaseException as error:
        try:
            file.restore()
        finally:
            _take_back(server, file.config, error)
        raise
    return True


def _both(file: ModelsFile, target: Any, model: str) -> Any:
    """The target's versions beside the present ones, with the present labels: what a server always accepts."""
    both = file.config.__class__()
    both.CopyFrom(file.config)
    wanted = _pinned(file.model(model, target))
    if wanted:
        _pin(file.model(model, both), wanted | _pinned(file.model(model)))
    return both


def _take_back(server: ModelService, config: Any, error: BaseException) -> None:
    """Gives a server its old configuration again, and says so in the error that made it necessary."""
    try:
        server.reload(config)
        outcome = "the file is as it was, and the server was told to go back"
    except ModelServiceError as second:
        why = "" if str(second) == str(error) else f": {second}"
        outcome = f"the file is as it was; the server could not be told to go back{why}"
    if isinstance(error, ModelServiceError):
        error.args = (f"{error}; {outcome}",)


def _check_version(entry: Any, version: int, base_path: str | Path | None, server: ModelService | None) -> None:
    """Whether the version is there, as far as it can be seen from here."""
    folder = Path(base_path or entry.base_path)
    if folder.is_dir():
        known = versions_of(folder)
        if version not in known:
            raise ValueError(f"{folder}: has no version {version}; versions: {', '.join(map(str, known)) or 'none'}")
    elif base_path is not None:
        raise ValueError(f'{folder}: is no folder; expected the one that holds the versions of "{entry.name}"')
    elif server is None:
        raise ValueError(
            f'{folder}: the base_path of "{entry.name}" is not on this machine; say where it is (--base-path), or give '
            "a running server (--address)"
        )


def _served(entry: Any, base_path: str | Path | None, server: ModelService | None) -> set[int]:
    """The versions that the model is served in."""
    if _pinned(entry):
        return _pinned(entry)
    if server is not None:
        return {number for number, status in server.versions(entry.name).items() if status.state == AVAILABLE}
    known = versions_of(base_path or entry.base_path)
    policy = entry.model_version_policy
    return set(known if policy.HasField("all") else known[-(policy.latest.num_versions or 1) :])


def _pinned(entry: Any) -> set[int]:
    return set(entry.model_version_policy.specific.versions)


def _pin(entry: Any, versions: Collection[int]) -> None:
    entry.model_version_policy.Clear()
    entry.model_version_policy.specific.versions.extend(sorted(versions))


def _outcome(
    file: ModelsFile, entry: Any, label: str | None, version: int | None, previous: int | None, reloaded: bool
) -> Promotion:
    labels = dict(sorted(entry.version_labels.items()))
    return Promotion(
        entry.name, label, version, previous, labels, sorted(_pinned(entry)), reloaded, file.loses_comments
    )
