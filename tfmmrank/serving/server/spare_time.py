"""Work that takes processor time only while nothing else wants it, so that requests beside it are answered in time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_THIS = 0  # thread
_LOOK = 0.2  # seconds
_LEAST = 0.02  # of them that the work must have had a processor


def in_spare_time(work: Callable[[], T]) -> T:
    """Does a piece of work in a thread of Linux's idle class, and returns what it returns.

    Such a thread gives way to any other at once; one of a low priority ("nice") would use up its turn first, and be
    felt. Where others keep every processor busy it would hardly move, and might hold Python's lock meanwhile: so it is
    looked after, and is of the usual class again when it has had one for less than a tenth of the time.

    Linux lets a thread go back only where the process may set priorities (``CAP_SYS_NICE``, or a ``ulimit -e`` of 20).
    Elsewhere the work is done in this thread, as it is.

    Args:
        work: what to do. Threads that it starts are of the idle class too, for as long as they live.
    """
    if not _may_return():
        return work()
    result: Future[T] = Future()
    thread = threading.Thread(target=_do_idly, args=(work, result), name="spare time", daemon=True)
    thread.start()
    assert thread.native_id is not None  # it was started
    had = 0.0
    while not wait((result,), _LOOK).done:
        has = _processor_time(thread.native_id)
        if has - had < _LEAST:
            _make_usual(thread.native_id)
            break
        had = has
    return result.result()


def _may_return() -> bool:
    found: Future[None] = Future()
    threading.Thread(target=_do_idly, args=(_make_usual, found), name="spare time?", daemon=True).start()
    return found.exception() is None


def _do_idly(work: Callable[[], T], result: Future[T]) -> None:
    try:
        os.sched_setscheduler(_THIS, os.SCHED_IDLE, os.sched_param(0))
        result.set_result(work())
    except BaseException as error:
        result.set_exception(error)


def _make_usual(thread: int = _THIS) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _processor_time(thread: int) -> float:
    """Seconds; 0 where the kernel does not say, or the thread has ended."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0
