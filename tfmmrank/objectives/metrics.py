"""TF-Ranking's Keras metrics by name, for watching training and choosing its best epoch.

TF-Ranking by itself breaks ties at random, so that an epoch measured twice has two values, and counts a list without a
positive label as 0. Here ties rank worst first, and the Ranker leaves such lists out, as ``tfmmrank.evaluation`` does.
Figures to report come from there: it says how many lists were left out.
"""

from __future__ import annotations

from typing import Any

from tfmmrank.registry import nearest
from tfmmrank.stack import keras, tf, tfr


def get_metric(name: str) -> Any:
    """A TF-Ranking metric from ``"ndcg@10"``, ``"mrr"``, ``"precision@5"``, ``"map"``, ``"arp"``, …; ties worst first.

    Raises:
        ValueError: for an unknown metric or a cut-off that is not a positive integer.
    """
    key, _, cut = name.partition("@")
    known = [value for attr, value in vars(tfr.keras.metrics.RankingMetricKey).items() if attr.isupper()]
    if key not in known:
        raise ValueError(f'unknown metric "{name}"{nearest(key, known)}; known: {", ".join(known)}, each with @k')
    if cut and (not cut.isdigit() or int(cut) == 0):
        raise ValueError(f'metric "{name}": the cut-off after @ is "{cut}"; expected a positive integer')
    return _TiesWorstFirst(tfr.keras.metrics.get(key, name=name, topn=int(cut) if cut else None))


class _TiesWorstFirst(keras.metrics.Metric):
    """Another metric, of scores among which are no ties left: what is tied is ranked against the ranker."""

    def __init__(self, metric: Any) -> None:
        super().__init__(name=metric.name)
        self.metric = metric

    def update_state(self, labels: Any, scores: Any, sample_weight: Any = None) -> Any:
        return self.metric.update_state(labels, without_ties(labels, scores), sample_weight=sample_weight)

    def result(self) -> Any:
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()


def without_ties(labels: Any, scores: Any) -> Any:
    """Scores ``[B, L]`` that rank as the given ones do, the lower label first where those are equal."""
    worst_first = tf.argsort(labels, axis=-1, stable=True)
    best_first = tf.argsort(-tf.gather(scores, worst_first, batch_dims=1), axis=-1, stable=True)
    order = tf.gather(worst_first, best_first, batch_dims=1)
    return -tf.cast(tf.argsort(order, axis=-1), scores.dtype)
