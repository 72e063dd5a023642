"""The commands one after another on a small demo shop, as a user types them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from tests.quick_recipe import with_quick_pictures
from tfmmrank.cli.main import FAILED, FINE, MISUSE, run
from tfmmrank.runs import check_run
from tfmmrank.schema import Recipe

ITEMS, QUERIES = 150, 40


def ask(capsys, *arguments) -> dict:
    """Runs a command with --json and returns its object; nothing else may stand on standard output."""
    capsys.readouterr()
    code = run([*map(str, arguments), "--json"])
    out, error = capsys.readouterr()
    assert code == FINE, error
    assert len(out.splitlines()) == 1, out
    return json.loads(out)


def fails(capsys, *arguments) -> str:
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == FAILED
    out, error = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, all_uncompiled):
    """A demo shop made, prepared, trained for one epoch and exported by commands."""
    root = tmp_path_factory.mktemp("shop")
    made = SimpleNamespace(
        root=root,
        recipe=root / "shop" / "shop.yaml",
        data=root / "data",
        run=root / "run",
        model=root / "models" / "shop",
    )
    shape = ["--items", str(ITEMS), "--queries", str(QUERIES), "--seed", "3"]
    assert run(["demo-shop", str(root / "shop"), *shape, "--quiet"]) == FINE
    with_quick_pictures(made.recipe)
    for arguments in (
        ["prepare", made.recipe, made.data],
        ["train", made.recipe, made.data, made.run, "--epochs", 1, "--seed", 5],
        ["export", made.run, made.data, made.model],
    ):
        assert run([*map(str, arguments), "--quiet"]) == FINE, arguments
    return made


@pytest.fixture(scope="module", autouse=True)
def serving(shop):
    """``tfmmrank serve`` as a process of its own, which loads TensorFlow while the first tests run."""
    command = [sys.executable, "-m", "tfmmrank", "serve", str(shop.model), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()  # where no test asked for the server, it may not be up yet


@pytest.fixture(scope="module")
def server(serving):
    line = serving.stdout.readline()
    assert line, serving.stderr.read()
    yield SimpleNamespace(process=serving, **json.loads(line))
    serving.send_signal(signal.SIGTERM)
    assert serving.wait(60) == 0


def test_prepare_tells_what_it_read(shop, capsys):
    found = ask(capsys, "prepare", shop.recipe, shop.root / "again")
    assert found["num_items"] == ITEMS
    assert sum(split["lists"] for split in found["splits"].values()) == QUERIES
    assert set(found["report"]) >= {"read", "skipped", "noted"}


def test_train_leaves_recipe_history_ranker(shop):
    recipe = yaml.safe_load((shop.run / "recipe.yaml").read_text("utf-8"))
    assert recipe["train"]["seed"] == 5
    assert recipe["train"]["epochs"] == 1
    assert recipe["data"]["items"]["table"] == str(shop.root / "shop" / "items.parquet")
    assert len(json.loads((shop.run / "history.json").read_text("utf-8"))["loss"]) == 1
    assert (shop.run / "ranker" / "ranker.json").is_file()


def test_train_goes_on_and_refuses_another_recipe(shop, capsys):
    options = ["train", shop.recipe, shop.data, shop.run, "--seed", 5]
    assert ask(capsys, *options, "--epochs", 2)["epochs"] == 2
    error = fails(capsys, "train", shop.recipe, shop.data, shop.run, "--seed", 6)
    assert "train.seed (5, now 6)" in error
    assert "--restart" in error


def test_a_mistake_in_the_recipe_does_not_spoil_the_run(shop, capsys, tmp_path):
    recipe = yaml.safe_load(shop.recipe.read_text("utf-8"))
    wrong = shop.recipe.with_name("wrong.yaml")
    wrong.write_text(yaml.safe_dump({**recipe, "train": {**recipe["train"], "loss": "softmax_los"}}), "utf-8")
    error = fails(capsys, "train", wrong, shop.data, tmp_path / "run", "--epochs", 1)
    assert f'{wrong}: train.loss: unknown loss "softmax_los"; did you mean "softmax_loss"' in error
    check_run(Recipe.load(shop.recipe), tmp_path / "run")  # raises where another recipe cannot be trained


def test_a_folder_of_something_else_is_left_alone(shop, capsys, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"")
    assert "is not empty and holds no run" in fails(capsys, "train", shop.recipe, shop.data, tmp_path)
    assert 'holds "cat.jpg", which is no version of a model' in fails(capsys, "export", shop.run, shop.data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.jpg"]


def test_data_of_another_recipe_is_told(shop, capsys, tmp_path):
    recipe = yaml.safe_load(shop.recipe.read_text("utf-8"))
    recipe["data"]["labels"]["grade"] = "another"
    other = shop.recipe.with_name("other.yaml")
    other.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    copy = shutil.copytree(shop.run, tmp_path / "run")  # trained: there is nothing left to do
    options = ["--epochs", "2", "--seed", "5", "--quiet"]
    assert run(["train", str(other), str(shop.data), str(copy), *options]) == FINE
    assert "prepared by a recipe with another data.labels" in capsys.readouterr().err


def test_evaluate(shop, capsys):
    options = ("--baselines", "--k", 5, "--report", shop.root / "report", "--ablate", "masked")
    found = ask(capsys, "evaluate", shop.run, shop.data, *options)
    assert list(found["systems"]) == ["model", "random", "popularity", "bm25", "oracle"]
    assert found["main"] == "ndcg@5"
    assert found["systems"]["oracle"]["metrics"]["ndcg@5"]["mean"] == pytest.approx(1.0)
    page = (shop.root / "report" / "index.html").read_text("utf-8")
    assert "NDCG@5" in page
    masked = [f"masked {name}" for name in ("title", "image", "attributes", "behaviour")]
    assert found["ablation"]["groups"] == {"masked": masked}
    assert found["ablation"]["systems"]["model"] == found["systems"]["model"]
    assert all(name in page for name in masked)
    assert not (shop.run / "ablation").exists()


def test_ablate_alone_is_all_of_it(shop, capsys, monkeypatch):
    asked = []

    def ablate(run, data, split, part, **options):
        asked.append((run, split, part, options["k"]))
        raise ValueError("so far")

    monkeypatch.setattr("tfmmrank.evaluation.ablate", ablate)
    assert "so far" in fails(capsys, "evaluate", shop.run, shop.data, "--ablate", "--k", 7)
    assert asked == [(shop.run, "test", "all", 7)]
    assert "holds no recipe (recipe.yaml is missing)" in fails(capsys, "evaluate", shop.data, shop.data, "--ablate")
    assert len(asked) == 1


def test_evaluate_with_all_baselines(shop, capsys, monkeypatch):
    """``--baselines all`` asks for them with the ranker, and tells what was chosen."""
    from tfmmrank import evaluation

    asked = []

    def fit(data, ranker, **options):
        asked.append((type(ranker).__name__, options["systems"]))
        learnt = evaluation.Random(1)
        learnt.name, learnt.chosen = "lambdamart", evaluation.Trial({"num_leaves": 7}, 0.5, 30)
        return [learnt, evaluation.Random(0)]

    monkeypatch.setattr(evaluation, "fit_baselines", fit)
    found = ask(capsys, "evaluate", shop.run, shop.data, "--baselines", "all", "--report", shop.root / "all")
    assert asked == [("Ranker", "all")]
    assert list(found["systems"]) == ["model", "lambdamart", "random"]
    assert found["chosen"] == {"lambdamart": {"settings": {"num_leaves": 7}, "valid": 0.5, "rounds": 30}}
    page = (shop.root / "all" / "index.html").read_text("utf-8")
    assert "lambdamart was chosen on the validation lists: num_leaves 7; 30 rounds; NDCG@10 0.5000 on valid." in page
    assert "Gradient-boosted trees" in page
    assert run(["evaluate", str(shop.run), str(shop.data), "--baselines", "some"]) == MISUSE
    assert "'some' is not one of 'simple', 'all'" in capsys.readouterr().err


def test_evaluate_for_people_names_what_the_numbers_rest_on(shop, capsys):
    capsys.readouterr()
    assert run(["evaluate", str(shop.run), str(shop.data), "--split", "valid", "--quiet"]) == FINE
    out = capsys.readouterr().out
    assert "NDCG@10" in out
    assert "2^grade" in out
    assert "skipped" in out


def test_evaluate_refuses_what_was_trained_on(shop, capsys, tmp_path):
    """The same queries, split otherwise: some of the new test queries have been learnt."""
    recipe = yaml.safe_load(shop.recipe.read_text("utf-8"))
    recipe["data"]["split"] = {"by": "query", "seed": 8}
    other = shop.recipe.with_name("otherwise.yaml")
    other.write_text(yaml.safe_dump(recipe), "utf-8")
    ask(capsys, "prepare", other, tmp_path / "data")
    error = fails(capsys, "evaluate", shop.run, tmp_path / "data")
    assert 'queries of split "test" are in the split "train" that' in error
    assert "what was taught would be tested" in error
    assert ask(capsys, "evaluate", shop.run, shop.data, "--split", "train")["split"] == "train"


def test_unknown_split_is_told_with_the_known_ones(shop, capsys):
    assert 'has no split "tets"; did you mean "test"?' in fails(
        capsys, "evaluate", shop.run, shop.data, "--split", "tets"
    )


def test_a_run_without_a_ranker(shop, capsys):
    assert "holds no ranker" in fails(capsys, "evaluate", shop.root, shop.data)


def test_export_keeps_a_version_that_exists(shop, capsys):
    assert [path.name for path in shop.model.iterdir()] == ["1"]
    assert str(shop.model / "1") in fails(capsys, "export", shop.run, shop.data, shop.model, "--version", 1)


def test_rank_by_id(server, capsys):
    found = ask(capsys, "rank", "red shirt", "--address", server.address, "--items", "i00001, i00002,nobody,i00001")
    scores = [item["score"] for item in found["items"] if item["known"]]
    assert scores == sorted(scores, reverse=True)
    assert [item["known"] for item in found["items"]] == [True, True, False]
    assert {item["item_id"]: item["known"] for item in found["items"]} == {
        "i00001": True, "i00002": True, "nobody": False,
    }  # fmt: skip


def test_rank_candidates_from_bm25_with_titles(shop, server, capsys):
    address = ["--address", server.address, "--data", shop.data]
    found = ask(capsys, "rank", "红色 衬衫 shirt", *address, "--candidates", 7, "--top", 3)
    assert found["candidates"] == 7
    assert len(found["items"]) == 3
    assert all(item["title"] for item in found["items"])
    assert ask(capsys, "rank", "qqqqqq", *address)["items"] == []


def test_rank_items_of_a_file_for_people(shop, server, capsys, tmp_path):
    file = tmp_path / "ids.txt"
    file.write_text("i00001\n\ni00002\n", encoding="utf-8")
    arguments = ["rank", "hat", "--address", server.address, "--items-file", str(file), "--data", str(shop.data)]
    assert run(arguments) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert {line.split()[1] for line in lines} == {"i00001", "i00002"}


def test_rank_of_nothing_but_unknown_items_warns(server, capsys):
    assert run(["rank", "hat", "--address", server.address, "--items", "nobody"]) == FINE
    out, error = capsys.readouterr()
    assert out == "  1  nobody    unknown\n"
    assert error == "tfmmrank: warning: the model knows none of these items, so their order says nothing\n"
    assert "the query is empty" in fails(capsys, "rank", "", "--address", server.address, "--items", "nobody")


def test_load_test_of_a_datasets_queries(shop, server, capsys):
    asked = ["--address", server.address, "--data", shop.data, "--candidates", 20, "--timeout", 60]
    found = ask(capsys, "load-test", *asked, "--rate", 40, "--arrivals", "constant", "--duration", 0.5, "--warmup", 0.2)
    assert found["statuses"] == {"OK": 20}
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
    closed = ask(capsys, "load-test", *asked, "--concurrency", 2, "--duration", 0.5, "--warmup", 0)
    assert closed["failed"] == 0
    assert closed["requests"] >= 2


def test_rank_refuses_what_the_model_does_not_read(server, capsys):
    arguments = ["rank", "hat", "--address", server.address, "--items", "i00001", "--context", "wether=rain"]
    assert 'the model reads no context column "wether"' in fails(capsys, *arguments)
    error = fails(capsys, "rank", "hat", "--address", server.address, "--items", "a", "--model", "nobodys_model")
    assert "nobodys_model" in error
    assert "is --model the name" in error


@pytest.mark.parametrize("form", ["elwc", "sequence_example"])
def test_convert(shop, capsys, tmp_path, form):
    found = ask(capsys, "convert", shop.data, "test", tmp_path / "out", "--format", form)
    assert found["lists"] == QUERIES // 4
    assert os.path.getsize(found["file"]) > 1000


def test_convert_to_libsvm(shop, capsys, tmp_path):
    ask(capsys, "convert", shop.data, "test", tmp_path / "out.txt", "--format", "libsvm")
    names, first, *_ = (tmp_path / "out.txt").read_text("utf-8").splitlines()
    assert names.startswith("# features: 1 ")
    float(first.split()[0])
    assert first.split()[1] == "qid:1"
    assert " # q" in first


PLUGIN = """
from tfmmrank import Fusion, Tokens, Tower, register_fusion, register_tower
from tfmmrank.stack import keras, tf


