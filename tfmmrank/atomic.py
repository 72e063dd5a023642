"""Writing aside and swapping in: a killed process leaves the old output or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def replace_directory(path: str | Path) -> Iterator[Path]:
    """Gives an empty directory to write into, and makes it ``path`` when the block ends well.

    The swap is one system call (``renameat2`` with ``RENAME_EXCHANGE``), so that there is no moment without a whole
    directory at ``path``. A file system without it takes two renames; ``recover``, which everything that opens such a
    directory calls first, mends what a kill between them leaves. When the block raises, ``path`` is as it was. Leavings
    of killed processes are removed.

    Args:
        path: the directory to make or replace.

    Yields:
        A hidden sibling directory.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    _remove_leavings(path)
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    aside.mkdir()
    try:
        yield aside
        _sync(aside)
        if path.exists():
            _exchange(aside, path)
        else:
            os.rename(aside, path)
        _sync_one(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def recover(path: str | Path) -> None:
    """Puts the old directory back where a kill fell between two renames."""
    path = Path(os.path.realpath(path))
    if not path.exists():
        backup = _backup(path)
        with contextlib.suppress(FileNotFoundError):
            os.rename(backup, path)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file aside and renames it into place."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _backup(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _remove_leavings(path: Path) -> None:
    """Removes what dead processes left; a process of our own number is dead too: we have only begun."""
    shutil.rmtree(_backup(path), ignore_errors=True)
    prefix = f".{path.name}.partial-"
    for leaving in path.parent.iterdir():
        pid = leaving.name.removeprefix(prefix)
        if leaving.name.startswith(prefix) and pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
            shutil.rmtree(leaving, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _exchange(one: Path, other: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        if done == 0:
            return
    backup = _backup(other)
    os.rename(other, backup)
    os.rename(one, other)
    os.rename(backup, one)


def _sync(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            _sync_one(Path(root) / name)
        _sync_one(Path(root))


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
