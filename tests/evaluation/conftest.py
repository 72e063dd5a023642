"""A demo shop, prepared; and lists and catalogues of a few rows, written by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.pair_shops import make_ranker, make_shop
from tfmmrank.data import Prepared, prepare
from tfmmrank.data.demo_shop import make_demo_shop
from tfmmrank.evaluation import PairFeatures
from tfmmrank.schema import Recipe

MODEL = {"towers": {"title": {"kind": "text", "columns": ["title"]}}}


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory) -> Prepared:
    """A demo shop of 120 items and 80 queries, English and Chinese."""
    folder = tmp_path_factory.mktemp("demo")
    recipe = make_demo_shop(folder / "shop", seed=3, items=120, queries=80)
    return prepare(Recipe.load(recipe), folder / "data", progress=False)


def write_shop(folder: Path, items, queries, judgements, **data) -> Prepared:
    """Prepares rows: items (id, title, picture), queries (id, text[, split]), judgements (query, item, grade)."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "items": (["item_id", "title", "image", "price"], []),
        "queries": (["query_id", "query", "split"], [(*row, "test") if len(row) == 2 else row for row in queries]),
        "judgements": (["query_id", "item_id", "grade"], judgements),
    }
    for name, title, picture in items:
        if picture:
            (folder / f"{name}.png").write_bytes(picture)
        tables["items"][1].append((name, title, f"{name}.png" if picture else "", 1))
    for name, (header, rows) in tables.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    content = {
        "data": {
            "name": "tiny",
            "items": {"table": "items.csv", "texts": ["title"], "image": "image", "numeric": ["price"]},
            "queries": {"table": "queries.csv", "split": "split"},
            "labels": {"kind": "judgements", "table": "judgements.csv"},
            **data,
        },
        "model": MODEL,
    }
    return prepare(Recipe.from_dict(content, root=folder), folder / "prepared", progress=False)


def png(color=(200, 30, 30), size=(12, 8), mode="RGB") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).convert(mode).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Prepared:
    """Four items and three judged queries in the test split, one of them without a positive grade."""
    items = [
        ("i1", "red shirt", png()),
        ("i2", "blue shirts, shirt", png((30, 30, 200))),
        ("i3", "<b>green</b> mug bag", b""),
        ("i4", "红色 衬衫", b"no picture at all"),
    ]
    queries = [("q1", "red shirt"), ("q2", "<script>mug</script>"), ("q3", "红色"), ("q4", "old hat", "train")]
    judgements = [
        ("q1", "i1", 3), ("q1", "i2", 1), ("q1", "i3", 0),
        ("q2", "i3", 2), ("q2", "i1", 0),
        ("q3", "i4", 0), ("q3", "i1", 0),
        ("q4", "i2", 2), ("q4", "i3", 1), ("q4", "i1", 0),
    ]  # fmt: skip
    return write_shop(tmp_path_factory.mktemp("tiny"), items, queries, judgements)


@pytest.fixture(scope="session")
def letor_data(tmp_path_factory) -> Prepared:
    """Lists without a catalogue, from a LibSVM file."""
    folder = tmp_path_factory.mktemp("letor")
    lines = ["2 qid:1 1:0.5 2:3", "0 qid:1 1:0.25 2:1", "1 qid:1 1:0.75 2:2", "1 qid:2 1:1 2:0", "0 qid:2 1:0 2:5"]
    for split in ("train", "test"):
        shift = 0 if split == "train" else 100
        text = "\n".join(
            line.replace("qid:1", f"qid:{shift + 1}").replace("qid:2", f"qid:{shift + 2}") for line in lines
        )
        (folder / f"{split}.txt").write_text(text + "\n", encoding="utf-8")
    files = {"train": ["train.txt"], "test": ["test.txt"]}
    model = {"towers": {"features": {"kind": "behaviour", "side": "slot", "columns": ["features"]}}}
    content = {"data": {"name": "letor", "labels": {"kind": "libsvm", "files": files}}, "model": model}
    return prepare(Recipe.from_dict(content, root=folder), folder / "prepared", progress=False)


@pytest.fixture
def random_lists():
    """Random grades 0..4 and scores with many ties, 200 queries of 1 to 40 items."""
    rng = np.random.default_rng(11)
    lengths = rng.integers(1, 41, 200)
    labels = [rng.choice(5, n, p=[0.6, 0.2, 0.1, 0.06, 0.04]).astype(float) for n in lengths]
    scores = [rng.integers(0, 8, n).astype(float) for n in lengths]
    return labels, scores


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The tiny shop, with an untrained ranker of it, and what learnt baselines see of both."""
    return make_shop(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def ranker(shop):
    return make_ranker(shop)


@pytest.fixture(scope="session")
def features(shop, ranker):
    return PairFeatures(ranker, shop)
