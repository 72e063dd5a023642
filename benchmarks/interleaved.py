"""Timing things against one another on a machine that does not stand still."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved(things: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, np.ndarray]:
    """Runs each in turn, round after round, to and fro: first, second, second, first. None always follows the same one.

    Returns:
        Seconds by name, ``[rounds]``; the ``warm_up`` rounds before, which trace and compile, are left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(warm_up + rounds):
        for name, run in list(things.items())[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(found[warm_up:]) for name, found in seconds.items()}


def ratio(slow: np.ndarray, fast: np.ndarray) -> float:
    """How many times longer one takes: the median of the rounds' own ratios, which a slow minute touches little."""
    return float(np.median(slow / fast))
