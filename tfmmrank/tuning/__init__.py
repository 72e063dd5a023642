"""Searching a recipe's options on validation lists, with Optuna."""

try:
    import optuna  # noqa: F401 - before TensorFlow is, so that its absence is told at once
except ModuleNotFoundError as error:
    if error.name != "optuna":
        raise
    raise ImportError('tuning needs Optuna, an extra of this package: pip install "tfmmrank[tune]"') from error

from tfmmrank.tuning.outcome import Outcome, Tried
from tfmmrank.tuning.search import tune

__all__ = ["Outcome", "Tried", "tune"]
