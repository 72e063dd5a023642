"""The benchmarks' own arithmetic: folds, held-out items, means over seeds, and the tables that are written."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import examples, pages, quality
from benchmarks.interleaved import interleaved, ratio
from benchmarks.quality import SINGLE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    data = tmp_path / "data" / "fashion"
    data.mkdir(parents=True)
    queries = [
        {"query_id": f"q{i}", "query": f"word{i}", "split": ["train", "valid", "test"][i % 3]} for i in range(30)
    ]
    judgements = [
        {"query_id": f"q{i}", "item_id": f"i{(i * 7 + j) % 50}", "grade": j % 4} for i in range(30) for j in range(9)
    ]
    pd.DataFrame(queries).to_csv(data / "queries.csv", index=False)
    pd.DataFrame(judgements).to_csv(data / "judgements.csv", index=False)
    pd.DataFrame({"item_id": [f"i{i}" for i in range(50)], "image": "x.jpg"}).to_parquet(data / "items.parquet")
    monkeypatch.setenv("TFMMRANK_DATA", str(tmp_path / "data"))
    return tmp_path


def test_each_query_is_tested_once(folder):
    paths = examples.query_folds("fashion", 5, 0, folder / "out")
    tables = [pd.read_csv(path).set_index("query_id")["split"] for path in paths]
    tested = [query for table in tables for query in table.index[table == "test"]]
    assert sorted(tested) == sorted(tables[0].index)
    assert all(table.value_counts().to_dict() == {"train": 18, "valid": 6, "test": 6} for table in tables)


def test_held_out_items_stand_in_test_lists_and_no_others_do(folder):
    kept = pd.read_csv(examples.hold_out_items("fashion", 0.2, 0, folder / "out"))
    split = kept["query_id"].map(
        pd.read_csv(folder / "data" / "fashion" / "queries.csv").set_index("query_id")["split"]
    )
    tested = set(kept["item_id"][split == "test"])
    assert len(tested) <= 10
    assert tested
    assert not tested & set(kept["item_id"][split != "test"])


def test_half_of_the_pictures_go(folder):
    items = pd.read_parquet(examples.without_pictures("fashion", 0.5, 0, folder / "out"))
    assert (items["image"] == "").sum() == 25


def test_examples_and_their_single_modalities_are_recipes_that_fit_together(folder):
    for name in examples.EXAMPLES:
        recipe = examples.load_example(name)
        assert recipe.wrong_towers() == []
        for dropped in SINGLE.get(name, {}).values():
            less = examples.without_towers(recipe, dropped)
            assert set(recipe.model.towers) - set(less.model.towers) >= set(dropped)
            used = {name for match in less.model.match.values() for name in (match.query, match.item)}
            assert used <= set(less.model.towers)
            assert less.wrong_towers() == []


class _Data:
    name, path = "shop", "shop"
    splits = ("train", "test")
    labels = 1.0

    def lists(self, split):
        from tfmmrank.data.lists import Lists

        count = 12
        return Lists(
            np.array([f"q{i}" for i in range(count)], object), {}, np.arange(0, 4 * count + 1, 4),
            np.zeros(4 * count, np.int32), self.labels * np.tile([0.0, 1.0, 2.0, 3.0], count).astype(np.float32),
            np.ones(4 * count, np.float32), {},
        )  # fmt: skip


def test_mean_of_seeds_is_the_mean_of_each_query_s_metric(rng):
    from tfmmrank.evaluation import compare

    def scores():
        return [rng.random(4).astype(np.float32) for _ in range(12)]

    fixed = scores()
    one, two = (compare(_Data(), "test", {"model": scores(), "other": scores(), "fixed": fixed}) for _ in range(2))
    table, found = quality._found([one, two])
    for system in ("model", "other"):
        mean = (one.per_query(system).values + two.per_query(system).values) / 2
        np.testing.assert_allclose(table.per_query(system).values, mean)
    assert found["by_seed"]["other"] == [one.mean("other"), two.mean("other")]
    assert "fixed" not in found["by_seed"]
    found = {**found, "seeds": [0, 1], "machine": "m", "date": "d", "minutes": 1.2}
    page = pages.fill("a\n<!-- shop: begin -->\nbefore\n<!-- shop: end -->\nb", "shop", pages.systems_table(found))
    assert "before" not in page
    assert page.startswith("a\n")
    assert page.endswith("-->\nb")
    assert f"{table.mean('fixed'):.3f}" in page


@pytest.mark.parametrize("language", [0, 1])
def test_the_readmes_line_on_serving_holds_the_figures(language):
    def section(figures):
        return {"figures": figures, "machine": "2 CPU cores", "date": "2026-11-22"}

    found = {
        "latency": section(
            {
                "by id, closed loop, 1 at once": {"p50 ms": [7.25, 7.0, 8.0], "p99 ms": [11.5, 11.0, 12.0]},
                "with JPEG bytes, 128 pixels, closed loop, 1 at once": {
                    "p50 ms": [300.0, 290.0, 310.0],
                    "times as long as by id": [41.4, 40, 42],
                },
            }
        ),
        "candidates": section({"1,000 candidates": {"times as long as 100": [1.375, 1.3, 1.4]}}),
    }
    line = pages.served_line(found, language)
    for figure in ("7.2 ", "11.5", "1.38 ", "41 ", "2026-11-22"):
        assert figure in line


class _Ranker:
    def __init__(self, dim=4):
        self.dim = dim

    def get_config(self):
        return {"dim": self.dim}


def test_peers_are_fitted_once(tmp_path, rng, monkeypatch):
    """A benchmark takes hours: killed, it must not search the peers' settings again."""
    fitted = []

    class Peer:
        def __init__(self, name):
            self.name, self.chosen = name, f"{name}'s settings"

        def scores(self, data, split):
            return [np.full(4, len(fitted), np.float32) for _ in range(len(data.lists(split)))]

    def fit_baselines(data, ranker, seed, progress, systems):
        fitted.append((ranker.dim, seed, systems))
        return [Peer("trees + vectors")]

    monkeypatch.setattr("tfmmrank.evaluation.fit_baselines", fit_baselines)
    data, bench = _Data(), quality.Bench(tmp_path, progress=False)
    first, chosen = bench._peers(data, _Ranker(), 0, "shop", "all")
    again, chosen_again = quality.Bench(tmp_path, progress=False)._peers(data, _Ranker(), 0, "shop", "all")
    assert fitted == [(4, 0, "all")]
    assert chosen == chosen_again == {"trees + vectors": "trees + vectors's settings"}
    for one, other in zip(first["trees + vectors"], again["trees + vectors"], strict=True):
        np.testing.assert_array_equal(one, other)
    other = bench._peers(data, _Ranker(8), 0, "shop", "all")[0]["trees + vectors"]
    assert fitted == [(4, 0, "all"), (8, 0, "all")]
    assert other[0][0] == 2
    data.labels = 2.0
    bench._peers(data, _Ranker(8), 0, "shop", "all")
    assert len(fitted) == 3


