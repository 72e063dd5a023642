"""Is it better, and how sure is that: metrics per query, baselines, intervals, the report.

Importing this needs no TensorFlow; the baselines that read by a ranker's towers do when they are used.
"""

from tfmmrank.evaluation.ablation import ablate
from tfmmrank.evaluation.ablation_table import AblationTable
from tfmmrank.evaluation.baselines import Baseline, Oracle, Popularity, Random, fit_baselines
from tfmmrank.evaluation.bm25 import BM25, tokenize
from tfmmrank.evaluation.bootstrap import Difference, Interval, confidence_interval, holm, paired_difference
from tfmmrank.evaluation.choosing import Trial
from tfmmrank.evaluation.dnn import DNN
from tfmmrank.evaluation.folds import pool
from tfmmrank.evaluation.lambdamart import LambdaMART
from tfmmrank.evaluation.metrics import PerQuery, auc, average_precision, mrr, ndcg, precision, recall
from tfmmrank.evaluation.pair_features import PairFeatures
from tfmmrank.evaluation.report import write_report
from tfmmrank.evaluation.scoring import labels_of, scores_of
from tfmmrank.evaluation.slices import query_slices
from tfmmrank.evaluation.tables import Table, compare
from tfmmrank.evaluation.zero_shot import ZeroShot

__all__ = [
    "BM25",
    "DNN",
    "AblationTable",
    "Baseline",
    "Difference",
    "Interval",
    "LambdaMART",
    "Oracle",
    "PairFeatures",
    "PerQuery",
    "Popularity",
    "Random",
    "Table",
    "Trial",
    "ZeroShot",
    "ablate",
    "auc",
    "average_precision",
    "compare",
    "confidence_interval",
    "fit_baselines",
    "holm",
    "labels_of",
    "mrr",
    "ndcg",
    "paired_difference",
    "pool",
    "precision",
    "query_slices",
    "recall",
    "scores_of",
    "tokenize",
    "write_report",
]
