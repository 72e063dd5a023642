"""Pooled folds, by hand and against one table of the same queries."""

from __future__ import annotations

import numpy as np
import pytest

from tfmmrank.evaluation import PerQuery, compare, labels_of, pool
from tfmmrank.evaluation.tables import make_table


def fold(values, ids, dataset="fold", metric="ndcg@10", convention="gain", **options):
    """A table of metrics per query ``{system: [Q]}``."""
    measured = {name: {metric: PerQuery(np.array(some, float), metric, convention)} for name, some in values.items()}
    return make_table(dataset, "test", measured, ids, next(iter(values)), **options)


def test_by_hand():
    one = fold({"model": [1.0, 0.5, 0.5], "bm25": [0.5, 0.25, 0.5]}, ["a", "b", "c"], "fold 1")
    two = fold({"model": [1.0, np.nan], "bm25": [0.0, np.nan]}, ["d", "e"], "fold 2")
    whole = pool([one, two])
    assert (whole.dataset, whole.split, whole.query_ids) == ("fold 1, fold 2", "test", ("a", "b", "c", "d", "e"))
    assert whole.mean("model") == 0.75  # over the four queries; the mean of the folds' means would be 5 / 6
    assert (whole.per_query("model").used, whole.per_query("model").skipped) == (4, 1)
    difference = whole.rows["bm25"].difference
    assert difference.mean == pytest.approx((-0.5 - 0.25 - 0 - 1) / 4)
    assert difference.p_value == 2 / 8  # three differ, all one way: of 8 choices of signs two come as far
    assert difference.queries == 4


def test_parts_of_a_table_pool_to_the_table(demo_data):
    rng = np.random.default_rng(0)
    labels = labels_of(demo_data, "test")
    systems = {"model": [label + rng.normal(0, 1, len(label)) for label in labels], "oracle": labels}
    whole = compare(demo_data, "test", systems, resamples=500)
    halves = []
    for part in (slice(0, 5), slice(5, None)):
        values = {
            name: {
                metric: PerQuery(some.values[part], some.name, some.convention) for metric, some in row.metrics.items()
            }
            for name, row in whole.rows.items()
        }
        halves.append(make_table("demo", "test", values, whole.query_ids[part], "model", resamples=500))
    assert pool(halves).to_dict() == whole.to_dict()
    assert str(pool(halves)) == str(whole)
    assert pool(halves, "other").dataset == "other"
    assert pool([whole]).to_dict() == whole.to_dict()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (fold({"model": [1.0]}, ["c"]), r"table 2 has systems \['model'\]; expected \['bm25', 'model'\]"),
        (fold({"bm25": [1.0], "model": [1.0]}, ["c"]), "table 2 has reference bm25; expected model"),
        (fold({"model": [1.0], "bm25": [1.0]}, ["c"], convention="linear"), "table 2 has metrics .*linear"),
        (fold({"model": [1.0], "bm25": [1.0]}, ["b"]), "1 queries are in several tables, such as b"),
    ],
)
def test_folds_that_do_not_fit(other, says):
    with pytest.raises(ValueError, match=says):
        pool([fold({"model": [1.0, 0.5], "bm25": [0.5, 0.5]}, ["a", "b"]), other])


def test_no_folds():
    with pytest.raises(ValueError, match="no tables"):
        pool([])
