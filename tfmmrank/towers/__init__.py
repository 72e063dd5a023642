"""Towers: one modality in, tokens out. ``towers`` is the registry, ``Tower`` the base of your own."""

from tfmmrank.towers.base import SIDES, Tower, towers
from tfmmrank.towers.behaviour import BehaviourTower
from tfmmrank.towers.image import ImageTower
from tfmmrank.towers.lexical import LexicalTower
from tfmmrank.towers.pretrained_image import PretrainedImageTower
from tfmmrank.towers.pretrained_text import PretrainedTextTower
from tfmmrank.towers.text import TextTower

register_tower = towers.register

__all__ = [
    "SIDES",
    "BehaviourTower",
    "ImageTower",
    "LexicalTower",
    "PretrainedImageTower",
    "PretrainedTextTower",
    "TextTower",
    "Tower",
    "register_tower",
    "towers",
]