@register_tower("title_length")
class TitleLength(Tower):
    def __init__(self, columns, **options):
        super().__init__(columns, **options)
        self.dense = keras.layers.Dense(self.dim)

    def preprocess(self, raw):
        length = tf.strings.length(raw[self.columns[0]], unit="UTF8_CHAR")
        return {"title_length": tf.math.log1p(tf.cast(length, tf.float32))}

    def call(self, features, training=False):
        length = features["title_length"][:, None]
        return Tokens(self.dense(length)[:, None, :], length > 0)


@register_fusion("plugin_first")
class FirstToken(Fusion):
    def build(self, input_shape=None):
        self.project = keras.layers.Dense(self.dim)
        super().build(input_shape)

    def call(self, query, item, training=False):
        firsts = [tf.where(t.mask[..., :1], t.values[..., 0, :], 0.0) for t in item.values()]
        return self.project(tf.concat(firsts, -1))
"""


def test_a_tower_and_a_fusion_of_ones_own_train_export_and_serve(shop, capsys, tmp_path, monkeypatch):
    (tmp_path / "my_towers.py").write_text(PLUGIN, encoding="utf-8")
    recipe = yaml.safe_load((shop.run / "recipe.yaml").read_text("utf-8"))
    recipe["model"]["towers"] = {
        "title_length": {"kind": "title_length", "columns": ["title"]},
        "facts": {"kind": "behaviour", "columns": ["price", "rating"]},
    }
    recipe["model"]["fusion"] = {"kind": "plugin_first"}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert 'unknown tower "title_length"' in fails(capsys, "train", file, shop.data, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    plugin = ("--plugin", "my_towers")
    ask(capsys, "train", file, shop.data, tmp_path / "run", "--epochs", 1, *plugin)
    assert ask(capsys, "evaluate", tmp_path / "run", shop.data, *plugin)["main"] == "ndcg@10"
    ask(capsys, "export", tmp_path / "run", shop.data, tmp_path / "models" / "mine", *plugin)

    from tfmmrank import Client, Prepared, Ranker, scores_of, serve

    data = Prepared.open(shop.data)
    expected = scores_of(Ranker.load_ranker(tmp_path / "run" / "ranker"), data, "test")[0]
    lists = data.lists("test")
    ids = data.catalogue.ids[lists.item_rows[lists.of(0)]]
    with serve(tmp_path / "models" / "mine", port=0) as server, Client(server.address, "mine", timeout=60) as client:
        ranked = client.rank("anything", ids)
    # The item table's float16 has 11 bits: relative to the largest score.
    np.testing.assert_allclose(ranked.scores, expected[ranked.order], rtol=0, atol=2e-3 * np.abs(expected).max())
