"""A million items in the model's table, against ten thousand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.interleaved import in_turn
from benchmarks.serving.figures import Figures, spread, times
from benchmarks.serving.models import megabytes, table_model
from benchmarks.serving.running import back_to_back, milliseconds, rank_requests, serving

_SIZES = (10_000, 1_000_000)
_STARTS = 4
_ROUNDS, _SECONDS = 7, 3.0


def million(out: Path) -> Figures:
    """Load time, directory, memory and latency of both; starts and latencies in turn.

    The files are in the page cache when a server starts: they have just been written.
    """
    models = {size: table_model(out, size) for size in _SIZES}
    starts = in_turn({size: partial(_start, model.folder) for size, model in models.items()}, _STARTS)
    with serving(models[_SIZES[0]].folder) as small, serving(models[_SIZES[1]].folder) as large:
        servers = dict(zip(_SIZES, (small, large), strict=True))
        requests = {size: rank_requests(models[size].data, server, 100) for size, server in servers.items()}
        found = in_turn(
            {size: partial(back_to_back, servers[size], requests[size], 1, _SECONDS) for size in _SIZES}, _ROUNDS
        )
        memory = {size: server.memory for size, server in servers.items()}
    p50 = {size: [milliseconds(report, 50) for report in reports] for size, reports in found.items()}
    return {
        f"{size:,} items": {
            "directory, MB": megabytes(models[size].folder), "start to AVAILABLE, s": spread(starts[size]),
            "resident memory, MB": memory[size], "p50 ms": spread(p50[size]),
            "times that of 10,000": None if size == _SIZES[0] else times(p50[size], p50[_SIZES[0]]),
        }
        for size in _SIZES
    }  # fmt: skip


def _start(model: Path) -> float:
    with serving(model) as process:
        return process.seconds
