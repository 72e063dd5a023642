"""A run taken apart: what is trained, what is not trained twice, and how it is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from tests.conftest import encode_picture
from tests.evaluation.test_ablation_recipes import DATA
from tests.tiny_shop import MemoryShop
from tfmmrank.evaluation import AblationTable, ablate, ablation_recipes, ablation_runs, compare, labels_of, scores_of
from tfmmrank.ranker import Ranker
from tfmmrank.runs import keep_recipe
from tfmmrank.schema import Recipe
from tfmmrank.training import build_ranker, checkpoint, fit

MODEL = {
    "dim": 8,
    "towers": {
        "price": {"kind": "behaviour", "columns": ["price"], "hidden": []},
        "past": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"], "hidden": []},
    },
    "fusion": {"kind": "sum", "dropout": 0.1},
    "cross": {"layers": 0, "deep": [8]},
}
TRAIN = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "seed": 3}
KEYS = ["model", "masked price", "masked past", "without price", "without past", "fusion max"]


class Killed(BaseException):
    """What no handler in between catches."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory, all_uncompiled):
    shop = MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture, lists=8)
    shop.name = "tiny"
    return shop


@pytest.fixture(scope="module")
def run(shop, tmp_path_factory):
    """A training, to be taken apart."""
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.from_dict({"data": DATA, "model": MODEL, "train": TRAIN})
    keep_recipe(recipe, folder)
    fit(build_ranker(recipe, shop, progress=False), recipe.train, shop, folder, progress=False)
    return folder


@pytest.fixture
def one_fusion(monkeypatch):
    monkeypatch.setattr(ablation_recipes, "other_fusions", lambda recipe: ["max"])


@pytest.fixture
def epochs(monkeypatch):
    """The folders trained in, once an epoch; the second one's training is killed after its first epoch."""
    seen: list[str] = []
    on_epoch_end = checkpoint.ResumableTraining.on_epoch_end

    def noting(self, epoch, logs=None):
        on_epoch_end(self, epoch, logs)
        seen.append(self.directory.parent.name)
        if seen == [*["without-price"] * 2, "without-past"]:
            raise Killed

    monkeypatch.setattr(checkpoint.ResumableTraining, "on_epoch_end", noting)
    return seen


def test_a_killed_ablation_goes_on_and_nothing_is_trained_twice(shop, run, one_fusion, epochs):
    said: list[str] = []
    labels = labels_of(shop, "test")
    with pytest.raises(Killed):
        ablate(run, shop, part="retrained", scores=labels, say=said.append)
    found = ablate(run, shop, say=said.append, k=5)
    assert epochs == [*["without-price"] * 2, *["without-past"] * 2, *["fusion-max"] * 2]
    again = ablate(run, shop, part="fusions", scores=labels, say=said.append, k=5)
    assert again.table.mean("fusion max") == found.table.mean("fusion max")
    assert len(epochs) == 6
    folder = run / "ablation"
    assert said == [
        f"ablation 1 of 2: without price, training into {folder / 'without-price'}",
        f"ablation 2 of 2: without past, training into {folder / 'without-past'}",
        "ablation 1 of 3: without price, trained before",
        f"ablation 2 of 3: without past, training into {folder / 'without-past'}",
        f"ablation 3 of 3: fusion max, training into {folder / 'fusion-max'}",
        "ablation 1 of 1: fusion max, trained before",
    ]

    assert list(found.table.rows) == KEYS
    assert found.groups == {"masked": KEYS[1:3], "retrained": KEYS[3:5], "fusions": KEYS[5:]}
    assert found.table.main == "ndcg@5"
    assert found.left_out == {}
    for name in KEYS[3:]:
        one = folder / name.replace(" ", "-")
        assert len(json.loads((one / "history.json").read_text())["loss"]) == 2
        recipe = Recipe.load(one / "recipe.yaml")
        assert recipe.train == Recipe.load(run / "recipe.yaml").train
        assert list(recipe.model.towers) == [tower for tower in MODEL["towers"] if name != f"without {tower}"]
        assert recipe.model.fusion.kind == ("max" if name == "fusion max" else "sum")
        assert recipe.model.fusion.options == {"dropout": 0.1}
    alone = {"it": scores_of(Ranker.load_ranker(one / "ranker"), shop, "test")}
    assert compare(shop, "test", alone, k=5).mean("it") == found.table.mean("fusion max")


