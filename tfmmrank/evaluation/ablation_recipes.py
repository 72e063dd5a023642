"""The recipes of an ablation: a run's own, without one modality, or with another fusion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfmmrank.fusion import fusions
from tfmmrank.registry import nearest
from tfmmrank.schema import FusionConfig, MatchConfig, ModelConfig, Recipe, TowerConfig
from tfmmrank.towers import towers

_FUSION_KEEPS = ("dim", "dropout")


class NoVariant(ValueError):  # noqa: N818 - nothing went wrong: there is no such model
    """A variant of the recipe that there cannot be; the message says why."""


def without(recipe: Recipe, *names: str) -> Recipe:
    """The recipe without one modality: its towers, the matches by them, and query towers that then serve nothing.

    Where a tower that goes owns weights that others share, the first of those of its side, or else the first, owns them
    from then on, with the owner's options; where no match needs a lexical query tower any longer, that goes too.

    Args:
        recipe: of a run.
        *names: item or slot towers.

    Raises:
        NoVariant: when nothing would be left to rank by, or a tower's heir cannot be made.
        ValueError: for a name that no item or slot tower has.
    """
    model = recipe.model
    known = [name for name, tower in model.towers.items() if tower.side != "query"]
    for name in names:
        if name not in known:
            raise ValueError(f'no item or slot tower "{name}"{nearest(name, known)}; towers: {", ".join(known)}')
    if set(names) == set(known):
        raise NoVariant(f"there is no other item or slot tower than {', '.join(known)}")
    match = {key: each for key, each in model.match.items() if each.item not in names}
    others = {other: config for other, config in model.towers.items() if other not in names}
    kept = {other: config for other, config in others.items() if _serves(other, others, match)}
    changed: dict[str, Any] = {
        "towers": _with_owners(kept, model.towers),
        "match": match,
        "modality_dropout": {other: rate for other, rate in model.modality_dropout.items() if other in kept},
    }
    return _with_model(recipe, model.model_copy(update=changed))


def other_fusions(recipe: Recipe) -> list[str]:
    """The package's own fusions but for the recipe's; none where no item or slot tower is fused."""
    if not _fuses(recipe.model.towers):
        return []
    mine = [kind for kind in fusions if fusions[kind].__module__.partition(".")[0] == __name__.partition(".")[0]]
    return [kind for kind in mine if kind != recipe.model.fusion.kind]


def with_fusion(recipe: Recipe, kind: str) -> Recipe:
    """The recipe with another fusion of the same ``dim`` and ``dropout``, and otherwise with its default options.

    Raises:
        NoVariant: when the fusion cannot be of that ``dim``.
        ValueError: for an unknown fusion.
    """
    fusion = recipe.model.fusion
    options = {key: value for key, value in fusion.options.items() if key in _FUSION_KEEPS}
    make = fusions[kind]
    try:
        make(**{"dim": recipe.model.dim, **options})
    except ValueError as error:
        raise NoVariant(str(error)) from error
    return _with_model(recipe, recipe.model.model_copy(update={"fusion": FusionConfig(kind=kind, **options)}))


def _with_model(recipe: Recipe, model: ModelConfig) -> Recipe:
    return recipe.model_copy(update={"model": model, "tune": {}})


def _is_fused(tower: TowerConfig) -> bool:
    return tower.fused and towers[tower.kind].fusible


def _fuses(given: Mapping[str, TowerConfig]) -> bool:
    """Whether there is an item or slot tower whose tokens are fused."""
    return any(tower.side != "query" and _is_fused(tower) for tower in given.values())


def _serves(name: str, given: Mapping[str, TowerConfig], match: Mapping[str, MatchConfig]) -> bool:
    """Whether a tower is fused with something, or a match compares by it."""
    return (_is_fused(given[name]) and _fuses(given)) or any(name in (each.query, each.item) for each in match.values())


def _with_owners(kept: Mapping[str, TowerConfig], before: Mapping[str, TowerConfig]) -> dict[str, TowerConfig]:
    """The towers kept, with an heir for every owner that is not."""
    found = dict(kept)
    for gone in (name for name in before if name not in kept):
        sharers = [name for name, tower in kept.items() if tower.share == gone]
        if not sharers:
            continue
        heir = next((name for name in sharers if kept[name].side == before[gone].side), sharers[0])
        found[heir] = _owner_instead(kept[heir], before[gone], gone)
        for name in sharers:
            if name != heir:
                found[name] = kept[name].model_copy(update={"share": heir})
    return found


def _owner_instead(tower: TowerConfig, owner: TowerConfig, owner_name: str) -> TowerConfig:
    """A tower that shared, as the owner: the options of what is shared are the old owner's, columns taken by place."""
    shared = towers[owner.kind].shared_options
    if shared is None:
        raise NoVariant(
            f'other towers share "{owner_name}", and {towers[owner.kind].__name__}.shared_options does not tell which '
            "of its options another owner would take over"
        )
    place = dict(zip(owner.columns, tower.columns, strict=False))
    options = {key: value for key, value in tower.options.items() if key not in shared}
    options.update({key: _renamed(value, place) for key, value in owner.options.items() if key in shared})
    return TowerConfig(kind=tower.kind, columns=tower.columns, side=tower.side, fused=tower.fused, **options)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A list of columns by their other names; any other option as it is."""
    if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)):
        return [names.get(each, each) if isinstance(each, str) else each for each in value]
    return value
