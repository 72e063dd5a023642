"""What a version says of itself: ``assets.extra/tfmmrank.json``, and the answer of the signature ``describe``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DESCRIPTION_FILE = "assets.extra/tfmmrank.json"


def describe(ranker: Any, data: Any, weights: str) -> dict[str, Any]:
    """What is known of a version before it is written, as JSON values.

    Args:
        ranker: the ``Ranker``.
        data: the ``Prepared`` dataset whose catalogue goes into the version.
        weights: how the towers' weights are kept.
    """
    from tfmmrank.stack import tf

    return {
        "ranker": ranker.name,
        "ranker_digest": ranker_digest(ranker),
        "towers": {
            tower.name: {"side": tower.side, "columns": tower.columns, "dim": tower.dim} for tower in ranker.towers
        },
        "fusion": type(ranker.fusion).__name__,
        "list_context": ranker.cross.context is not None,
        "columns": {side: dict(getattr(ranker.columns, side)) for side in ("query", "item", "slot")},
        "num_items": len(data.catalogue),
        "parameters": sum(int(variable.shape.num_elements()) for variable in ranker.weights),
        "weights": weights,
        "tensorflow": tf.__version__,
    }


def ranker_digest(ranker: Any) -> str:
    """SHA-256 of configuration and weights: two rankers that share it give an item the same tokens."""
    # Indented: what Keras wraps dicts in is a dict to Python's encoder, which that takes, and none to C's.
    digest = hashlib.sha256(json.dumps(ranker.get_config(), sort_keys=True, indent=1).encode())
    for weight in ranker.weights:
        values = np.ascontiguousarray(weight.numpy())
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(values.tobytes() if values.dtype == object else values.data)
    return digest.hexdigest()


def write_description(directory: Path, description: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes a version's description, and what else is to be kept with it."""
    file = directory / DESCRIPTION_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(description_json({**description, "facts": sorted(facts), **facts}), "utf-8")


def description_json(description: Mapping[str, Any]) -> str:
    """A description for people and programs to read."""
    return json.dumps(description, ensure_ascii=False, indent=1)


def read_description(directory: Path) -> dict[str, Any]:
    """Reads a version's description.

    Raises:
        ValueError: when there is none, or it is damaged.
    """
    file = directory / DESCRIPTION_FILE
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{directory}: was not written by `tfmmrank export` ({file} is missing)") from error
    except ValueError as error:
        raise ValueError(f"{file}: is damaged ({error}); export the version again") from error


def facts_of(directory: Path) -> dict[str, Any]:
    """What was kept with a version's description."""
    description = read_description(directory)
    return {name: description[name] for name in description["facts"]}
