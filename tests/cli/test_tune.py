"""``tfmmrank tune``, as a user types it."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cli.test_commands import ask, fails
from tfmmrank.cli.main import FAILED, FINE, run

TOWERS = {"facts": {"kind": "behaviour", "columns": ["price", "rating"], "hidden": [8]}}
RANGES = {
    "train.learning_rate": {"choices": [1e-9, 0.05]},
    "train.weight_decay": {"low": 1e-6, "high": 1e-3, "log": True},
    "model.towers.facts.dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
    "model.cross": {"choices": [{"layers": 1, "deep": [8]}, {"layers": 0, "deep": [16]}]},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory, all_uncompiled):
    """A prepared demo shop and a recipe that is quick to train."""
    root = tmp_path_factory.mktemp("shop")
    assert run(["demo-shop", str(root / "shop"), "--items", "100", "--queries", "40", "--quiet"]) == FINE
    recipe = root / "shop" / "shop.yaml"
    content = yaml.safe_load(recipe.read_text("utf-8"))
    content["model"] = {"dim": 8, "towers": TOWERS, "fusion": "sum", "cross": {"layers": 1, "deep": [8]}}
    content["train"] = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-9, "clip_norm": None}
    content["tune"] = RANGES
    recipe.write_text(yaml.safe_dump(content), "utf-8")
    assert run(["prepare", str(recipe), str(root / "data"), "--quiet"]) == FINE
    return recipe, root / "data"


def test_the_winning_recipe_trains_to_the_same_value(shop, capsys, tmp_path):
    pytest.importorskip("optuna", reason='tuning needs the extra: pip install "tfmmrank[tune]"')
    recipe, data = shop
    out = tmp_path / "elsewhere" / "out"
    found = ask(capsys, "tune", recipe, data, out, "--trials", 2, "--seed", 3)
    assert found["states"] == {"complete": 2}
    assert found["best"]["number"] == 1  # the first does not learn, and what comes before the winner must not matter
    again = ask(capsys, "train", found["recipe"], data, tmp_path / "run")
    assert again["val_ndcg@10"] == found["best"]["value"]
    assert (Path(found["best"]["run"]) / "ranker" / "ranker.json").is_file()
    # With nothing left to do it tells again what it found; for people, too.
    assert run(["tune", str(recipe), str(data), str(out), "--trials", "2", "--seed", "3"]) == FINE
    shown = capsys.readouterr().out
    assert f"{out}: 2 complete" in shown
    assert f"{out / 'best.yaml'}: trial {found['best']['number']}, val_ndcg@10 {found['best']['value']:.4f}" in shown
    assert "train.seed" in fails(capsys, "tune", with_train(recipe, seed=5), data, out)


def with_train(recipe: Path, **train) -> Path:
    content = yaml.safe_load(recipe.read_text("utf-8"))
    content["train"].update(train)
    other = recipe.with_name("other.yaml")
    other.write_text(yaml.safe_dump(content), "utf-8")
    return other


def test_a_recipe_without_ranges(shop, capsys, tmp_path):
    content = yaml.safe_load(shop[0].read_text("utf-8"))
    del content["tune"]
    plain = shop[0].with_name("plain.yaml")
    plain.write_text(yaml.safe_dump(content), "utf-8")
    error = fails(capsys, "tune", plain, shop[1], tmp_path / "out")
    assert f"{plain}: tune: is missing; expected the ranges to search by the recipe's dotted keys" in error
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_extra_is_named(shop, capsys, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna" or "tfmmrank.tuning" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(["tune", str(shop[0]), str(shop[1]), str(tmp_path / "out")]) == FAILED
    assert capsys.readouterr().err == (
        'tfmmrank: error: tuning needs Optuna, an extra of this package: pip install "tfmmrank[tune]"\n'
    )


@pytest.mark.slow
def test_killed_and_begun_again_it_ends_with_so_many_trials(shop, tmp_path):
    pytest.importorskip("optuna", reason='tuning needs the extra: pip install "tfmmrank[tune]"')
    recipe, data = shop
    command = [sys.executable, "-m", "tfmmrank", "tune", str(recipe), str(data), str(tmp_path / "out"), "--json"]
    moments = random.Random(1)
    for after in (0, 2):
        process = subprocess.Popen([*command, "--trials", "5"], stderr=subprocess.DEVNULL)
        while not (tmp_path / "out" / "trials" / f"{after:04d}").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run([*command, "--trials", "5"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    found = json.loads(done.stdout)
    assert found["states"]["complete"] + found["states"].get("pruned", 0) == 5
    assert found["states"]["killed"] == 2
