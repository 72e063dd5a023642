"""Is it better, and how sure is that: metrics per query, baselines, intervals, the report. Needs no TensorFlow."""

from tfmmrank.evaluation.ablation import ablate
from tfmmrank.evaluation.ablation_table import AblationTable
from tfmmrank.evaluation.baselines import Baseline, Oracle, Popularity, Random, fit_baselines
from tfmmrank.evaluation.bm25 import BM25, tokenize
from tfmmrank.evaluation.bootstrap import Difference, Interval, confidence_interval, paired_difference
from tfmmrank.evaluation.metrics import PerQuery, auc, average_precision, mrr, ndcg, precision, recall
from tfmmrank.evaluation.report import write_report
from tfmmrank.evaluation.scoring import labels_of, scores_of
from tfmmrank.evaluation.slices import query_slices
from tfmmrank.evaluation.tables import Table, compare

__all__ = [
    "BM25",
    "AblationTable",
    "Baseline",
    "Difference",
    "Interval",
    "Oracle",
    "PerQuery",
    "Popularity",
    "Random",
    "Table",
    "ablate",
    "auc",
    "average_precision",
    "compare",
    "confidence_interval",
    "fit_baselines",
    "labels_of",
    "mrr",
    "ndcg",
    "paired_difference",
    "precision",
    "query_slices",
    "recall",
    "scores_of",
    "tokenize",
    "write_report",
]
