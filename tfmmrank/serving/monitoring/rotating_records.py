"""TFRecord files that are replaced by new ones when they have grown large or old."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Any

from tfmmrank.data.example_lists import read_records, write_record

SUFFIX, PARTIAL = ".tfrecord", ".partial"
_FRAMING = 16  # bytes of a record's length and checksums
_LOG = logging.getLogger(__name__)


class RotatingRecords:
    """Appends records to files named by time; not safe to use from several threads.

    The file being written ends in ``.partial``; complete, it loses that by a rename, so that whoever collects
    ``*.tfrecord`` never reads half of one. What is written has left this process: only a machine's crash loses it. A
    writer holds a lock on its file; those of killed ones are completed by the next that is made in the folder.

    Args:
        folder: where; made if it is not there.
        prefix: what file names begin with.
        max_bytes: a file larger than this is complete.
        max_seconds: a file older than this is complete.

    Raises:
        OSError: when the folder cannot be made.
    """

    def __init__(self, folder: str | Path, prefix: str, max_bytes: int, max_seconds: float) -> None:
        self.folder, self.prefix, self.max_bytes, self.max_seconds = Path(folder), prefix, max_bytes, max_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file: Any = None
        self._path = self.folder
        self._size, self._complete_at = 0, 0.0
        for path in sorted(self.folder.glob(f"{prefix}-*{SUFFIX}{PARTIAL}")):
            try:
                _complete_abandoned(path)
            except FileNotFoundError:  # another has completed it
                pass
            except OSError as error:
                _LOG.warning("%s: cannot complete what a killed process left: %s", path, error)

    def write(self, record: bytes) -> None:
        """Appends one record.

        Raises:
            OSError: when it cannot be written, such as to a full disk; what was written before stays readable.
        """
        framed = io.BytesIO()
        write_record(framed, record)
        if self._file is None:
            self._open()
        try:
            self._append(framed.getbuffer())
        except OSError:
            self._take_back()
            raise
        self.complete_if_due()

    def seconds_left(self) -> float | None:
        """Until the file is too old; None without a file."""
        return None if self._file is None else max(0.0, self._complete_at - time.monotonic())

    def complete_if_due(self) -> None:
        """Completes a file that is too large or too old."""
        if self._file is not None and (self._size >= self.max_bytes or time.monotonic() >= self._complete_at):
            self.close()

    def close(self) -> None:
        """Completes the file."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:  # and its lock, until it has its name
                self._path.rename(self._path.with_suffix(""))

    def _open(self) -> None:
        name = f"{self.prefix}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}{SUFFIX}{PARTIAL}"
        self._path = self.folder / name
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 - closed when complete
        with contextlib.suppress(OSError):  # a file system without locks, where nobody completes it either
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._size, self._complete_at = 0, time.monotonic() + self.max_seconds

    def _append(self, framed: memoryview) -> None:
        written = 0
        while written < len(framed):  # a nearly full disk takes a part first
            written += self._file.write(framed[written:])
        self._size += written

    def _take_back(self) -> None:
        """Removes a part of a record from the file's end; a file that cannot be mended stays ``.partial``."""
        try:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            mended = True
        except OSError:
            mended = False
        if not mended or not self._size:
            self._file.close()
            self._file = None
        if not self._size:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def _complete_abandoned(path: Path) -> None:
    """Completes a file that nobody writes any more, without what follows its last whole record.

    An empty one is left: it may have been made a moment ago, and not locked yet.

    Raises:
        OSError: when that is not possible.
    """
    with open(path, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        size = 0
        with contextlib.suppress(ValueError):
            for record in read_records(path):
                size += _FRAMING + len(record)
        if size:
            file.truncate(size)
            path.rename(path.with_suffix(""))
