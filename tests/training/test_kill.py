"""SIGKILL in the middle of ``tfmmrank train``, and the same command again."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from tests.quick_recipe import with_quick_pictures
from tfmmrank.cli.main import FINE, run


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A prepared demo shop, and a recipe that checkpoints every three steps."""
    root = tmp_path_factory.mktemp("kill")
    assert run(["demo-shop", str(root / "shop"), "--items", "300", "--queries", "120", "--quiet"]) == FINE
    recipe = root / "shop" / "shop.yaml"
    with_quick_pictures(recipe)
    content = yaml.safe_load(recipe.read_text("utf-8"))
    content["train"].update(epochs=4, batch_size=8, patience=0, checkpoint_every_steps=3)
    recipe.write_text(yaml.safe_dump(content), "utf-8")
    assert run(["prepare", str(recipe), str(root / "data"), "--quiet"]) == FINE
    return recipe, root / "data"


def start(shop, folder):
    recipe, data = shop
    command = [sys.executable, "-m", "tfmmrank", "train", str(recipe), str(data), str(folder), "--quiet"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def reached(folder) -> int:
    """The number of the last checkpoint."""
    numbers = [int(file.stem.partition("-")[2]) for file in (folder / "checkpoints").glob("ckpt-*.index")]
    return max(numbers, default=0)


def weights(folder):
    from tfmmrank.ranker import Ranker

    return [variable.numpy() for variable in Ranker.load_ranker(folder / "ranker").trainable_variables]


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(shop, tmp_path):
    assert start(shop, tmp_path / "whole").wait() == 0
    expected = weights(tmp_path / "whole")
    moments = random.Random(1)
    for number, after in enumerate((1, 5, 10)):  # of some sixteen checkpoints, four an epoch
        folder = tmp_path / f"killed-{number}"
        process = start(shop, folder)
        while reached(folder) < after:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (folder / "ranker").exists()
        assert start(shop, folder).wait() == 0
        for mine, theirs in zip(weights(folder), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        validated = json.loads((folder / "history.json").read_text("utf-8"))["val_ndcg@10"]
        assert validated == json.loads((tmp_path / "whole" / "history.json").read_text("utf-8"))["val_ndcg@10"]
