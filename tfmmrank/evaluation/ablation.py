"""Ablation: what each modality brings a ranker, hidden or left out of training, and what other fusions would."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.evaluation.ablation_table import AblationTable
from tfmmrank.evaluation.scoring import scores_of
from tfmmrank.evaluation.tables import compare
from tfmmrank.runs import MEMBERS
from tfmmrank.schema import RECIPE_FILE, Recipe

#: What an ablation does: hides modalities, trains anew without them, trains anew with other fusions.
PARTS = ("masked", "retrained", "fusions")
#: Where its rankers are, in the run's folder.
FOLDER = "ablation"
#: What the trained ranker is called in the table.
MODEL = "model"


@dataclass(frozen=True)
class _Variant:
    """A ranker to be trained: the part it belongs to, its name in the table, its folder and recipe."""

    part: str
    system: str
    folder: str
    recipe: Recipe


def ablate(
    run: str | Path,
    data: Any,
    split: str = "test",
    part: str = "all",
    *,
    ranker: Any = None,
    scores: Sequence[np.ndarray] | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> AblationTable:
    """Takes a trained ranker apart and puts what is left beside it, on the same lists.

    Three parts: ``masked`` hides each modality of the trained ranker's items in turn, which is a tower, or all towers
    that read the same; ``retrained`` trains the run's recipe anew without it; ``fusions`` trains it anew with each of
    the package's other fusions, of the recipe's ``dim`` and ``dropout`` and otherwise with their default options. Seed,
    early stopping and all else are the recipe's; the split is only scored, so that what it shows is no basis for a
    choice.

    What is trained lies in ``run/ablation``, one run a folder. Called again, it goes on where it was interrupted and
    trains nothing twice. ``keras.backend.clear_session`` is called before and after every training.

    Args:
        run: the folder of a training.
        data: the ``Prepared`` dataset that it was trained on.
        split: the split to score.
        part: ``masked``, ``retrained``, ``fusions`` or ``all``.
        ranker: the run's, where it is loaded already.
        scores: its scores of the split, where they are known already.
        progress: whether to show progress bars.
        say: told what is being trained.
        **options: of ``compare``, such as ``k``.

    Raises:
        RecipeError: for a recipe that cannot be read.
        ValueError: for an unknown part, a run without a recipe or with a ranker of another one, or trainings in
            ``run/ablation`` that are of another recipe or of other lists.
    """
    run, parts = Path(run), parts_of(part)
    recipe = recipe_of(run) if set(parts) != {"masked"} else None
    systems: dict[str, dict[str, Sequence[np.ndarray]]] = {each: {} for each in parts}
    left_out: dict[str, str] = {}
    if scores is None or "masked" in parts:
        ranker = _loaded(run) if ranker is None else ranker
        scores = scores_of(ranker, data, split, progress=progress) if scores is None else scores
    if "masked" in parts:
        from tfmmrank.evaluation.masking import masked_scores

        masked = masked_scores(ranker, data, split, progress=progress)
        systems["masked"] = {f"masked {name}": some for name, some in masked.items()}
    if recipe is not None:
        variants, left_out = _plan(recipe, parts)
        for variant, found in _trained(variants, left_out, run / FOLDER, data, split, progress, say):
            systems[variant.part][variant.system] = found
    flat = {MODEL: scores, **{name: some for group in systems.values() for name, some in group.items()}}
    table = compare(data, split, flat, **options)
    fusion = recipe.model.fusion.kind if recipe is not None else None
    return AblationTable(table, {each: list(group) for each, group in systems.items()}, left_out, fusion)


def parts_of(part: str) -> tuple[str, ...]:
    """The parts that a word stands for. Raises ValueError for an unknown one."""
    if part not in (*PARTS, "all"):
        raise ValueError(f'ablation: part is "{part}"; expected {", ".join(PARTS)} or all')
    return PARTS if part == "all" else (part,)


def recipe_of(run: Path) -> Recipe:
    """The recipe that a run's ranker was trained by.

    Raises:
        RecipeError: for a recipe that cannot be read.
        ValueError: when there is none, no ranker, or a ranker of another recipe.
    """
    if not (run / RECIPE_FILE).is_file():
        raise ValueError(f"{run}: holds no recipe ({RECIPE_FILE} is missing), by which an ablation trains anew")
    recipe, saved = Recipe.load(run / RECIPE_FILE), run / "ranker" / "ranker.json"
    if not saved.is_file():
        raise ValueError(f"{run / 'ranker'}: holds no ranker (ranker.json is missing); train one first")
    ranker = json.loads(saved.read_text("utf-8"))
    if "members" in ranker:
        raise ValueError(f"{run}: holds an ensemble; take one of its members apart: {run / MEMBERS / '0'}")
    found = {part["name"]: part["kind"] for part in ranker["towers"]}, ranker["fusion"]["kind"]
    if found != ({name: tower.kind for name, tower in recipe.model.towers.items()}, recipe.model.fusion.kind):
        raise ValueError(f"{run}: the ranker is of another recipe than {RECIPE_FILE}; train it to its end first")
    return recipe


def _loaded(run: Path) -> Any:
    from tfmmrank.ranker import Ranker

    return Ranker.load_ranker(run / "ranker")


def _plan(recipe: Recipe, parts: Sequence[str]) -> tuple[list[_Variant], dict[str, str]]:
    """What is to be trained, and by system why something cannot be."""
    from tfmmrank.evaluation.ablation_recipes import NoVariant, other_fusions, with_fusion, without
    from tfmmrank.evaluation.masking import modalities

    variants, left_out = [], {}
    kinds = other_fusions(recipe)
    wanted: list[tuple[str, str, str, Callable[[], Recipe]]] = [
        *(
            ("retrained", "without", name, functools.partial(without, recipe, *names))
            for name, names in modalities(recipe.model.towers).items()
        ),
        *(("fusions", "fusion", kind, functools.partial(with_fusion, recipe, kind)) for kind in kinds),
    ]
    for part, word, name, make in wanted:
        if part in parts:
            try:
                variants.append(_Variant(part, f"{word} {name}", f"{word}-{name.replace(' ', '')}", make()))
            except NoVariant as error:
                left_out[f"{word} {name}"] = str(error)
    if "fusions" in parts and not kinds:
        left_out["other fusions"] = "no item or slot tower is fused"
    return variants, left_out


def _trained(
    variants: Sequence[_Variant],
    left_out: dict[str, str],
    folder: Path,
    data: Any,
    split: str,
    progress: bool,
    say: Callable[[str], None],
) -> Iterator[tuple[_Variant, list[np.ndarray]]]:
    """Trains what is not trained yet, and scores; what could not be trained is noted in ``left_out``."""
    from tfmmrank.evaluation.ablation_runs import claim, is_trained, train_variant, trained_scores
    from tfmmrank.training import make_strategy

    claim(folder, data, {variant.folder: variant.recipe for variant in variants})
    strategy = make_strategy()
    for number, variant in enumerate(variants, 1):
        run, place = folder / variant.folder, f"ablation {number} of {len(variants)}: {variant.system}"
        if is_trained(variant.recipe, run):
            say(f"{place}, trained before")
        else:
            say(f"{place}, training into {run}")
            try:
                train_variant(variant.recipe, data, run, strategy, progress)
            except FloatingPointError as error:
                left_out[variant.system] = str(error)
                continue
        yield variant, trained_scores(run, data, split, progress)
