"""Cross-validation: the folds' tables as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tfmmrank.evaluation.metrics import PerQuery
from tfmmrank.evaluation.tables import Table, make_table


def pool(tables: Sequence[Table], dataset: str | None = None) -> Table:
    """Pools the tables of several folds: one mean, one interval and one paired test over all their queries.

    For folds over queries, and for official folds such as LETOR's: train and choose anew in each fold, ``compare`` on
    its test split, pool. Few queries make a wide interval; with every query tested once it is as narrow as the data
    allows.

    Means are over queries, so that a fold counts by the queries it has. LETOR's own figure is the mean of the folds'
    means: ``np.mean([table.mean("model") for table in tables])``. The folds' rankers learnt from overlapping queries,
    which intervals and tests do not know of: they tell how the rankers fare on other queries, not how others trained
    on other queries would (Dietterich, 1998).

    Args:
        tables: from ``compare``, a table a fold, of the same systems; each query stands in one of them.
        dataset: name of the whole; default: the folds' names.

    Returns:
        The table of all queries, in the order of the folds; level, resamples and seed are the first one's.

    Raises:
        ValueError: for no tables, tables that differ in systems, reference, metrics or what these rest on, or a query
            that is in two.

    Example:
        >>> folds = [Prepared.open(f"data/fold{k}") for k in range(1, 6)]
        >>> print(pool([compare(data, "test", systems_of(data)) for data in folds]))
    """
    _check(tables)
    first = tables[0]
    values: dict[str, dict[str, PerQuery]] = {}
    for system in first.rows:
        values[system] = {}
        for metric in first.metric_names:
            some = first.per_query(system, metric)
            parts = [table.per_query(system, metric).values for table in tables]
            values[system][metric] = PerQuery(np.concatenate(parts), some.name, some.convention)
    name = dataset or ", ".join(dict.fromkeys(table.dataset for table in tables))
    split = ", ".join(dict.fromkeys(table.split for table in tables))
    query_ids = [query for table in tables for query in table.query_ids]
    return make_table(name, split, values, query_ids, first.reference, first.level, first.resamples, first.seed)


def _check(tables: Sequence[Table]) -> None:
    if not tables:
        raise ValueError("pool: no tables; expected one a fold")
    expected = _basis(tables[0])
    for number, table in enumerate(tables[1:], start=2):
        for what, mine in _basis(table).items():
            if mine != expected[what]:
                raise ValueError(f"pool: table {number} has {what} {mine}; expected {expected[what]}, as the first")
    counts = Counter(query for table in tables for query in table.query_ids)
    twice = [query for query, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"pool: {len(twice)} queries are in several tables, such as {twice[0]}; expected each in one")


def _basis(table: Table) -> dict[str, object]:
    """What must be the same in all folds."""
    row = table.rows[table.reference]
    return {
        "systems": sorted(table.rows),
        "reference": table.reference,
        "metrics": {name: row.metrics[name].convention for name in table.metric_names},
    }
