"""``tfmmrank export --update-items`` and ``--weights``, as they are typed."""

import json

import pytest

from tests.serving import served_shop
from tfmmrank.cli.main import FAILED, FINE, MISUSE, run
from tfmmrank.data import prepare
from tfmmrank.export import export
from tfmmrank.export.description import DESCRIPTION_FILE
from tfmmrank.ranker import Ranker
from tfmmrank.towers import BehaviourTower


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, all_uncompiled):
    """RUN, DATA, MODEL, with a version in it; of a ranker that is quick to export."""
    folder = tmp_path_factory.mktemp("export")
    data = prepare(served_shop.make_recipe(folder / "shop"), folder / "data", progress=False)
    ranker = Ranker([BehaviourTower(["price"], dim=4, name="price")], cross_layers=0, deep=[4])
    ranker.adapt(data, progress=False).save_ranker(folder / "run" / "ranker")
    export(ranker, data, folder / "tiny", progress=False)
    return [str(folder / "run"), str(data.path), str(folder / "tiny")]


def test_update_items_reports_what_became_of_them(arguments, capsys):
    assert run(["export", *arguments, "--update-items", "--weights", "int8", "--json"]) == FINE
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["version"]) == ("tiny", 2)
    assert found["items"] == {"added": 0, "changed": 0, "removed": 0, "unchanged": 40, "encoded": 0}
    with open(f"{found['path']}/{DESCRIPTION_FILE}", encoding="utf-8") as file:
        assert json.load(file)["weights"] == "int8"


def test_another_ranker_is_refused(arguments, capsys, tmp_path):
    ranker = Ranker.load_ranker(f"{arguments[0]}/ranker")
    ranker.cross.head.bias.assign_add([1.0])
    ranker.save_ranker(tmp_path / "ranker")
    assert run(["export", str(tmp_path), *arguments[1:], "--update-items"]) == FAILED
    error = capsys.readouterr().err
    assert "was exported of another ranker" in error
    assert "Traceback" not in error


def test_unknown_weights_are_misuse(arguments, capsys):
    assert run(["export", *arguments, "--weights", "int4"]) == MISUSE
    assert "'int4' is not one of 'float32', 'float16', 'int8'" in capsys.readouterr().err
