"""Ensembles: the mean of their members, saved, taken apart and served as any ranker."""

import numpy as np
import pytest

from tests.conftest import encode_picture, uncompiled
from tests.tiny_shop import ServedShop, as_bytes, make_recipe
from tests.towers.tiny_encoders import add_sources
from tfmmrank import Ensemble, fit_ensemble
from tfmmrank.evaluation.masking import masked_scores
from tfmmrank.export import export
from tfmmrank.export.servable import Servable
from tfmmrank.ranker import Ranker

MODEL = {
    "dim": 8,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "layers": 0},
        "title": {"kind": "text", "columns": ["title"], "share": "query"},
        "image": {"kind": "pretrained_image", "columns": ["image"], "encoder": {"source": "tiny"}},
        "words": {"kind": "lexical", "columns": ["title"]},
        "asked": {"kind": "lexical", "side": "query", "columns": ["query"], "share": "words"},
        "behaviour": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]},
    },
    "match": {"words": {"kind": "lexical", "query": "asked", "item": "words"}},
    "fusion": {"kind": "mean"},
    "cross": {"layers": 1, "deep": [8]},
}
OPTIONS = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3, "seed": 4}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return ServedShop(tmp_path_factory.mktemp("shop"), encode_picture, lists=16)


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory):
    """An ensemble of two, its run, and its histories."""
    run = tmp_path_factory.mktemp("ensemble")
    with pytest.MonkeyPatch.context() as patch, uncompiled():
        add_sources(patch)
        ensemble, histories = fit_ensemble(make_recipe(MODEL, **OPTIONS), shop, run, 2, progress=False)
    return ensemble, run, histories


def test_scores_are_the_mean_of_members_of_other_seeds(trained, shop):
    ensemble, run, histories = trained
    members = [shop.scores(Ranker.load_ranker(run / "members" / str(number) / "ranker")) for number in range(2)]
    np.testing.assert_allclose(shop.scores(ensemble), np.mean(members, 0), atol=1e-5)
    assert not np.allclose(*members)
    assert histories[0]["loss"] != histories[1]["loss"]


def test_saved_and_loaded_it_is_the_same(trained, shop):
    ensemble, run, _ = trained
    loaded = Ranker.load_ranker(run / "ranker")
    assert isinstance(loaded, Ensemble)
    np.testing.assert_allclose(shop.scores(loaded), shop.scores(ensemble), atol=1e-6)


def test_a_modality_is_hidden_from_all_members(trained, shop, uncompiled):
    ensemble, run, _ = trained
    image = {"image": ["image"]}
    apart = [
        masked_scores(Ranker.load_ranker(run / "members" / str(number) / "ranker"), shop, "test", image)
        for number in range(2)
    ]
    hidden = masked_scores(ensemble, shop, "test", image)["image"]
    for got, *members in zip(hidden, *(a["image"] for a in apart), strict=True):
        np.testing.assert_allclose(got, np.mean(members, 0), atol=1e-5)


def test_served_it_scores_as_predict(trained, shop, tmp_path):
    ensemble, _, _ = trained
    servable = Servable(export(ensemble, shop, tmp_path / "tiny", progress=False))
    lists = shop.lists("test")
    expected = ensemble.predict(shop.dataset("test", ensemble, batch_size=8), verbose=0)
    for number in range(4):
        rows = lists.item_rows[slice(*lists.offsets[number : number + 2])]
        inputs = {
            "query": as_bytes([lists.queries["query"][number]]), "item_ids": as_bytes(shop.catalogue.ids[rows])[None],
            "num_items": np.array([len(rows)], np.int32),
        }  # fmt: skip
        found = servable.run("rank", inputs)["scores"][0]
        np.testing.assert_allclose(found, expected[number, : len(rows)], atol=3e-3)  # half precision in the store
    servable.close()


def test_what_is_no_ensemble_is_told(trained):
    ensemble, run, _ = trained
    with pytest.raises(ValueError, match="of 1 rankers; expected at least 2"):
        Ensemble(ensemble.members[:1])
    config = ensemble.members[1].get_config()
    with pytest.raises(ValueError, match="member 1 is not configured"):
        Ensemble([ensemble.members[0], Ranker.from_config({**config, "deep": [4]})])
    other = Ranker.load_ranker(run / "members" / "1" / "ranker")
    frozen = other.towers[2].encoder.frozen_weights()[0]
    frozen.assign(frozen + 1.0)
    with pytest.raises(ValueError, match="other frozen weights"):
        Ensemble([ensemble.members[0], other])
    with pytest.raises(NotImplementedError, match="fit_ensemble"):
        ensemble.compile()
