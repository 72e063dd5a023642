"""A version's folder: what it says of itself, and that none is written over."""

import pytest

from tests.evaluation.pair_shops import FeatureLists
from tfmmrank import atomic
from tfmmrank.export import export
from tfmmrank.ranker import Ranker
from tfmmrank.stack import tf
from tfmmrank.towers import BehaviourTower


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return FeatureLists(tmp_path_factory.mktemp("lists"), lists=8)


@pytest.fixture(scope="module")
def ranker(data):
    ranker = Ranker([BehaviourTower(["features"], "slot", 4, name="past")], cross_layers=0, deep=[4])
    return ranker.adapt(data, progress=False).build_from_columns()


@pytest.fixture(scope="module")
def model(data, ranker, tmp_path_factory):
    model = tmp_path_factory.mktemp("models") / "letor"
    export(ranker, data, model, progress=False)
    return model


def test_python_finds_the_default_signature_too(model):
    loaded = tf.saved_model.load(str(model / "1"))
    asked = {"features": tf.ones([1, 2, 5]), "num_items": tf.constant([2])}
    default, named = (loaded.signatures[name](**asked)["scores"] for name in ("serving_default", "rank_features"))
    assert default.numpy().tolist() == named.numpy().tolist()


def test_a_version_that_another_process_wrote_first_stays(data, ranker, model, monkeypatch):
    def sync(folder):
        (model / "7").mkdir()
        (model / "7" / "theirs").touch()

    monkeypatch.setattr(atomic, "sync_directory", sync)
    with pytest.raises(FileExistsError, match="letor/7: was written by another process"):
        export(ranker, data, model, version=7, progress=False)
    assert [path.name for path in (model / "7").iterdir()] == ["theirs"]
    assert sorted(path.name for path in model.iterdir()) == ["1", "7"]


def test_facts_do_not_take_the_place_of_what_a_version_says_itself(data, ranker, tmp_path):
    for name in ("towers", "facts", "ops", "item_tokens"):
        with pytest.raises(ValueError, match=f'facts: "{name}" is a name of the description itself, as are '):
            export(ranker, data, tmp_path / "letor", progress=False, facts={"ndcg@10": 0.5, name: {}})
    assert not list((tmp_path / "letor").iterdir())
