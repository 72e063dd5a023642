"""Loads, warms, swaps and unloads the versions of models, while requests go on."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tfmmrank.export.graph_loading import Way
from tfmmrank.export.request_error import RequestError
from tfmmrank.export.versions import version_folders
from tfmmrank.serving.server.loaded_version import LoadedVersion, VersionState, load_warm
from tfmmrank.serving.server.model_config import ModelConfig

T = TypeVar("T")
_log = logging.getLogger("tfmmrank.serving")


class _StoppedError(Exception):
    """The server stops: a load is given up."""


class _Failure(NamedTuple):
    """Why a version could not be loaded, and from what."""

    directory: Path
    files: frozenset[tuple[str, str, int, int]]
    error: Exception


class ModelManager:
    """Keeps the versions loaded that the models' policies ask for.

    A new version is loaded and warmed before an old one goes, so that the model is always there and no request waits.
    A version that cannot be loaded is reported and left alone, until a file of its folder changes or a reload asks for
    it again. A version that goes first finishes the requests that hold it.

    Args:
        load: makes a servable of a version's folder; makes the calls that take long in the way that it is given.
        poll_seconds: how often the models' folders are looked into; 0: at start and at a reload only.
        allow_labels_for_unavailable: whether a new label may name a version that is not AVAILABLE (yet).

    Attributes:
        on_change: functions called with (model, version, state) at each change of a version's state.
        on_load: functions called with each folder that was loaded, and whether that went well.
    """

    def __init__(
        self,
        load: Callable[[Path, Way], Any] = load_warm,
        poll_seconds: float = 1.0,
        allow_labels_for_unavailable: bool = False,
    ) -> None:
        self.on_change: list[Callable[[str, int, str], None]] = []
        self.on_load: list[Callable[[Path, bool], None]] = []
        self._load_servable, self._poll_seconds = load, poll_seconds
        self._allow_labels = allow_labels_for_unavailable
        self._models: dict[str, ModelConfig] = {}
        self._states: dict[str, dict[int, VersionState]] = {}
        self._loaded: dict[str, dict[int, LoadedVersion]] = {}
        self._failed: dict[tuple[str, int], _Failure] = {}
        self._unloading: dict[threading.Thread, tuple[str, int]] = {}
        self._unreadable: set[str] = set()
        self._changed = threading.Condition()  # guards what requests read; held for moments
        self._loading = threading.RLock()  # one thread at a time decides what is loaded; requests never take it
        self._reloading = threading.Lock()
        self._impatient = False  # closing: what still runs is broken off
        self._stopped = threading.Event()
        self._poller: threading.Thread | None = None

    # -- for requests -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def acquire(self, spec: Any) -> Iterator[LoadedVersion]:
        """Holds the version that a ModelSpec asks for: it is not closed before the block ends.

        Raises:
            RequestError: when there is no such version, label or model.
        """
        with self._changed:
            loaded = self._find(spec)
            loaded.holders += 1
        try:
            yield loaded
        finally:
            with self._changed:
                loaded.holders -= 1
                if not loaded.holders:
                    self._changed.notify_all()

    def _find(self, spec: Any) -> LoadedVersion:
        if not spec.name:
            raise RequestError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        versions = self._loaded.get(spec.name, {})
        asked = self._asked_version(spec)
        if asked is None and versions:
            return versions[max(versions)]
        if asked in versions:
            return versions[asked]
        wanted = f"Latest({spec.name})" if asked is None else f"Specific({spec.name}, {asked})"
        raise RequestError("NOT_FOUND", f"Servable not found for request: {wanted}")

    def _asked_version(self, spec: Any) -> int | None:
        if spec.HasField("version"):
            return spec.version.value
        if not spec.HasField("version_label"):
            return None
        model = self._models.get(spec.name)
        if model is None or spec.version_label not in model.labels:
            raise RequestError("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
        return model.labels[spec.version_label]

    def states(self, model: str = "") -> list[VersionState]:
        """The states of a model's versions, newest first; of all models if ``model`` is empty."""
        with self._changed:
            names = [model] if model else list(self._states)
            return [state for name in names for _, state in sorted(self._states.get(name, {}).items(), reverse=True)]

    def models(self) -> dict[str, ModelConfig]:
        """The models to serve, by name."""
        return self._models

    # -- what to load -------------------------------------------------------------------------------------------------

    def start(self, models: Mapping[str, ModelConfig]) -> None:
        """Loads the models, and keeps watching their folders.

        Raises:
            FileNotFoundError: when a model's folder has no version that its policy asks for.
            OSError: when a SavedModel cannot be read.
            RequestError: when a warm-up request fails, or for a label of a version that is not AVAILABLE.
        """
        self._take_over(models)
        for name in models:
            if not self._loaded.get(name):
                raise next(failure.error for (model, _), failure in self._failed.items() if model == name)
        if self._poll_seconds > 0:
            self._poller = threading.Thread(target=self._poll, name="model folders", daemon=True)
            self._poller.start()

    def reload(self, models: Mapping[str, ModelConfig], wait: bool = True) -> None:
        """Replaces the list of models, and returns when those that are new, or in another folder, are AVAILABLE.

        Args:
            models: by name.
            wait: for another reload to end; or else this one is refused.

        Raises:
            RequestError: for a model without a version to load, a label of a version that is not AVAILABLE, or while
                another reload runs: all stays as it was; or for a model of whose folder nothing could be loaded.
        """
        if not self._reloading.acquire(blocking=wait):
            raise RequestError("UNAVAILABLE", "a reload is running; ask again when it has ended")
        try:
            with self._loading:
                self._take_over(models)
                lost = [name for name, model in models.items() if not self._has_any_of(model)]
                failed = [(*key, failure.error) for key, failure in sorted(self._failed.items()) if key[0] in lost]
        except OSError as error:
            raise RequestError("INVALID_ARGUMENT", str(error)) from error
        finally:
            self._reloading.release()
        if self._stopped.is_set():
            raise RequestError("UNAVAILABLE", "the server is shutting down")
        if lost:
            why = ", ".join(f"{{{name} {version}}} due to error: {error}" for name, version, error in failed)
            raise RequestError("UNKNOWN", f"{len(lost)} model(s) did not become available: {{{why}}}")

    def stop_loading(self) -> None:
        """Loads nothing more; what is being loaded is given up at its next call that takes long."""
        self._stopped.set()

    def close(self, timeout: float | None = None) -> None:
        """Unloads everything, once no request holds it; after ``timeout`` seconds, runs are broken off."""
        self.stop_loading()
        if self._poller is not None:
            self._poller.join()
        with self._loading:
            for name in list(self._loaded):
                self._unload(name, keep=[])
        leaving = list(self._unloading)
        end = None if timeout is None else time.monotonic() + timeout
        for thread in leaving:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        with self._changed:
            self._impatient = True
            self._changed.notify_all()
        for thread in leaving:  # to its end: Python must not exit while a session is being freed
            thread.join()

    def _take_over(self, models: Mapping[str, ModelConfig]) -> None:
        with self._loading:
            for model in models.values():
                self._check_labels(model)
                model.require_version()
            with self._changed:
                self._models = dict(models)
            self._failed.clear()
            self._match_folders()

    def _check_labels(self, model: ModelConfig) -> None:
        """As in TF Serving: a label that moves needs a version that is AVAILABLE, even where new labels do not."""
        current = self._models[model.name].labels if model.name in self._models else {}
        for label, version in model.labels.items():
            may_wait = self._allow_labels and current.get(label, version) == version
            if not may_wait and version not in self._loaded.get(model.name, {}):
                raise RequestError(
                    "FAILED_PRECONDITION",
                    f"Request to assign label to version {version} of model {model.name}, which is not currently "
                    "available for inference",
                )

    def _poll(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            try:
                self._match_folders()
            except Exception:  # the next look may go well; without one, no version would ever come again
                _log.exception("the models' folders could not be followed")

    def _match_folders(self) -> None:
        """Brings what is loaded in line with the folders and policies."""
        with self._loading:
            for model in self._models.values():
                try:
                    found = version_folders(model.base_path)
                except OSError as error:  # what is loaded stays: the folder may be away for a moment
                    if model.name not in self._unreadable:
                        _log.error("model %s: %s: %s", model.name, model.base_path, error)
                    self._unreadable.add(model.name)
                    continue
                self._unreadable.discard(model.name)
                self._match(model, found)
            for name in set(self._loaded) - set(self._models):
                self._unload(name, keep=[])

    def _match(self, model: ModelConfig, found: Mapping[int, Path]) -> None:
        aspired = model.policy.choose(found)
        for name, version in list(self._failed):
            if name == model.name and version not in aspired:
                del self._failed[name, version]
        for version in aspired:
            known = self._has(model.name, found[version]) or self._fails(model.name, version, found[version])
            if not known and not self._stopped.is_set():
                self._load(model.name, version, found[version])
        if not aspired or any(self._has(model.name, found[version]) for version in aspired):
            self._unload(model.name, keep=aspired)

    def _has(self, model: str, directory: Path) -> bool:
        return any(loaded.directory == directory for loaded in self._loaded.get(model, {}).values())

    def _has_any_of(self, model: ModelConfig) -> bool:
        return any(loaded.directory.parent == model.base_path for loaded in self._loaded.get(model.name, {}).values())

    def _fails(self, model: str, version: int, directory: Path) -> bool:
        failure = self._failed.get((model, version))
        return failure is not None and (failure.directory, failure.files) == (directory, _files_of(directory))

    # -- loading and unloading ----------------------------------------------------------------------------------------

    def _load(self, model: str, version: int, directory: Path) -> None:
        for thread, leaving in self._unloading.items():
            if leaving == (model, version):
                thread.join()
        replaced = self._loaded.get(model, {}).get(version)  # of another folder; it is AVAILABLE until the new one is
        if replaced is None:
            self._set(VersionState(model, version, "START"))
            self._set(VersionState(model, version, "LOADING"))
        files = _files_of(directory)
        try:
            servable = self._load_servable(directory, self._unless_stopped)
        except _StoppedError:
            if replaced is None:
                self._set(VersionState(model, version, "END"))
            return
        except Exception as error:  # whatever a SavedModel does wrong, the versions that serve go on
            _log.error("model %s: version %s cannot be loaded: %s", model, version, error)
            self._tell_load(directory, False)
            self._failed[model, version] = _Failure(directory, files, _without_frames(error))
            _collect()
            if replaced is None:
                self._set(VersionState(model, version, "END", _code_of(error), str(error)))
            return
        self._tell_load(directory, True)
        self._failed.pop((model, version), None)
        with self._changed:
            self._loaded.setdefault(model, {})[version] = LoadedVersion(model, version, directory, servable)
        self._set(VersionState(model, version, "AVAILABLE"))
        if replaced is not None:
            self._let_go(replaced)

    def _unless_stopped(self, work: Callable[[], T], /) -> T:
        """How a load's long calls are made: no more of them once the server stops."""
        if self._stopped.is_set():
            raise _StoppedError
        return work()

    def _unload(self, model: str, keep: list[int]) -> None:
        for version in sorted(set(self._loaded.get(model, {})) - set(keep)):
            with self._changed:
                leaving = self._loaded[model].pop(version)
                if not self._loaded[model]:
                    del self._loaded[model]
            self._set(VersionState(model, version, "UNLOADING"))
            self._let_go(leaving)

    def _let_go(self, leaving: LoadedVersion) -> None:
        """In a thread of its own: a request that runs for long must not keep other versions from being loaded."""
        thread = threading.Thread(target=self._finish, args=(leaving,), name="unload", daemon=True)
        self._unloading = {other: key for other, key in self._unloading.items() if other.is_alive()}
        self._unloading[thread] = (leaving.model, leaving.version)
        thread.start()

    def _finish(self, leaving: LoadedVersion) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not leaving.holders or self._impatient)
            servable = leaving.servable
            if not leaving.holders:
                leaving.servable = None  # whoever still has the version must not keep its graph
        servable.close()
        del servable
        _collect()
        if leaving.version not in self._loaded.get(leaving.model, {}):  # or another one took its place
            self._set(VersionState(leaving.model, leaving.version, "END"))

    def _tell_load(self, directory: Path, well: bool) -> None:
        for listener in self.on_load:
            listener(directory, well)

    def _set(self, state: VersionState) -> None:
        _log.info("model %s: version %s: %s", state.model, state.version, state.state)
        with self._changed:
            self._states.setdefault(state.model, {})[state.version] = state
            self._changed.notify_all()
        for listener in self.on_change:
            listener(state.model, state.version, state.state)


def _files_of(directory: Path) -> frozenset[tuple[str, str, int, int]]:
    """Each file below a folder, its size and its time of change: what tells whether the folder has changed."""
    found = set()
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # it has gone
                stat = os.stat(os.path.join(folder, name))
                found.add((folder, name, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)


def _collect() -> None:
    """Frees graphs, which are knots of cycles.

    Beside a frozen heap Python would hardly ever look for them, and it takes a millisecond. Where nothing is frozen it
    takes up to a second, and Python looks by itself.
    """
    if gc.get_freeze_count():
        gc.collect()


def _without_frames(error: Exception) -> Exception:
    """A kept error must not keep the variables of what raised it: they hold a SavedModel's memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _code_of(error: Exception) -> str:
    if isinstance(error, RequestError):
        return error.code
    return "NOT_FOUND" if isinstance(error, FileNotFoundError) else "UNKNOWN"
