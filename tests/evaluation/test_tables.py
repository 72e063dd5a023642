"""The comparison table and slices."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfmmrank.evaluation import Oracle, Random, compare, confidence_interval, holm, labels_of, ndcg, query_slices
from tfmmrank.evaluation.tables import p_text, title


@pytest.fixture(scope="module")
def systems(demo_data):
    return {b.name: b.fit(demo_data).scores(demo_data, "test") for b in (Random(0), Oracle(), Random(1))}


@pytest.fixture(scope="module")
def table(demo_data):
    rng = np.random.default_rng(0)
    labels = labels_of(demo_data, "test")
    noisy = [label + rng.normal(0, 1, len(label)) for label in labels]
    both = {"random": Random(0).scores(demo_data, "test"), "noisy": noisy, "oracle": labels}
    return compare(demo_data, "test", both, k=5, reference="random", resamples=2000)


def test_the_table_holds_the_metrics(table, demo_data):
    labels = labels_of(demo_data, "test")
    expected = ndcg(labels, Random(0).scores(demo_data, "test"), k=5)
    assert table.main == "ndcg@5"
    assert table.mean("random") == pytest.approx(expected.mean)
    mine, alone = table.interval("random"), confidence_interval(expected.values, resamples=2000)
    assert [mine.low, mine.high] == pytest.approx([alone.low, alone.high])  # the same draws, summed in another order
    assert table.mean("oracle") == 1
    averaged = ndcg(labels, Random(0).scores(demo_data, "test"), k=5, ties="average")
    assert table.mean("random", "ndcg@5 ties averaged") == pytest.approx(averaged.mean)
    assert table.metric_names == ["ndcg@5", "ndcg@5 ties averaged", "mrr", "map", "precision@5", "recall@5", "auc"]
    assert table.rows["random"].difference is None
    difference = table.rows["oracle"].difference
    assert difference.mean == pytest.approx(1 - expected.mean)
    assert difference.p_value < 0.01
    with pytest.raises(KeyError, match=r'no system "nosy"; did you mean "noisy"'):
        table.mean("nosy")


def test_the_text_says_what_the_numbers_rest_on(table):
    text = str(table)
    used, skipped = table.per_query("random").used, table.per_query("random").skipped
    assert f"NDCG@5: gain 2^grade − 1, ties worst first; {used} queries used, {skipped} skipped." in text
    assert "95% percentile bootstrap interval over queries, 2,000 resamples" in text
    assert "paired randomisation test against random" in text
    lines = text.splitlines()
    assert lines[0] == "demo, split test"
    assert len({len(line) for line in lines[1:6]}) == 1  # header, rule and rows align


def test_as_json_values(table):
    content = json.loads(json.dumps(table.to_dict()))
    assert content["systems"]["oracle"]["metrics"]["ndcg@5"]["mean"] == 1
    assert content["systems"]["noisy"]["metrics"]["ndcg@5"]["used"] == table.per_query("noisy").used
    assert content["systems"]["random"]["difference"] is None


def test_values_that_do_not_exist_become_null(tiny_data):
    slim = compare(tiny_data, "test", {"oracle": labels_of(tiny_data, "test")}, threshold=5)
    metrics = slim.to_dict()["systems"]["oracle"]["metrics"]
    assert metrics["mrr"]["mean"] is None
    assert (metrics["ndcg@10"]["used"], metrics["ndcg@10"]["skipped"]) == (2, 1)
    json.dumps(slim.to_dict(), allow_nan=False)
    assert "p:" not in slim.caption  # nothing to compare with


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s[:-1], r'system "x": 2 arrays of scores for 3 lists'),
        (lambda s: [*s[:-1], s[-1][:1]], r'system "x": query q3: scores have shape \(1,\); expected \(2,\)'),
        (lambda s: [s[0] * np.nan, *s[1:]], 'system "x": query q1, item 0: score is nan'),
    ],
)
def test_scores_that_do_not_fit(tiny_data, change, says):
    with pytest.raises(ValueError, match=says):
        compare(tiny_data, "test", {"x": change(labels_of(tiny_data, "test"))})


def test_bad_arguments(tiny_data):
    with pytest.raises(ValueError, match="systems is empty"):
        compare(tiny_data, "test", {})
    with pytest.raises(ValueError, match=r'no system "modle"; did you mean "model"'):
        compare(tiny_data, "test", {"model": labels_of(tiny_data, "test")}, reference="modle")


def test_titles_and_p_values():
    assert [title(name) for name in ("ndcg@10", "precision@5", "recall@5", "map")] == ["NDCG@10", "P@5", "R@5", "MAP"]
    assert [p_text(p) for p in (0.00004, 0.0001, 0.0321, float("nan"))] == ["<0.0001", "0.0001", "0.0321", "–"]
    at_floor = [p_text(times / 10_001, at_floor=True) for times in (1, 3, 7, 10, 12)]
    assert at_floor == ["<0.0001", "<0.0003", "<0.0007", "<0.001", "<0.002"]  # rounded up
    assert p_text(1.0, at_floor=True) == "<1"


def test_p_values_are_corrected_for_all_the_systems(table):
    found = {name: table.rows[name].difference for name in ("noisy", "oracle")}
    assert [found[name].p_holm for name in found] == holm([found[name].p_value for name in found])
    assert found["oracle"].at_floor
    assert found["oracle"].p_value == found["oracle"].p_floor == pytest.approx(1 / 2001)
    header, body = table.cells()
    assert header[2:5] == ["− random", "p", "p Holm"]
    assert body[0][2:5] == ["", "", ""]
    assert body[2][3:5] == ["<0.0005", "<0.001"]
    assert "corrected for 2 comparisons (Holm-Bonferroni)" in table.caption
    content = table.to_dict()["systems"]["oracle"]["difference"]
    assert (content["p_value"], content["p_floor"]) == (found["oracle"].p_value, found["oracle"].p_floor)
    assert content["p_holm"] == found["oracle"].p_holm == 2 * found["oracle"].p_value


def test_one_comparison_needs_no_correction(demo_data):
    two = {name: Random(seed).scores(demo_data, "test") for name, seed in (("a", 0), ("b", 1))}
    found = compare(demo_data, "test", two, resamples=500)
    assert found.rows["b"].difference.p_holm == found.rows["b"].difference.p_value
    assert "p Holm" not in str(found)
    assert "p:" in found.caption
    assert len({len(line) for line in found.cells()[1]}) == 1


def test_ten_systems_that_all_differ_can_be_told_to_at_one_percent(demo_data):
    labels = labels_of(demo_data, "test")
    worse = {f"s{i}": [-label + 0.01 * i for label in labels] for i in range(10)}
    found = compare(demo_data, "test", {"oracle": labels, **worse})
    assert all(found.rows[name].difference.p_holm < 0.01 for name in worse)
    assert found.rows["s0"].difference.p_holm == pytest.approx(10 / 10_001)


# -- slices ------------------------------------------------------------------------------------------------------------


def test_slices_by_hand(tiny_data):
    lists, slices = tiny_data.lists("test"), query_slices(tiny_data, "test")
    found = {name: lists.query_ids[mask].tolist() for name, mask in slices.items()}
    assert found == {
        "query in Chinese": ["q3"],
        "query in other scripts": ["q1", "q2"],
        "every best item has a picture": ["q1"],  # q3 has no positive grade and is in neither
        "a best item has no picture": ["q2"],
    }


def test_slices_part_the_queries(table, demo_data):
    slices = query_slices(demo_data, "test")
    chinese, other = slices["query in Chinese"], slices["query in other scripts"]
    assert (chinese ^ other).all()
    found = table.sliced(slices)
    values = table.per_query("noisy").values
    assert found["query in Chinese"]["systems"]["noisy"].mean == pytest.approx(np.nanmean(values[chinese]))
    used = found["query in Chinese"]["used"] + found["query in other scripts"]["used"]
    assert used == table.per_query("noisy").used


def test_slices_without_a_catalogue(letor_data):
    assert query_slices(letor_data, "test") == {}
