"""What may vary between the trials of a search: ranges of a recipe's options, by dotted key. Pure Python."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: What to say to a recipe without ranges.
NO_RANGES = (
    "tune: is missing; expected the ranges to search by the recipe's dotted keys, such as "
    '"tune: {train.learning_rate: {low: 0.0001, high: 0.01, log: true}}"'
)


def _as_number(value: Any) -> Any:
    """A number as it is; YAML 1.1 reads ``1e-3`` as text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("expected a number")
    return value


Number = Annotated[int | float, BeforeValidator(_as_number)]


class Range(BaseModel):
    """The values that one option of a recipe may take: numbers from ``low`` to ``high``, or one of ``choices``.

    Whole numbers where ``low``, ``high`` and ``step`` are written as whole numbers, fractions otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: Number | None = None
    high: Number | None = None
    log: bool = Field(default=False, description="draw the logarithm evenly")
    step: Number | None = None
    choices: list[Any] | None = None

    @model_validator(mode="after")
    def _numbers_or_choices(self) -> Range:
        if self.choices is not None:
            numeric = sorted(self.model_fields_set - {"choices"})
            if numeric:
                raise ValueError(f"has choices, so remove {', '.join(numeric)}")
            _check_choices(self.choices)
        elif self.low is None or self.high is None:
            raise ValueError('expected "low" and "high", or "choices"')
        else:
            self._check_numbers(self.low, self.high)
        return self

    def _check_numbers(self, low: float, high: float) -> None:
        if low >= high:
            raise ValueError(f"low is {low} and high is {high}; expected low below high")
        if self.log and low <= 0:
            raise ValueError(f"low is {low} and log is true; expected low above 0, where there are logarithms")
        if self.step is None:
            return
        if self.log:
            raise ValueError(f"step is {self.step} and log is true; expected one of the two")
        if self.step <= 0:
            raise ValueError(f"step is {self.step}; expected more than 0")
        if (_exact(high) - _exact(low)) % _exact(self.step):
            raise ValueError(
                f"steps of {self.step} from {low} do not meet high, {high}; expected a high that they meet"
            )

    @property
    def ends(self) -> tuple[int | float, int | float]:
        """The lowest and the highest number. Raises TypeError for choices."""
        if self.low is None or self.high is None:
            raise TypeError("choices have no ends")
        return self.low, self.high

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return self.choices is None and all(isinstance(end, int) for end in (self.low, self.high, self.step or 0))

    @property
    def by_label(self) -> dict[str, Any]:
        """The choices by their labels, in order."""
        return {label(choice): choice for choice in self.choices or []}

    def samples(self) -> list[Any]:
        """All choices; of numbers both ends, and a value between them if there are fractions."""
        if self.choices is not None:
            return list(self.choices)
        low, high = self.ends
        between = [] if self.whole else [low + (self.step or (high - low) * 0.381966)]
        return [low, *between, high]

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the range's numbers."""
        if self.choices is not None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        low, high = self.ends
        step = self.step or (1 if self.whole else None)
        return low <= value <= high and (step is None or not (_exact(value) - _exact(low)) % _exact(step))

    def on_grid(self, value: float) -> float:
        """A drawn number without what binary fractions add to its steps: 0.3, not 0.30000000000000004."""
        if self.whole:
            return int(value)
        if self.step is None:
            return value
        low, _ = self.ends
        return float(_exact(low) + round((value - low) / self.step) * _exact(self.step))


def label(choice: Any) -> str:
    """How a choice is called: a text is itself, anything else its JSON."""
    return choice if isinstance(choice, str) else json.dumps(choice, ensure_ascii=False, default=str)


def value_at(content: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    found: Any = content
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def with_value(content: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with a value at a dotted key. Raises ValueError where the way leads through something without keys."""
    first, _, rest = key.partition(".")
    if not rest:
        return {**content, first: value}
    inner = content.get(first)
    if inner is not None and not isinstance(inner, Mapping):
        raise ValueError(f"{first} is {inner!r}, which has no keys")
    return {**content, first: with_value(inner or {}, rest, value)}


def _check_choices(choices: list[Any]) -> None:
    if len(choices) < 2:
        raise ValueError(f"choices: expected at least two, got {len(choices)}")
    labels = [label(choice) for choice in choices]
    for name in labels:
        if labels.count(name) > 1:
            raise ValueError(f"choices: {name} stands there twice; expected each once")


def _exact(number: float) -> Decimal:
    return Decimal(str(number))
