"""Timing things against one another on a machine that does not stand still."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

_Name = TypeVar("_Name", bound=Hashable)
_T = TypeVar("_T")


def in_turn(things: Mapping[_Name, Callable[[], _T]], rounds: int) -> dict[_Name, list[_T]]:
    """Runs each in turn, round after round, to and fro: first, second, second, first. None always follows the same one.

    Returns:
        What each gave, a value a round, by name.
    """
    found: dict[_Name, list[_T]] = {name: [] for name in things}
    for turn in range(rounds):
        for name, run in list(things.items())[:: -1 if turn % 2 else 1]:
            found[name].append(run())
    return found


def interleaved(things: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, np.ndarray]:
    """Times each ``in_turn``.

    Returns:
        Seconds by name, ``[rounds]``; the ``warm_up`` rounds before, which trace and compile, are left out.
    """
    found = in_turn({name: partial(seconds, run) for name, run in things.items()}, warm_up + rounds)
    return {name: np.array(values[warm_up:]) for name, values in found.items()}


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(slow: np.ndarray, fast: np.ndarray) -> float:
    """How many times longer one takes: the median of the rounds' own ratios, which a slow minute touches little."""
    return float(np.median(slow / fast))
