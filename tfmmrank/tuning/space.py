"""A recipe's ranges as Optuna's distributions, and Optuna's parameters as a recipe's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tfmmrank.ranges import Range, label, value_at
from tfmmrank.schema import Recipe, RecipeError


def distributions(ranges: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """What Optuna draws from, by dotted key. Choices are drawn by their labels: Optuna keeps no mappings."""
    return {key: _distribution(values) for key, values in ranges.items()}


def values_of(ranges: Mapping[str, Range], params: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's parameters as values for the recipe, by dotted key."""
    return {
        key: ranges[key].by_label[param] if ranges[key].choices is not None else ranges[key].on_grid(param)
        for key, param in params.items()
    }


def own_params(recipe: Recipe) -> dict[str, Any]:
    """The recipe's own values as parameters, as far as they are among those to search."""
    content = recipe.model_dump(exclude={"root", "tune"})
    found: dict[str, Any] = {}
    for key, values in recipe.tune.items():
        own = value_at(content, key)
        if values.choices is not None:
            same = [label(choice) for choice in values.choices if _changes_nothing(recipe, key, choice)]
            found.update({key: same[0]} if same else {})
        elif values.holds(own):
            found[key] = int(own) if values.whole else float(own)
    return found


def _distribution(values: Range) -> BaseDistribution:
    if values.choices is not None:
        return CategoricalDistribution(list(values.by_label))
    low, high = values.ends
    if values.whole:
        return IntDistribution(int(low), int(high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(float(low), float(high), log=values.log, step=values.step)


def _changes_nothing(recipe: Recipe, key: str, choice: Any) -> bool:
    try:
        changed = recipe.with_values({key: choice})
    except RecipeError:
        return False
    return (changed.model, changed.train) == (recipe.model, recipe.train)
