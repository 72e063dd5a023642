"""Losses and metrics by name."""

from tfmmrank.objectives.losses import ALIASES, get_loss, loss_names
from tfmmrank.objectives.metrics import get_metric

__all__ = ["ALIASES", "get_loss", "get_metric", "loss_names"]
