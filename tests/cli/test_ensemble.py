"""``tfmmrank train --members``: what it leaves, and that it goes on."""

import json

import pytest
import yaml

from tests.cli.test_commands import ask, fails
from tfmmrank.cli.main import FINE, run

TOWERS = {"facts": {"kind": "behaviour", "columns": ["price", "rating"], "hidden": [8]}}


def test_members_are_trained_and_go_on(tmp_path, capsys, uncompiled):
    assert run(["demo-shop", str(tmp_path / "shop"), "--items", "100", "--queries", "40", "--quiet"]) == FINE
    recipe, data, out = tmp_path / "shop" / "shop.yaml", tmp_path / "data", tmp_path / "run"
    content = yaml.safe_load(recipe.read_text("utf-8"))
    content["model"] = {"dim": 8, "towers": TOWERS, "fusion": "sum", "cross": {"layers": 1, "deep": [8]}}
    content["train"] = {"epochs": 1, "batch_size": 8, "seed": 3}
    recipe.write_text(yaml.safe_dump(content), "utf-8")
    assert run(["prepare", str(recipe), str(data), "--quiet"]) == FINE
    capsys.readouterr()
    two = ask(capsys, "train", recipe, data, out, "--members", 2)
    three = ask(capsys, "train", recipe, data, out, "--members", 3)
    assert three["members"][:2] == two["members"]
    assert three["members"][2]["loss"] not in [member["loss"] for member in two["members"]]
    seeds = [yaml.safe_load((out / "members" / str(k) / "recipe.yaml").read_text())["train"]["seed"] for k in range(3)]
    assert seeds == [3, 4, 5]
    assert len(json.loads((out / "ranker" / "ranker.json").read_text("utf-8"))["members"]) == 3
    assert 0 < ask(capsys, "evaluate", out, data)["systems"]["model"]["metrics"]["ndcg@10"]["mean"] <= 1
    assert "holds an ensemble" in fails(capsys, "evaluate", out, data, "--ablate", "retrained")
    assert "was begun with another train.seed" in fails(capsys, "train", recipe, data, out, "--members", 2, "--seed", 9)


@pytest.mark.parametrize("members", ["0", "two"])
def test_a_number_of_members_that_is_none(members, tmp_path, capsys):
    assert run(["train", "a.yaml", str(tmp_path), str(tmp_path / "run"), "--members", members]) != FINE
    assert "--members" in capsys.readouterr().err
