"""What an exported model reads: raw columns as the inputs of signatures, and as features of serialized protos."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tfmmrank.stack import tf

FIXED_INPUTS = ("item_ids", "num_items", "inputs", "input_ranking_data")

# tf.function makes Python arguments of other names; the exported signature gets the true ones back.
_ARGUMENT = re.compile(r"[a-z]([a-z0-9_]*[a-z0-9])?")


@dataclass(frozen=True)
class Column:
    """One raw column.

    Attributes:
        name: as in the catalogue, the query or the list.
        numeric: whether it holds float32 (NaN missing); else bytes (empty missing).
        width: numbers in it.
    """

    name: str
    numeric: bool
    width: int = 1

    @property
    def dtype(self) -> Any:
        """``tf.float32`` or ``tf.string``."""
        return tf.float32 if self.numeric else tf.string

    @property
    def missing(self) -> Any:
        """The value that says "missing"."""
        return float("nan") if self.numeric else b""

    def spec(self, axes: int) -> Any:
        """The column's ``TensorSpec`` with so many free leading axes."""
        return tf.TensorSpec([None] * axes + ([self.width] if self.width > 1 else []), self.dtype)

    def flat(self, value: Any) -> Any:
        """``[B, L]`` or ``[B, L, width]`` to ``[B * L]`` or ``[B * L, width]``."""
        return tf.reshape(value, [-1, self.width] if self.width > 1 else [-1])

    @property
    def feature(self) -> Any:
        """How to parse it from a tf.Example: absent is missing."""
        shape = [self.width] if self.width > 1 else []
        return tf.io.FixedLenFeature(shape, self.dtype, [self.missing] * self.width if shape else self.missing)


@dataclass(frozen=True)
class RawColumns:
    """The raw columns that a ranker reads, by side."""

    query: tuple[Column, ...]
    item: tuple[Column, ...]
    slot: tuple[Column, ...]

    @classmethod
    def of(cls, ranker: Any) -> RawColumns:
        """The columns of an adapted ranker.

        Raises:
            ValueError: when it is not adapted, or a column's name cannot be told from another input's.
        """
        if ranker.columns is None:
            raise ValueError("the ranker does not know its columns yet; call adapt(data) and train it before exporting")
        query, item = (
            tuple(Column(name, kind == "numeric") for name, kind in kinds.items())
            for kinds in (ranker.columns.query, ranker.columns.item)
        )
        slot = tuple(Column(name, True, width) for name, width in ranker.columns.slot.items())
        columns = cls(query, item, slot)
        seen: dict[str, str] = dict.fromkeys(FIXED_INPUTS, "an input that every export has")
        for side in ("query", "item", "slot"):
            for column in getattr(columns, side):
                if column.name in seen:
                    raise ValueError(
                        f'{side} column "{column.name}" has the name of {seen[column.name]}; a served model needs one '
                        "name for one input: rename the column in the table and prepare again"
                    )
                seen[column.name] = f"a {side} column"
        return columns

    @property
    def places(self) -> tuple[Column, ...]:
        """Item and slot columns: what ``rank_features`` takes for each place in a list."""
        return self.item + self.slot


class Arguments:
    """Names for tf.function's arguments, and the way back to the inputs' true names."""

    def __init__(self, columns: Iterable[Column] = ()) -> None:
        self._safe: dict[str, str] = {}
        for column in columns:
            natural = _ARGUMENT.fullmatch(column.name) and "__" not in column.name
            taken = keyword.iskeyword(column.name) or column.name in ("self", *FIXED_INPUTS)
            free = natural and not taken and not column.name.startswith("input_column_")
            self._safe[column.name] = column.name if free else f"input_column_{len(self._safe)}"

    def safe(self, name: str) -> str:
        """The argument's name for an input."""
        return self._safe.get(name, name)

    def specs(self, specs: Mapping[str, Any]) -> dict[str, Any]:
        """Specs by input to specs by argument."""
        return {self.safe(name): tf.TensorSpec(s.shape, s.dtype, self.safe(name)) for name, s in specs.items()}

    def inputs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Values by argument to values by input."""
        names = {safe: name for name, safe in self._safe.items()}
        return {names.get(argument, argument): value for argument, value in arguments.items()}

    @property
    def renamed(self) -> dict[str, str]:
        """Input by argument, where they differ."""
        return {safe: name for name, safe in self._safe.items() if safe != name}
