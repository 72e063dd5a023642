"""Recipe to ranker, training, strategies."""

from tfmmrank.training.build import build_ranker, seed_everything
from tfmmrank.training.checkpoint import OtherTraining
from tfmmrank.training.distillation import distill
from tfmmrank.training.ensembles import fit_ensemble
from tfmmrank.training.fit import fit, make_optimizer
from tfmmrank.training.strategies import make_strategy

__all__ = [
    "OtherTraining", "build_ranker", "distill", "fit", "fit_ensemble", "make_optimizer", "make_strategy",
    "seed_everything",
]  # fmt: skip
