"""TF-Ranking's Keras metrics by name, for watching training.

The figures to report come from ``tfmmrank.evaluation``: TF-Ranking breaks ties at random, and skips what has no
positive label without counting it.
"""

from __future__ import annotations

from typing import Any

from tfmmrank.registry import nearest
from tfmmrank.stack import tfr


def get_metric(name: str) -> Any:
    """A TF-Ranking metric from ``"ndcg@10"``, ``"mrr"``, ``"precision@5"``, ``"map"``, ``"arp"``, ….

    Raises:
        ValueError: for an unknown metric or a cut-off that is not a positive integer.
    """
    key, _, cut = name.partition("@")
    known = [value for attr, value in vars(tfr.keras.metrics.RankingMetricKey).items() if attr.isupper()]
    if key not in known:
        raise ValueError(f'unknown metric "{name}"{nearest(key, known)}; known: {", ".join(known)}, each with @k')
    if cut and (not cut.isdigit() or int(cut) == 0):
        raise ValueError(f'metric "{name}": the cut-off after @ is "{cut}"; expected a positive integer')
    return tfr.keras.metrics.get(key, name=name, topn=int(cut) if cut else None)
