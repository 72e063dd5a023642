"""Loading a version takes only the processor time that requests leave."""

import os
import threading
import time

import pytest

from tfmmrank.serving.server import spare_time
from tfmmrank.serving.server.spare_time import in_spare_time

may = pytest.mark.skipif(not spare_time._may_return(), reason="this process may not set priorities")


def where():
    return threading.get_ident(), os.sched_getscheduler(0)


@may
def test_work_is_of_the_idle_class_and_this_thread_stays_as_it_was():
    before = os.sched_getscheduler(0)
    thread, policy = in_spare_time(where)
    assert policy == os.SCHED_IDLE
    assert thread != threading.get_ident()
    assert os.sched_getscheduler(0) == before


@may
def test_work_that_gets_no_processor_is_of_the_usual_class_again(monkeypatch):
    monkeypatch.setattr(spare_time, "_LOOK", 0.01)
    monkeypatch.setattr(spare_time, "_LEAST", 1.0)  # more than anybody gets

    def work():
        end = time.monotonic() + 60
        while os.sched_getscheduler(0) == os.SCHED_IDLE and time.monotonic() < end:
            time.sleep(0.001)
        return os.sched_getscheduler(0)

    assert in_spare_time(work) == os.SCHED_OTHER


def test_where_no_way_leads_back_work_is_done_as_it_is(monkeypatch):
    def forbid(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbid, raising=False)
    assert in_spare_time(threading.get_ident) == threading.get_ident()


def test_what_the_work_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_spare_time(lambda: 1 / 0)
