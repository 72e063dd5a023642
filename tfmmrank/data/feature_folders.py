"""Where a dataset's feature stores stand, who may write there, and what of them outlives the dataset.

    features/TOWER-KEY/BUILD/                   a whole store: one tower's features of one dataset
    features/TOWER-KEY/.BUILD.partial-RANDOM/   rows at hand: of a run under way or killed, or of an earlier dataset,
                                                taken over by ``prepare``

Everything here may be removed at any time, when no run is using it; it is then computed again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfmmrank.atomic import sync_directory
from tfmmrank.data.feature_rows import DIGESTS_FILE, NAMES_FILE, FeatureRows

_PARTIAL = ".partial-"


class Home:
    """The folder of one tower and key, held by one process at a time.

    Args:
        path: ``features/TOWER-KEY``; made when it is missing.
        on_wait: called once when another process holds it, before waiting for that one.

    Attributes:
        alone: whether it is known that no one else writes here; not on a file system without locks.
    """

    def __init__(self, path: Path, on_wait: Callable[[], None]) -> None:
        self.path = path
        while True:
            path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            self.alone = _lock(self._descriptor, on_wait)
            if not self.replaced:
                return
            os.close(self._descriptor)  # prepared again while waiting

    @property
    def replaced(self) -> bool:
        """Whether another folder stands in this one's place, or none."""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def new_partial(self, build: str) -> Path:
        """Where to write rows of a build."""
        return self.path / _partial_name(build)

    def rows_at_hand(self) -> Iterator[tuple[Path, FeatureRows]]:
        """What there is in stores, partial ones first; folders that cannot be read are passed over."""
        for folder in sorted(path for path in self.path.iterdir() if path.is_dir()):
            try:
                rows = FeatureRows.open(folder)
            except (OSError, ValueError):  # a run killed before its first rows leaves such
                continue
            yield folder, rows

    def is_leaving(self, folder: Path) -> bool:
        """Whether a folder is a partial store that no running process is known to write."""
        return self.alone and _PARTIAL in folder.name and not self.replaced

    def remove_leavings(self, but: Path) -> None:
        """Removes partial stores that no running process writes."""
        for folder in self.path.iterdir():
            if folder != but and self.is_leaving(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, partial: Path, build: str) -> None:
        """Makes a partial store, all rows there, the whole one of a build."""
        sync_directory(partial)
        try:  # by descriptor, because another home may stand at this path meanwhile
            os.rename(partial.name, build, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except OSError:
            if self.alone or self.replaced or not (self.path / build).is_dir():
                raise
            shutil.rmtree(partial)  # without locks, another process may have come first
        os.fsync(self._descriptor)

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self._descriptor)


def _lock(descriptor: int, on_wait: Callable[[], None]) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def take_over(old: Path, new: Path, build: str) -> None:
    """Links a dataset's rows of features into the dataset that is about to replace it, for it to find what it can use.

    A tower's features that were not used with the old dataset stay behind, and so go with it, if others of a tower of
    that name (of other settings, say) are whole for it.

    Args:
        old: the folder ``features`` of the dataset to be replaced; may be missing. It is left as it is.
        new: the same of the new one.
        build: the old dataset's.
    """
    homes: dict[Path, list[Path]] = {}
    for file in old.glob(f"*/*/{NAMES_FILE}"):
        homes.setdefault(file.parents[1], []).append(file.parent)
    in_use = {_tower_of(home) for home, folders in homes.items() if home / build in folders}
    for home, folders in homes.items():
        if _tower_of(home) not in in_use or build in map(_build_of, folders):
            for folder in folders:
                _link_folder(folder, new / home.name / _partial_name(_build_of(folder)))


def _tower_of(home: Path) -> str:
    return home.name.rpartition("-")[0]


def _build_of(folder: Path) -> str:
    return folder.name.split(_PARTIAL)[0].lstrip(".")


def _partial_name(build: str) -> str:
    """A name that nobody else has."""
    return f".{build}{_PARTIAL}{secrets.token_hex(8)}"


def _link_folder(folder: Path, target: Path) -> None:
    try:
        target.mkdir(parents=True)
        # A run may still write: where files are copied, not linked, no digest may come without its values.
        for file in sorted(folder.iterdir(), key=lambda file: file.name != DIGESTS_FILE):
            _link(file, target / file.name)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        if folder.is_dir():  # else its run finished or removed it just now
            warnings.warn(f"{folder}: not taken over, its items are computed again ({error})", stacklevel=3)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(file, target)
