"""Work that takes processor time only while nothing else wants it, so that requests beside it are answered in time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_THIS = 0  # thread
_LOOK = 0.2  # seconds
_LEAST = 0.1  # of the time that the work must have had a processor, where it waits for one


def in_spare_time(work: Callable[[], T]) -> T:
    """Does a piece of work in a thread of Linux's idle class, and returns what it returns.

    Such a thread gives way to any other at once; one of a low priority ("nice") would use up its turn first, and be
    felt. Where others keep every processor busy it would hardly move: so it is looked after, and is of the usual class
    again when twice in a row it has had a processor for less than a tenth of the time and waits for one.

    Linux lets a thread go back only where the process may set priorities; see ``may_go_back``. Elsewhere the work is
    done in this thread, as it is.

    Args:
        work: one call that leaves Python's lock to others, as TensorFlow's do. A thread that has the lock and gets no
            processor would stop all others, the one that looks after it too. Threads that the call starts are of the
            idle class for as long as they live.
    """
    if not may_go_back():
        return work()
    result: Future[T] = Future()
    thread = threading.Thread(target=_do_idly, args=(work, result), name="spare time", daemon=True)
    thread.start()
    assert thread.native_id is not None  # it was started
    seen, starving = _look_at(thread.native_id), False
    while not wait((result,), _LOOK).done:
        last, seen = seen, _look_at(thread.native_id)
        starved, starving = starving, seen.waits and seen.had - last.had < _LEAST * (seen.at - last.at)
        if starved and starving:
            _make_usual(thread.native_id)
            break
    return result.result()


def may_go_back() -> bool:
    """Whether this process may make a thread of the idle class a usual one: ``CAP_SYS_NICE``, or ``ulimit -e`` 20."""
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


class _Look(NamedTuple):
    """A thread at a time: whether it has a processor or waits for one, and for how many seconds it has had one."""

    at: float
    waits: bool
    had: float


def _look_at(thread: int) -> _Look:
    """Says that it waits for nothing where the kernel does not say, or the thread has ended."""
    task = Path("/proc/self/task") / str(thread)
    try:
        state = (task / "stat").read_text().rpartition(") ")[2][:1]
        had = int((task / "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return _Look(time.monotonic(), False, 0.0)
    return _Look(time.monotonic(), state == "R", had)
