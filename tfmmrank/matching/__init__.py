"""Matches: what a query and an item have in common, without training. ``matches`` is the registry."""

from tfmmrank.matching.base import Match, matches
from tfmmrank.matching.cosine import CosineMatch, LateMatch
from tfmmrank.matching.features import MatchFeatures
from tfmmrank.matching.lexical import LexicalMatch

register_match = matches.register

__all__ = ["CosineMatch", "LateMatch", "LexicalMatch", "Match", "MatchFeatures", "matches", "register_match"]
