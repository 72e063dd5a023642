"""Both ends see the same pixels: prepared ahead of training, and sent to ``rank_features`` as the shop has them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.picture_kinds import animated_webp, picture_kinds
from tests.serving.served_shop import TOLERANCE, assert_table_scores, shake
from tfmmrank.data import prepare
from tfmmrank.data.feature_store import item_features
from tfmmrank.export import export
from tfmmrank.export.warmup import WARMUP_FILE
from tfmmrank.schema import Recipe
from tfmmrank.serving import Client, serve
from tfmmrank.stack import tf
from tfmmrank.training import build_ranker

KINDS = [*picture_kinds(0).items(), *picture_kinds(1).items()]
# What costs a server its memory, or its life: a header of 65,536 x 65,536 pixels, and what TensorFlow decodes wrongly.
_PNG, _WEBP = dict(KINDS)["PNG"], dict(KINDS)["WebP, alpha"]
REFUSED = [
    _PNG[:16] + b"\x00\x01\x00\x00" * 2 + _PNG[24:],
    _WEBP[:24] + b"\xff\xff\x00" * 2 + _WEBP[30:],
    animated_webp(alpha=False),
    animated_webp(alpha=True),
]
SIZE = 24

MODEL = {
    "dim": 8,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "vocab_size": 50, "max_tokens": 4},
        "network": {"kind": "image", "columns": ["picture"], "size": SIZE, "tokens": "regions"},
        "colours": {
            "kind": "pretrained_image", "columns": ["picture"], "output": "both",
            "encoder": {"source": "colours", "size": 2 * SIZE},
        },
    },
    "fusion": {"kind": "mean"},
    "cross": {"layers": 1, "deep": [8]},
}  # fmt: skip


def write_shop(folder):
    """An item a picture, each file named ``.img``, and one list of them all in every split."""
    (folder / "pictures").mkdir(parents=True)
    for number, (_, content) in enumerate(KINDS):
        (folder / "pictures" / f"{number}.img").write_bytes(content)
    items = [{"item_id": f"i{n}", "title": name, "picture": f"pictures/{n}.img"} for n, (name, _) in enumerate(KINDS)]
    pd.DataFrame(items).to_csv(folder / "items.csv", index=False)
    splits = ("train", "valid", "test")
    queries = [{"query_id": split, "query": f"picture {split}", "split": split} for split in splits]
    pd.DataFrame(queries).to_csv(folder / "queries.csv", index=False)
    judged = [{"query_id": s, "item_id": f"i{n}", "grade": n % 3} for s in splits for n in range(len(KINDS))]
    pd.DataFrame(judged).to_csv(folder / "judgements.csv", index=False)
    data = {
        "name": "pictures",
        "items": {"table": "items.csv", "texts": ["title"], "image": "picture"},
        "queries": {"table": "queries.csv", "split": "split"},
        "labels": {"kind": "judgements", "table": "judgements.csv"},
    }
    return Recipe.from_dict({"data": data, "model": MODEL, "train": {"seed": 3}}, root=folder)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    recipe = write_shop(folder / "shop")
    return recipe, prepare(recipe, folder / "data", progress=False)


@pytest.fixture(scope="module")
def ranker(prepared):
    ranker = build_ranker(*prepared)
    shake(ranker.build_from_columns())
    ranker.compile()
    return ranker


def test_nothing_is_converted(prepared):
    _, data = prepared
    assert data.catalogue.rows(np.arange(len(KINDS)))["picture"].tolist() == [content for _, content in KINDS]
    assert not any("picture" in cause for cause in data.meta["report"]["noted"])


@pytest.mark.parametrize("name", ["network", "colours"])
def test_the_store_holds_what_the_graph_sees_of_the_originals(prepared, ranker, name):
    _, data = prepared
    (tower,) = (tower for tower in ranker.towers if tower.name == name)
    kept = item_features(data, tower, progress=False)
    seen = tower.embed(tower.preprocess({"picture": tf.constant([content for _, content in KINDS])}))
    assert kept["present"].all()
    for feature, value in seen.items():
        np.testing.assert_array_equal(kept[feature], value)


def test_scores_of_the_originals_are_those_of_predict(prepared, ranker, tmp_path):
    _, data = prepared
    ((features, *_),) = data.dataset("test", ranker, progress=False)
    expected = ranker(features).numpy()[0]
    (export(ranker, data, tmp_path / "pictures", progress=False) / WARMUP_FILE).unlink()  # the export replayed it
    items = [{"item_id": f"i{number}", "picture": content} for number, (_, content) in enumerate(KINDS)]
    with serve(tmp_path / "pictures", port=0) as server, Client(server.address, "pictures", timeout=60) as client:
        raw = client.rank_features("picture test", items)
        by_id = client.rank("picture test", [item["item_id"] for item in items])
        without = client.rank_features("picture test", [{"item_id": "i0", "picture": b""}])
        refused = client.rank_features("picture test", [{"picture": content} for content in REFUSED])
    scores = np.empty(len(KINDS), np.float32)
    scores[raw.order] = raw.scores
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    scores[by_id.order] = by_id.scores
    assert_table_scores(scores, expected)
    assert np.unique(expected.round(4)).size > len(KINDS) // 2  # pictures, and nothing else, tell the items apart
    assert abs(without.scores[0] - expected[0]) > 100 * TOLERANCE
    np.testing.assert_allclose(refused.scores, without.scores[0], atol=TOLERANCE)  # the server lives, too
