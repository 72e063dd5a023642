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
_AT_FIRST, _LOOK = 0.02, 0.2  # seconds
_LEAST = 0.1  # of the time that work must have had a processor, where it waits for one


class SpareTime:
    """A way to do pieces of work, one after the other, in threads of Linux's idle class.

    Such a thread gives way to any other at once; one of a low priority ("nice") would use up its turn first, and be
    felt. Where others keep every processor busy it would hardly move: so it is looked after. When twice in a row it has
    had a processor for less than a tenth of the time and waits for one, it is of the usual class again, and so is all
    work that follows.

    Linux lets a thread go back only where the process may set priorities; see ``may_go_back``. Elsewhere work is done
    in the calling thread, as it is.
    """

    def __init__(self) -> None:
        self._helps = may_go_back()

    def __call__(self, work: Callable[[], T], /) -> T:
        """Does the work, and returns what it returns.

        Args:
            work: a call that leaves Python's lock to others for most of its time, as TensorFlow's do. A thread that has
                the lock and gets no processor would stop all others, the one that looks after it too: so it is of the
                usual class at first, while Python hands the call over. Threads that the call starts later are of the
                idle class for as long as they live.
        """
        if not self._helps:
            return work()
        result: Future[T] = Future()
        thread = threading.Thread(target=_do, args=(work, result), name="spare time", daemon=True)
        thread.start()
        assert thread.native_id is not None  # it was started
        if not wait((result,), _AT_FIRST).done:
            self._look_after(thread.native_id, result)
        return result.result()

    def _look_after(self, thread: int, result: Future[T]) -> None:
        _set_class(thread, os.SCHED_IDLE)
        seen, starving = _look_at(thread), False
        while not wait((result,), _LOOK).done:
            last, seen = seen, _look_at(thread)
            starved, starving = starving, seen.waits and seen.had - last.had < _LEAST * (seen.at - last.at)
            if starved and starving:
                _set_class(thread, os.SCHED_OTHER)
                self._helps = False
                return


def may_go_back() -> bool:
    """Whether this process may make a thread of the idle class a usual one: ``CAP_SYS_NICE``, or ``ulimit -e`` 20."""

    def there_and_back() -> None:
        for policy in (os.SCHED_IDLE, os.SCHED_OTHER):
            os.sched_setscheduler(_THIS, policy, os.sched_param(0))

    found: Future[None] = Future()
    threading.Thread(target=_do, args=(there_and_back, found), name="spare time?", daemon=True).start()
    return found.exception() is None


def _do(work: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:
        result.set_exception(error)


def _set_class(thread: int, policy: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.sched_setscheduler(thread, policy, os.sched_param(0))


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
