"""The folder of a training: its recipe, the queries it has seen, and what may be done with it. No TensorFlow."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.atomic import replace_file, write_text
from tfmmrank.data.text import normalize_query
from tfmmrank.schema import RECIPE_FILE, Recipe

#: The folder of the members' runs, in an ensemble's run.
MEMBERS = "members"
#: Digests of the queries by split, in a run.
QUERIES_FILE = "queries.npz"
_DIGEST = np.dtype("S16")
RESTART = "pass --restart to begin it again, or choose another folder"


def check_run(recipe: Recipe, run: Path, resume: bool = True, cure: str = RESTART) -> None:
    """Checks that a folder is free, or holds a run to go on with.

    Args:
        recipe: to train by.
        run: the folder.
        resume: whether to go on from its last checkpoint.
        cure: what to do about a run of another recipe, for the message.

    Raises:
        ValueError: when the folder holds something other than a run, or, resuming, a run whose recipe had another model
            or other training options; more epochs are fine.
    """
    file = run / RECIPE_FILE
    if not file.is_file():
        if run.is_dir() and any(run.iterdir()):
            raise ValueError(f"{run}: is not empty and holds no run ({RECIPE_FILE} is missing); choose another folder")
        return
    if not resume or not (run / "checkpoints" / "checkpoint").is_file():  # nothing to go on from
        return
    begun = Recipe.load(file)
    for part, old, new in (("model", begun.model, recipe.model), ("train", begun.train, recipe.train)):
        old_values, new_values = old.model_dump(mode="json"), new.model_dump(mode="json")
        differing = [key for key in new_values if old_values.get(key) != new_values[key] and key != "epochs"]
        if differing:
            raise ValueError(
                f"{file}: this run was begun with another {part}.{differing[0]} ({old_values.get(differing[0])!r}, now "
                f"{new_values[differing[0]]!r}); {cure}"
            )


def keep_recipe(recipe: Recipe, run: Path) -> None:
    """Writes the recipe into the run, with absolute paths: the run's folder is not the recipe's."""
    write_text(run / RECIPE_FILE, recipe.to_yaml())


def keep_queries(run: Path, data: Any) -> None:
    """Writes digests of the queries that a training learns from, and of those that it stops by."""
    train, valid = (
        _digests(data.lists(split)) if split in data.splits else np.empty(0, _DIGEST) for split in ("train", "valid")
    )
    with replace_file(run / QUERIES_FILE) as file:
        np.savez_compressed(file, train=train, valid=valid)


def refuse_seen_queries(run: Path, data: Any, split: str) -> None:
    """Checks that lists are not of queries that a run was trained or chosen by.

    Args:
        run: the folder; one that keeps no queries, of an older version, is not checked.
        data: a ``Prepared`` dataset.
        split: of it; that of the run itself may be measured on, for what it is worth.

    Raises:
        ValueError: naming one of the queries.
    """
    if not (run / QUERIES_FILE).is_file():
        return
    lists = data.lists(split)
    digests = _digests(lists)
    with np.load(run / QUERIES_FILE) as kept:
        for part in ("train", "valid"):
            if part == split:
                return
            seen = np.isin(digests, kept[part])
            if seen.any():
                query = lists.query_ids[int(np.flatnonzero(seen)[0])]
                raise ValueError(
                    f'{data.path}: {int(seen.sum())} of {len(lists)} queries of split "{split}" are in the split '
                    f'"{part}" that {run} was trained with, such as query "{query}": what was taught would be tested. '
                    "Evaluate on the dataset of the training, or train again on this one"
                )


def _digests(lists: Any) -> np.ndarray:
    """Of each query's normalised text; of its id, where it has none."""
    texts = lists.queries.get("query", [b""] * len(lists))
    found = np.empty(len(lists), _DIGEST)
    for row, (text, query) in enumerate(zip(texts, lists.query_ids, strict=True)):
        normal = normalize_query(text.decode("utf-8"))
        said = f"text {normal}" if normal else f"id {query}"
        found[row] = hashlib.blake2b(said.encode(), digest_size=15).digest() + b"."  # numpy drops zeros at the end
    return found
