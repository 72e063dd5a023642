"""Writing aside and swapping in: a killed process leaves the old output or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def replace_directory(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Gives an empty directory to write into, and makes it ``path`` when the block ends well.

    The swap is one system call (``renameat2`` with ``RENAME_EXCHANGE``), so that there is no moment without a whole
    directory at ``path``. A file system without it takes two renames; ``recover``, which everything that opens such a
    directory calls first, mends what a kill between them leaves. When the block raises, ``path`` is as it was.

    Several may write at once, threads or processes of any container: the last to end is the one that stays. Each holds
    a lock on its directory, by which the leavings of killed ones are known, and removed.

    Args:
        path: the directory to make or replace.
        replace: False: what stands at ``path`` by then stays, and is an error; an empty directory may be replaced.

    Yields:
        A hidden sibling directory.

    Raises:
        FileExistsError: for something at ``path`` that is not to be replaced.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    _remove_leavings(path)
    aside, descriptor = _make_aside(path)
    try:
        yield aside
        sync_directory(aside)
        if replace:
            _swap(aside, path)
        else:
            _place(aside, path)
        _sync_one(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(descriptor)


def recover(path: str | Path) -> None:
    """Puts the old directory back where a kill fell between two renames."""
    path = Path(os.path.realpath(path))
    if not path.exists():
        backup = _backup(path)
        with contextlib.suppress(FileNotFoundError):
            os.rename(backup, path)


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[BinaryIO]:
    """Gives a file to write into, and makes it ``path`` when the block ends well; failing leaves the old file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file as UTF-8, aside, and renames it into place."""
    with replace_file(path) as file:
        file.write(text.encode("utf-8"))


def _backup(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _aside(path: Path) -> Path:
    """A name that nobody else has. Not ``tempfile``'s: what that makes, only its owner may read."""
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(8)}")


def _make_aside(path: Path) -> tuple[Path, int]:
    """A new directory beside ``path``, and a descriptor that holds its lock until closed."""
    while True:
        aside = _aside(path)
        aside.mkdir()
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks: nobody takes ours for a leaving there
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if aside.exists():
                return aside, descriptor
            os.close(descriptor)  # removed as a leaving, between its making and its lock


def _remove_leavings(path: Path) -> None:
    """Removes what killed writers left: directories whose lock nobody holds."""
    shutil.rmtree(_backup(path), ignore_errors=True)
    prefix = f".{path.name}.partial-"
    for leaving in path.parent.iterdir():
        if leaving.name.startswith(prefix):
            with contextlib.suppress(OSError), _locked(leaving):
                shutil.rmtree(leaving, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a directory's lock. Raises OSError when it cannot be had."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _swap(aside: Path, path: Path) -> None:
    """Makes ``aside`` the directory at ``path``; what was there may then stand at ``aside``."""
    if not path.exists():
        try:
            os.rename(aside, path)
            return
        except OSError:
            if not path.exists():
                raise
    _exchange(aside, path)  # also when another writer came first


def _place(aside: Path, path: Path) -> None:
    """Makes ``aside`` the directory at ``path``, in one system call that fails where there is one with content."""
    try:
        os.rename(aside, path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(f"{path}: was written by another process meanwhile, and stays; run again") from error
        raise


def _exchange(one: Path, other: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        if done == 0:
            return
    backup = _backup(other)
    os.rename(other, backup)
    os.rename(one, other)
    shutil.rmtree(backup, ignore_errors=True)


def sync_directory(folder: Path) -> None:
    """Brings a directory and all that is in it to disk."""
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
