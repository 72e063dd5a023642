"""From a recipe to a ranker that has seen its data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from tfmmrank.fusion import fusions
from tfmmrank.matching import matches
from tfmmrank.ranker import Ranker
from tfmmrank.registry import nearest, options_of
from tfmmrank.schema import Recipe, RecipeError
from tfmmrank.stack import keras
from tfmmrank.towers import Tower, towers


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and TensorFlow, and makes dropout's randomness part of the checkpointed state."""
    keras.backend.experimental.enable_tf_random_generator()
    keras.utils.set_random_seed(seed)


def build_ranker(recipe: Recipe, data: Any | None = None, progress: bool = True) -> Ranker:
    """Makes the towers, fusion and cross tower that a recipe's ``model`` part names, seeded by ``train.seed``.

    Args:
        recipe: the recipe.
        data: a ``Prepared`` dataset to ``adapt`` to; None leaves the ranker unadapted.
        progress: whether adapting shows progress bars.

    Raises:
        RecipeError: for an unknown tower or fusion, an option that its class does not take, or a wrong share.
    """
    model = recipe.model
    seed_everything(recipe.train.seed)
    made: dict[str, Tower] = {}
    for name in sorted(model.towers, key=lambda key: model.towers[key].share is not None):
        config = model.towers[name]
        share = None
        if config.share is not None:
            if config.share not in made:
                raise RecipeError(f'model.towers.{name}.share: no tower "{config.share}" that itself shares with none')
            share = made[config.share]
        options = {"dim": model.dim, **config.options}
        made[name] = _make(
            f"model.towers.{name}", towers, config.kind,
            dict(columns=config.columns, side=config.side, share=share, name=name, fused=config.fused, **options),
        )  # fmt: skip
    fusion = _make("model.fusion", fusions, model.fusion.kind, {"dim": model.dim, **model.fusion.options})
    match = [
        _make(
            f"model.match.{name}", matches, each.kind, dict(query=each.query, item=each.item, name=name, **each.options)
        )
        for name, each in model.match.items()
    ]
    ranker = _of_parts(
        [made[name] for name in model.towers],
        fusion,
        cross_layers=model.cross.layers,
        cross_projection=model.cross.projection_dim,
        deep=model.cross.deep,
        dropout=model.cross.dropout,
        context=model.context.model_dump() if model.context is not None else None,
        match=match,
        modality_dropout=model.modality_dropout,
    )
    return ranker.adapt(data, progress) if data is not None else ranker


def _of_parts(*parts: Any, **options: Any) -> Ranker:
    try:
        return Ranker(*parts, **options)
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def _make(where: str, registry: Any, kind: str, options: dict[str, Any]) -> Any:
    try:
        for option, value in options.items():
            check_option(registry, kind, option, value)
        return registry[kind](**options)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{where}: {error}") from error


def check_option(registry: Any, kind: str, option: str, value: Any) -> None:
    """Checks a recipe's option of a tower or fusion against the class's ``__init__``.

    Raises:
        ValueError: for an unknown kind, an option that its class does not take, or a value of another type.
    """
    known = options_of(registry[kind])
    if option not in known:
        hint = nearest(option, list(known))
        raise ValueError(f'"{kind}" has no option "{option}"{hint}; options: {", ".join(sorted(known))}')
    if not _is_of(value, known[option]):
        raise ValueError(f"{option} is {value!r}; expected {_in_words(known[option])}")


def _is_of(value: Any, expected: Any) -> bool:
    """Whether a recipe's value is of a type; true for values and types that YAML does not know."""
    try:
        TypeAdapter(expected).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    except (TypeError, PydanticUserError):
        return True
    return True


def _in_words(expected: Any) -> str:
    """A type, as people say it: ``Sequence[int] | None`` is "a list of whole numbers or null"."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if expected in names:
        return names[expected]
    parts = [part for part in get_args(expected) if part is not ...]
    if get_origin(expected) in (Union, UnionType):
        return " or ".join(_in_words(part) for part in parts)
    if get_origin(expected) in (Sequence, Iterable, list, tuple) and len(set(parts)) == 1:
        return f"a list of {({int: 'whole numbers', float: 'numbers'}).get(parts[0]) or _in_words(parts[0])}"
    return str(expected)
