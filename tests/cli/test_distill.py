"""``tfmmrank distill`` on a small shop: a ranker with a smaller query encoder, in a folder like a run's."""

import json

import pytest
import yaml

from tests.cli.test_commands import ask, fails
from tests.evaluation.pair_shops import WORDS
from tests.quick_recipe import with_quick_pictures
from tfmmrank.cli.main import FINE, run


@pytest.fixture(scope="module")
def shop(tmp_path_factory, all_uncompiled):
    """A prepared demo shop, and a ranker whose texts are read by a BERT of fresh weights."""
    from tfmmrank.data import Prepared
    from tfmmrank.encoders.bert import BertEncoder
    from tfmmrank.ranker import Ranker
    from tfmmrank.towers.pretrained_text import PretrainedTextTower

    root = tmp_path_factory.mktemp("shop")
    assert run(["demo-shop", str(root / "shop"), "--items", "100", "--queries", "40", "--quiet"]) == FINE
    with_quick_pictures(root / "shop" / "shop.yaml")
    assert run(["prepare", str(root / "shop" / "shop.yaml"), str(root / "data"), "--quiet"]) == FINE
    encoder = BertEncoder(WORDS, 16, layers=2, heads=2, intermediate=16, max_tokens=8)
    query = PretrainedTextTower(["query"], "query", 8, encoder=encoder, name="query")
    title = PretrainedTextTower(["title"], dim=8, share=query, name="title")
    ranker = Ranker([query, title], cross_layers=0, deep=[8]).adapt(Prepared.open(root / "data"), progress=False)
    ranker.save_ranker(root / "run" / "ranker")
    return root


def test_a_student_is_written_as_a_run_and_measured_as_one(shop, capsys, tmp_path):
    texts = tmp_path / "log.txt"
    texts.write_text("red shoe\n\n  \n蓝色 包\n", "utf-8")
    out = tmp_path / "student"
    found = ask(capsys, "distill", shop / "run", shop / "data", out, "--blocks", 1, "--epochs", 2, "--texts", texts)
    assert (found["run"], found["blocks"]) == (str(out), 1)
    assert found["best_epoch"] in (1, 2)
    kept = json.loads((out / "distilled.json").read_text("utf-8"))
    assert kept["teacher"] == str(shop / "run")
    assert kept["history"]["val_scores"][kept["best_epoch"] - 1] == min(kept["history"]["val_scores"])
    config = yaml.safe_load((out / "ranker" / "ranker.json").read_text("utf-8"))
    layers = {part["name"]: part["encoder"]["layers"] for part in config["towers"]}
    assert layers == {"query": 1, "title": 2}
    assert 0 < ask(capsys, "evaluate", out, shop / "data")["systems"]["model"]["metrics"]["ndcg@10"]["mean"] < 1
    assert "exists; choose another folder" in fails(capsys, "distill", shop / "run", shop / "data", out)


def test_texts_that_are_no_utf8_are_told_with_their_line(shop, capsys, tmp_path):
    texts = tmp_path / "log.txt"
    texts.write_bytes(b"red shoe\n\xff\xfe\n")
    error = fails(capsys, "distill", shop / "run", shop / "data", tmp_path / "out", "--texts", texts)
    assert "log.txt, line 2" in error
    assert not (tmp_path / "out").exists()
