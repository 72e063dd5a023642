"""The example recipes, and variations of them, on the evaluation data.

The data is looked for in ``../shared/data`` beside the checkout, or in the folder that ``TFMMRANK_DATA`` names.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("fashion", "crowd", "mq2008")
_DEFAULT_DATA = "../../shared/data"  # as the examples write it, relative to themselves


def data_folder() -> Path:
    """The folder of the evaluation data."""
    return Path(os.environ.get("TFMMRANK_DATA", ROOT / "examples" / _DEFAULT_DATA)).resolve()


def load_example(name: str, changes: Mapping[str, Any] | None = None) -> Any:
    """An example's recipe, reading from ``data_folder()``.

    Args:
        name: the example's.
        changes: values by dotted key of the recipe, such as ``data.queries.table``; None takes the key out.
    """
    from tfmmrank.schema import Recipe

    text = (ROOT / "examples" / f"{name}.yaml").read_text("utf-8")
    content = yaml.safe_load(text.replace(_DEFAULT_DATA, str(data_folder())))
    for dotted, value in (changes or {}).items():
        *path, last = dotted.split(".")
        part = content
        for key in path:
            part = part[key]
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    return Recipe.from_dict(content, root=ROOT / "examples", source=f"examples/{name}.yaml")


def without_towers(recipe: Any, dropped: tuple[str, ...]) -> Any:
    """A recipe without some towers, and without what then serves nothing."""
    from tfmmrank.evaluation.ablation_recipes import without

    return functools.reduce(without, dropped, recipe)


def query_folds(name: str, folds: int, seed: int, out: Path) -> list[Path]:
    """Query tables of a cross-validation over all of an example's queries, whatever their split.

    Fold k's test queries are one part of ``folds`` equal ones, its validation queries the next part, and the others
    train, so that each query is tested once, by a model that did not see its labels.

    Returns:
        The tables' paths, one a fold, under ``out``.
    """
    queries = pd.read_csv(data_folder() / name / "queries.csv")
    part = np.random.default_rng(seed).permutation(len(queries)) % folds
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for fold in range(folds):
        split = np.where(part == fold, "test", np.where(part == (fold + 1) % folds, "valid", "train"))
        paths.append(out / f"queries-{fold}.csv")
        queries.assign(split=split).to_csv(paths[-1], index=False)
    return paths


def same_words(name: str) -> set[str]:
    """Test queries of an example that ask a training query's words, whatever their order and number.

    "womens brown kurta" is "brown kurta for women": what was judged for the one tells the other's grades.
    """
    queries = pd.read_csv(data_folder() / name / "queries.csv")
    words = queries["query"].map(_bag)
    trained = set(words[queries["split"] == "train"])
    return set(queries["query_id"][(queries["split"] == "test") & words.isin(trained)].astype(str))


def _bag(query: str) -> frozenset[str]:
    words = query.lower().replace("women", "woman").replace("men", "man").replace("'", "").split()
    return frozenset(word.removesuffix("s") for word in words if word not in ("for", "in", "the", "with", "of", "a"))


def hold_out_items(name: str, share: float, seed: int, out: Path) -> Path:
    """Judgements in which some items stand in test lists alone, and no other items do.

    Args:
        name: the example's.
        share: of the items, held out at random.
        seed: draws them.
        out: where to write.

    Returns:
        The table's path. Queries that are left without judgements are simply not in it.
    """
    folder = data_folder() / name
    queries, judgements = pd.read_csv(folder / "queries.csv"), pd.read_csv(folder / "judgements.csv")
    items = np.sort(judgements["item_id"].unique())
    held = np.random.default_rng(seed).choice(items, round(share * len(items)), replace=False)
    tested = judgements["query_id"].map(queries.set_index("query_id")["split"]) == "test"
    out.mkdir(parents=True, exist_ok=True)
    path = out / "judgements.csv"
    judgements[tested == judgements["item_id"].isin(held)].to_csv(path, index=False)
    return path


def without_pictures(name: str, share: float, seed: int, out: Path) -> Path:
    """The item table with some items' pictures taken away at random; returns its path."""
    items = pd.read_parquet(data_folder() / name / "items.parquet")
    gone = np.random.default_rng(seed).choice(len(items), round(share * len(items)), replace=False)
    items.loc[items.index[gone], "image"] = ""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "items.parquet"
    items.to_parquet(path, index=False)
    return path