def test_trainings_of_another_recipe_or_other_lists_are_refused(shop, run, one_fusion, epochs, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("ranker", "ablation"):
        (tmp_path / "run" / name).symlink_to(run / name)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["train"]["learning_rate"] = 0.02
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    folder = tmp_path / "run" / "ablation" / "without-price"
    says = rf"another train.learning_rate \(0.01, now 0.02\); remove {folder} to train it anew"
    with pytest.raises(ValueError, match=says):
        ablate(tmp_path / "run", shop, part="retrained")
    other = MemoryShop(tmp_path, encode_picture, seed=5, lists=8)
    with pytest.raises(ValueError, match=r"ablation: its rankers are trained on other lists than .* remove it"):
        ablate(run, other, part="retrained")
    assert epochs == []


def test_what_cannot_be_trained_is_told_and_the_others_go_on(shop, run, monkeypatch, tmp_path):
    monkeypatch.setattr(ablation_recipes, "other_fusions", lambda recipe: ["max", "attention"])

    def fail(recipe, data, folder, strategy, progress):
        raise FloatingPointError("the training loss became nan in epoch 1")

    monkeypatch.setattr(ablation_runs, "train_variant", fail)
    monkeypatch.setattr(ablation_runs, "is_trained", lambda recipe, folder: folder.name == "fusion-max")
    monkeypatch.setattr(ablation_runs, "trained_scores", lambda *_: labels_of(shop, "test"))
    found = ablate(run, shop, part="fusions", scores=labels_of(shop, "test"))
    assert list(found.table.rows) == ["model", "fusion max"]
    assert found.left_out == {"fusion attention": "the training loss became nan in epoch 1"}
    assert "fusion attention: left out, because the training loss became nan" in str(found)


def test_runs_that_cannot_be_taken_apart(shop, run, tmp_path):
    with pytest.raises(ValueError, match='part is "mask"; expected masked, retrained, fusions or all'):
        ablate(run, shop, part="mask")
    with pytest.raises(ValueError, match=r"holds no recipe \(recipe.yaml is missing\)"):
        ablate(tmp_path, shop)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    with pytest.raises(ValueError, match="holds no ranker"):
        ablate(tmp_path, shop)
    (tmp_path / "ranker").symlink_to(run / "ranker")
    recipe["model"]["fusion"]["kind"] = "mean"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    with pytest.raises(ValueError, match="the ranker is of another recipe than recipe.yaml"):
        ablate(tmp_path, shop)
    recipe["model"]["fusion"]["kind"] = "sum"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "cat.jpg").touch()
    with pytest.raises(ValueError, match="is not empty and holds no ablation"):
        ablate(tmp_path, shop, part="retrained", scores=labels_of(shop, "test"))


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(shop):
    rng = np.random.default_rng(0)
    labels = labels_of(shop, "test")
    systems = {name: [some + rng.normal(0, 1, len(some)) for some in labels] for name in KEYS}
    groups = {"masked": KEYS[1:3], "retrained": KEYS[3:5], "fusions": KEYS[5:]}
    table = compare(shop, "test", systems, resamples=200)
    return AblationTable(table, groups, {"without <x>": "it is the only one"}, "sum")


def test_three_groups_under_the_model(table):
    lines = str(table).splitlines()
    assert lines[0] == "tiny, split test: ablation"
    assert lines[1].split()[:2] == ["system", "NDCG@10"]
    assert "MRR" not in lines[1]
    assert lines[3].startswith("model ")
    assert [line for line in lines if line.endswith(":")] == [
        "hidden while scoring, nothing trained anew:",
        "trained anew without:",
        "trained anew with another fusion (the model's is sum):",
    ]
    rows = [lines[i] for i in (1, 2, 3, 5, 6, 8, 9, 11)]
    assert len({len(row) for row in rows}) == 1  # columns align
    assert [row.split("  ")[0] for row in rows[2:]] == KEYS
    assert "against model" in lines[12]
    assert lines[-1] == "without <x>: left out, because it is the only one"


def test_as_json_values(table):
    found = json.loads(json.dumps(table.to_dict()))
    assert list(found["systems"]) == KEYS
    assert found["groups"]["fusions"] == ["fusion max"]
    assert found["left_out"] == {"without <x>": "it is the only one"}
    assert found["systems"]["fusion max"]["difference"]["mean"] == pytest.approx(
        table.table.mean("fusion max") - table.table.mean("model")
    )
