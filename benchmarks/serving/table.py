"""A million items in the model's table, against ten thousand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.serving.latency import Figures
from benchmarks.serving.models import megabytes, table_model
from benchmarks.serving.running import back_to_back, milliseconds, rank_requests, serving

_SIZES = (10_000, 1_000_000)
_ROUNDS, _SECONDS = 7, 3.0


def million(out: Path) -> Figures:
    """Load time, directory, memory and latency of both; latencies in turn."""
    models = {size: table_model(out, size) for size in _SIZES}
    figures: Figures = {}
    with serving(models[_SIZES[0]].folder) as small, serving(models[_SIZES[1]].folder) as large:
        servers = dict(zip(_SIZES, (small, large), strict=True))
        requests = {size: rank_requests(models[size].data, server, 100) for size, server in servers.items()}
        p50: dict[int, list[float]] = {size: [] for size in _SIZES}
        for turn in range(_ROUNDS):
            for size in _SIZES[:: -1 if turn % 2 else 1]:
                p50[size].append(milliseconds(back_to_back(servers[size], requests[size], 1, _SECONDS), 50))
        for size, server in servers.items():
            figures[f"{size:,} items, 64 numbers each"] = {
                "directory, MB": megabytes(models[size].folder), "start to AVAILABLE, s": server.seconds,
                "resident memory, MB": server.memory, "p50 ms": float(np.median(p50[size])),
            }  # fmt: skip
    ratio = float(np.median(np.array(p50[_SIZES[1]]) / np.array(p50[_SIZES[0]])))
    figures[f"{_SIZES[1]:,} items, 64 numbers each"]["p50, times that of 10,000"] = ratio
    return figures