def test_ratios_of_what_takes_turns():
    turns = []
    seconds = interleaved({name: lambda name=name: turns.append(name) for name in "ab"}, rounds=3, warm_up=1)
    assert "".join(turns) == "abbaabba"
    assert seconds["a"].shape == (3,)
    # A machine that slows down to a fifth in the last round, and so for both.
    assert ratio(np.array([2.0, 2.2, 10.0]), np.array([1.0, 1.0, 5.0])) == 2.0


def test_speed_needs_no_data_and_becomes_a_table(tmp_path, monkeypatch):
    figures = {"frozen: titles": {"lists/s": 1336.48, "times as fast": 66.37}, "xla: text": {"times as long": 0.7594}}
    monkeypatch.setitem(quality.SECTIONS, "speed", lambda bench: {"figures": figures, "rounds": 7, "seeds": [0]})
    monkeypatch.setenv("TFMMRANK_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "speed", "--results", str(tmp_path / "bench")])
    quality.main()
    found = json.loads((tmp_path / "bench" / "speed.json").read_text("utf-8"))
    assert (found["figures"], found["seeds"]) == (figures, [0])
    assert {"machine", "date", "minutes"} < set(found)
    table = pages.figures_table(found)
    assert (
        "| frozen: titles | lists/s | 1,336 |\n|  | times as fast | 66.4 |\n| xla: text | times as long | 0.759 |"
        in table
    )
    monkeypatch.setattr(sys, "argv", ["benchmarks", "speed", "fashion", "--results", str(tmp_path / "bench")])
    with pytest.raises(SystemExit, match="the evaluation data is not at"):
        quality.main()
