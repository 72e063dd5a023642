"""Multimodal learning to rank for shop search, on TensorFlow.

Importing this package selects Keras 2 (``tfmmrank.stack``) and nothing more; TensorFlow is imported when a name that
needs it is first used::

    import tfmmrank as tr

    data = tr.prepare(tr.Recipe.load("shop.yaml"), "data/shop")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import tfmmrank.stack  # noqa: F401 - selects Keras 2 before anything touches tf.keras
from tfmmrank.version import __version__ as __version__

if TYPE_CHECKING:
    from tfmmrank.atomic import replace_directory
    from tfmmrank.data import Catalogue, DataError, Lists, Prepared, prepare
    from tfmmrank.data.demo_shop import make_demo_shop
    from tfmmrank.data.formats import export_lists
    from tfmmrank.ensemble import Ensemble
    from tfmmrank.evaluation import compare, fit_baselines, scores_of, write_report
    from tfmmrank.fusion import Fusion, register_fusion
    from tfmmrank.ranker import Ranker, RankerColumns
    from tfmmrank.schema import Recipe, RecipeError
    from tfmmrank.serving import Client, serve
    from tfmmrank.stack import StackError
    from tfmmrank.tokens import Tokens
    from tfmmrank.towers import BehaviourTower, ImageTower, TextTower, Tower, register_tower
    from tfmmrank.training import build_ranker, fit, fit_ensemble, make_strategy

_HOMES = {
    "tfmmrank.atomic": ["replace_directory"],
    "tfmmrank.data": ["Catalogue", "DataError", "Lists", "Prepared", "prepare"],
    "tfmmrank.data.demo_shop": ["make_demo_shop"],
    "tfmmrank.data.formats": ["export_lists"],
    "tfmmrank.ensemble": ["Ensemble"],
    "tfmmrank.evaluation": ["compare", "fit_baselines", "scores_of", "write_report"],
    "tfmmrank.fusion": ["Fusion", "register_fusion"],
    "tfmmrank.ranker": ["Ranker", "RankerColumns"],
    "tfmmrank.schema": ["Recipe", "RecipeError"],
    "tfmmrank.serving": ["Client", "serve"],
    "tfmmrank.stack": ["StackError"],
    "tfmmrank.tokens": ["Tokens"],
    "tfmmrank.towers": ["BehaviourTower", "ImageTower", "TextTower", "Tower", "register_tower"],
    "tfmmrank.training": ["build_ranker", "fit", "fit_ensemble", "make_strategy"],
}
# Also reached as attributes: tfmmrank.export.export(...). A room's name is never that of something in it here, since
# importing the room would replace it.
_ROOMS = ("data", "evaluation", "export", "fusion", "objectives", "serving", "towers", "training", "tuning")
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BehaviourTower", "Catalogue", "Client", "DataError", "Ensemble", "Fusion", "ImageTower", "Lists", "Prepared",
    "Ranker", "RankerColumns", "Recipe", "RecipeError", "StackError", "TextTower", "Tokens", "Tower", "build_ranker",
    "compare", "export_lists", "fit", "fit_baselines", "fit_ensemble", "make_demo_shop", "make_strategy", "prepare",
    "register_fusion", "register_tower", "replace_directory", "scores_of", "serve", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"tfmmrank.{name}")
    raise AttributeError(f"module 'tfmmrank' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF, *_ROOMS])
