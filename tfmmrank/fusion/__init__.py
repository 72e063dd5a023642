"""Fusions: one file a way of fusing. ``fusions`` is the registry, ``Fusion`` the base of your own."""

from tfmmrank.fusion.attention import AttentionFusion
from tfmmrank.fusion.base import Fusion, fusions
from tfmmrank.fusion.concat import ConcatFusion
from tfmmrank.fusion.gated import GatedFusion
from tfmmrank.fusion.max import MaxFusion
from tfmmrank.fusion.mean import MeanFusion
from tfmmrank.fusion.min import MinFusion
from tfmmrank.fusion.sum import SumFusion
from tfmmrank.fusion.terms import TermFusion
from tfmmrank.fusion.transformer import TransformerFusion
from tfmmrank.fusion.weighted import WeightedFusion

register_fusion = fusions.register

__all__ = [
    "AttentionFusion", "ConcatFusion", "Fusion", "GatedFusion", "MaxFusion", "MeanFusion", "MinFusion", "SumFusion",
    "TermFusion", "TransformerFusion", "WeightedFusion", "fusions", "register_fusion",
]  # fmt: skip
