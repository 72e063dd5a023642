"""The raw columns that a ranker reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmmrank.registry import nearest
from tfmmrank.towers import Tower


@dataclass(frozen=True)
class RankerColumns:
    """The raw columns that a ranker reads: names to kinds (query, item) or widths (slot)."""

    query: dict[str, str] = field(default_factory=dict)
    item: dict[str, str] = field(default_factory=dict)
    slot: dict[str, int] = field(default_factory=dict)


def missing_values(kind: str | int, shape: tuple[int, ...]) -> np.ndarray:
    """Raw values that say "missing": empty bytes for texts, categories and pictures, NaN for numbers."""
    if isinstance(kind, int):
        return np.full(shape if kind == 1 else (*shape, kind), np.nan, np.float32)
    if kind == "numeric":
        return np.full(shape, np.nan, np.float32)
    return np.full(shape, b"", object)


def columns_read(towers: Sequence[Tower], data: Any, before: RankerColumns | None = None) -> RankerColumns:
    """The columns of a ``Prepared`` dataset that towers read; ``before``: those they were adapted to.

    Raises:
        ValueError: when it lacks one, or has one of another kind or width than before.
    """
    available = {"query": data.query_columns, "item": data.item_columns, "slot": data.slot_columns}
    read: dict[str, dict[str, Any]] = {side: {} for side in available}
    for tower in towers:
        reads = f'tower "{tower.name}" reads the {tower.side} column'
        for column in tower.columns:
            if column not in available[tower.side]:
                others = [side for side, columns in available.items() if column in columns]
                known = list(available[tower.side])
                hint = f"; it is a column of side {others[0]}" if others else nearest(column, known)
                raise ValueError(
                    f'{reads} "{column}", which dataset {data.path} lacks{hint}; '
                    f"{tower.side} columns: {', '.join(known) or 'none'}"
                )
            kind = available[tower.side][column]
            known_as = getattr(before, tower.side).get(column, kind) if before else kind
            if kind != known_as:
                raise ValueError(f'{reads} "{column}" as {known_as}; in dataset {data.path} it is {kind}')
            read[tower.side][column] = kind
    return RankerColumns(**read)


def batches_for(owner: Tower, users: list[Tower], data: Any, lists: Any) -> Iterator[dict[str, Any]]:
    """Raw training values of a tower and of those that share with it, under the owner's column names."""
    for tower in users:
        if tower.side == "query":
            batches: Iterable[Mapping[str, Any]] = [lists.queries]
        elif tower.side == "slot":
            batches = [lists.slots]
        else:
            batches = data.catalogue.batches(4096, columns=tower.columns)
        for batch in batches:
            if tower is owner or len(tower.columns) == len(owner.columns):
                yield {mine: batch[theirs] for mine, theirs in zip(owner.columns, tower.columns, strict=True)}
            else:
                first, *others = owner.columns
                for column in tower.columns:
                    yield {first: batch[column], **{other: _missing_like(batch[column]) for other in others}}


def _missing_like(values: np.ndarray) -> np.ndarray:
    """As many missing values of the same kind."""
    return np.full_like(values, b"" if values.dtype == object else np.nan)
