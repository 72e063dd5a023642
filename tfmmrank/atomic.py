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
    directory at ``path``. When the block raises, ``path`` is as it was. Leavings of killed processes are removed.

    Args:
        path: the directory to make or replace.

    Yields:
        A hidden sibling directory.
    """
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
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


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file aside and renames it into place."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _remove_leavings(path: Path) -> None:
    for leaving in path.parent.glob(f".{path.name}.partial-*"):
        pid = leaving.name.rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")):
            shutil.rmtree(leaving, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        if done == 0:
            return
    # A file system without exchange (some network mounts): two renames, with a moment between them.
    backup = one.with_name(one.name + "-old")
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
