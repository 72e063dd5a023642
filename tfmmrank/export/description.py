"""What a version says of itself: ``assets.extra/tfmmrank.json``, and the answer of the signature ``describe``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data.feature_store import library_versions, source_of

DESCRIPTION_FILE = "assets.extra/tfmmrank.json"
_LATER = ("facts", "item_tokens", "ops", "signatures")  # known when a version is written


def describe(ranker: Any, data: Any, weights: str) -> dict[str, Any]:
    """What is known of a version before it is written, as JSON values.

    Args:
        ranker: the ``Ranker``.
        data: the ``Prepared`` dataset whose catalogue goes into the version.
        weights: how the towers' weights are kept.
    """
    return {
        "ranker": ranker.name,
        **made_with(ranker),
        "towers": {
            tower.name: {"side": tower.side, "columns": tower.columns, "dim": tower.dim} for tower in ranker.towers
        },
        "fusion": type(ranker.fusion).__name__,
        "list_context": ranker.cross.context is not None,
        "columns": {side: dict(getattr(ranker.columns, side)) for side in ("query", "item", "slot")},
        "num_items": len(data.catalogue),
        "parameters": sum(int(variable.shape.num_elements()) for variable in ranker.weights),
        "weights": weights,
    }


def made_with(ranker: Any) -> dict[str, Any]:
    """What an item's tokens depend on besides the item, as JSON values: the same, the same tokens."""
    kinds = {f"{type(tower).__module__} {type(tower).__qualname__}": type(tower) for tower in ranker.towers}
    code = json.dumps({name: source_of(kind) for name, kind in kinds.items()}, sort_keys=True)
    return {
        "ranker_digest": ranker_digest(ranker),
        "code_digest": hashlib.sha256(code.encode()).hexdigest(),
        "libraries": library_versions(),
    }


def ranker_digest(ranker: Any) -> str:
    """SHA-256 of configuration, weights, and what towers embed with besides, such as a hub module's files."""
    # Indented: what Keras wraps dicts in is a dict to Python's encoder, which that takes, and none to C's.
    digest = hashlib.sha256(json.dumps(ranker.get_config(), sort_keys=True, indent=1).encode())
    for weight in ranker.weights:
        values = np.ascontiguousarray(weight.numpy())
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(values.tobytes() if values.dtype == object else values.data)
    for tower in ranker.towers:
        digest.update(tower.embed_state())
    return digest.hexdigest()


def check_facts(facts: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Raises ValueError for a name that a version's description has itself."""
    own = {*description, *_LATER}
    for name in facts:
        if name in own:
            raise ValueError(f'facts: "{name}" is a name of the description itself, as are {", ".join(sorted(own))}')


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
