"""Towers: one modality in, tokens out. Importing this package registers the built-in ones."""

from tfmmrank.towers.base import SIDES, Tower, towers
from tfmmrank.towers.behaviour import BehaviourTower
from tfmmrank.towers.image import ImageTower
from tfmmrank.towers.text import TextTower

__all__ = ["SIDES", "BehaviourTower", "ImageTower", "TextTower", "Tower", "towers"]
