"""Recipe to ranker, training, strategies."""

from tfmmrank.training.build import build_ranker, seed_everything
from tfmmrank.training.fit import fit, make_optimizer
from tfmmrank.training.strategies import make_strategy

__all__ = ["build_ranker", "fit", "make_optimizer", "make_strategy", "seed_everything"]
