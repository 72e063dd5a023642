"""Killing ``export`` at any moment: a version is whole or not there, and what was there stays."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.serving import served_shop
from tfmmrank.export import Servable, versions_of

PROGRAM = """
import sys
from tfmmrank.data import Prepared
from tfmmrank.export import export
from tfmmrank.ranker import Ranker
export(Ranker.load_ranker(sys.argv[1]), Prepared.open(sys.argv[2]), sys.argv[3], progress=False)
"""
ASKED = {"query": np.array([b"red shirt"], object), "user age": np.array([np.nan], np.float32),
         "season": np.array([b""], object), "item_ids": np.array([[b"i0", b"i1", b"i2"]], object),
         "num_items": np.array([3], np.int32)}  # fmt: skip


def scores(version) -> list[float]:
    servable = Servable(version)
    try:
        return servable.run("rank", ASKED)["scores"][0].tolist()
    finally:
        servable.close()


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    served = served_shop.make()
    served.ranker.save_ranker(tmp_path / "ranker")
    model = tmp_path / "model"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "ranker"), str(served.prepared.path), str(model)]
    began = time.monotonic()
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    took = time.monotonic() - began
    expected = scores(model / "1")
    moments, killed, known = random.Random(0), 0, [1]
    for number in range(20):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        # Half of the kills fall late, where the version is checked, synced and renamed.
        time.sleep(took * (moments.uniform(0, 1.05) if number % 2 else moments.uniform(0.8, 1.02)))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        now = versions_of(model)
        assert now[: len(known)] == known
        assert len(now) <= len(known) + 1
        for version in now[len(known) :]:
            assert scores(model / str(version)) == expected
        known = now
    assert killed >= 10  # or the moments were all too late to show anything
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert scores(model / str(versions_of(model)[-1])) == expected
    assert [path.name for path in model.iterdir() if path.name.startswith(".")] == []  # leavings are gone
    assert scores(model / "1") == expected
