"""Loading a version takes only the processor time that requests leave."""

import hashlib
import os
import subprocess
import sys
import threading
import time

import pytest

from tfmmrank.serving.server import spare_time
from tfmmrank.serving.server.spare_time import SpareTime

BUSY = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    pass
"""

may = pytest.mark.skipif(not spare_time.may_go_back(), reason="this process may not set priorities")


def where(seconds):
    """The thread, its class at first, and its class after a while."""
    first = os.sched_getscheduler(0)
    time.sleep(seconds)
    return threading.get_ident(), first, os.sched_getscheduler(0)


@may
def test_long_work_is_of_the_idle_class_and_this_thread_stays_as_it_was():
    before = os.sched_getscheduler(0)
    thread, first, then = SpareTime()(lambda: where(0.3))
    assert (first, then) == (os.SCHED_OTHER, os.SCHED_IDLE)
    assert thread != threading.get_ident()
    assert os.sched_getscheduler(0) == before


@may
def test_work_that_gets_no_processor_is_of_the_usual_class_again(monkeypatch):
    monkeypatch.setattr(spare_time, "_LOOK", 0.05)
    core = min(os.sched_getaffinity(0))

    def work():
        os.sched_setaffinity(0, {core})
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)  # a second, or minutes of the idle class beside another
        return os.sched_getscheduler(0)

    command = [sys.executable, "-c", BUSY, str(core), "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            spare = SpareTime()
            assert spare(work) == os.SCHED_OTHER
            assert spare(lambda: where(0.3))[2] == os.SCHED_OTHER  # it stays so
        finally:
            other.kill()


@may
def test_work_that_waits_for_something_else_stays_of_the_idle_class(monkeypatch):
    monkeypatch.setattr(spare_time, "_LOOK", 0.01)
    assert SpareTime()(lambda: where(0.5))[2] == os.SCHED_IDLE


def test_where_no_way_leads_back_work_is_done_as_it_is(monkeypatch):
    """As Linux does for one who may not set priorities: any thread may enter the idle class, none may leave it."""

    def sched_setscheduler(thread, policy, parameters):
        if policy != os.SCHED_IDLE:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", sched_setscheduler, raising=False)
    assert SpareTime()(threading.get_ident) == threading.get_ident()


def test_what_the_work_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        SpareTime()(lambda: 1 / 0)
