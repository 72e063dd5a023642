"""What a load test saw."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LATE = 0.01  # seconds; a generator that sends one request in a hundred later than this measures itself
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class LoadReport:
    """Latencies and what became of the requests.

    A request that failed counts as one that never came, so that failures cannot improve a percentile.

    Attributes:
        latencies: seconds ``[n]``, ascending; from the time at which a request was due (open loop) or sent (closed
            loop) to its answer; infinite where it failed.
        lateness: seconds ``[n]``, ascending, by which the generator sent them after they were due; empty in a closed
            loop.
        statuses: requests by gRPC's status name.
        seconds: from the start to the last answer, without the warm-up.
        answered_rate: answers a second, of the seconds in which requests were sent: what comes after them is not
            counted, or one straggler would make a server look slow.
        rate: requests a second that were asked for; None in a closed loop.
        concurrency: workers of a closed loop; None in an open one.
    """

    latencies: np.ndarray
    lateness: np.ndarray
    statuses: dict[str, int]
    seconds: float
    answered_rate: float
    rate: float | None = None
    concurrency: int | None = None

    @classmethod
    def of(
        cls,
        due: np.ndarray,
        sent: np.ndarray,
        done: np.ndarray,
        statuses: Sequence[str],
        start: float,
        duration: float,
        **asked: Any,
    ) -> LoadReport:
        """Works out the numbers from each request's times.

        Args:
            due: when each was to be sent, seconds ``[n]``.
            sent: when it was ``[n]``.
            done: when its answer came ``[n]``.
            statuses: gRPC's status names ``[n]``.
            start: when measuring began.
            duration: seconds in which requests were sent.
            **asked: ``rate`` or ``concurrency``.
        """
        failed = np.array([status != "OK" for status in statuses])
        lateness = np.empty(0) if "concurrency" in asked else np.sort(sent - due)
        return cls(
            latencies=np.sort(np.where(failed, np.inf, done - due)),
            lateness=lateness,
            statuses=dict(Counter(statuses).most_common()),
            seconds=max(duration, float(done.max() - start)),
            answered_rate=np.count_nonzero(~failed & (done <= start + duration)) / duration,
            **asked,
        )

    @property
    def answered(self) -> int:
        """Requests that were answered, not refused."""
        return self.statuses.get("OK", 0)

    @property
    def failed(self) -> int:
        """Requests that were not."""
        return len(self.latencies) - self.answered

    @property
    def kept_up(self) -> bool:
        """Whether the generator sent 99% of the requests in time; else it has measured itself too."""
        return not len(self.lateness) or percentile(self.lateness, 99.0) <= LATE

    def percentile(self, percent: float) -> float:
        """The latency in seconds that ``percent`` % of the requests did not exceed; infinite where more failed."""
        return percentile(self.latencies, percent)

    def histogram(self) -> list[tuple[float, int]]:
        """Answered requests by latency: (upper edge in seconds, count), edges 1, 2, 5, 10, … of the finest needed."""
        answered = self.latencies[: self.answered]
        if not len(answered):
            return []
        edges = _edges(max(float(answered[0]), 1e-6), float(answered[-1]))
        counts = np.diff(np.searchsorted(answered, edges, side="right"), prepend=0)
        return [(edge, int(count)) for edge, count in zip(edges, counts, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """The numbers as JSON values, times in milliseconds; a percentile among the failures is infinite."""
        latency = {f"p{percent:g}": _milliseconds(self.percentile(percent)) for percent in PERCENTILES}
        late = self.lateness
        return {
            "requests": len(self.latencies),
            "failed": self.failed,
            "statuses": self.statuses,
            "seconds": self.seconds,
            "rate": self.rate,
            "concurrency": self.concurrency,
            "answered_per_second": self.answered_rate,
            "latency_ms": {**latency, "max": _milliseconds(self.latencies[-1])},
            "histogram_ms": [[_milliseconds(edge), count] for edge, count in self.histogram()],
            "generator_late_ms": (
                {"p99": _milliseconds(percentile(late, 99.0)), "max": _milliseconds(late[-1])} if len(late) else None
            ),
            "generator_kept_up": self.kept_up,
        }


def percentile(ascending: np.ndarray, percent: float) -> float:
    """The smallest value that at least ``percent`` % of the values do not exceed: nearest rank, not interpolated."""
    rank = math.ceil(round(percent * len(ascending) / 100, 6))
    return float(ascending[max(rank, 1) - 1])


def _milliseconds(seconds: float) -> float:
    return round(1000 * float(seconds), 4)


def _edges(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, … of a power of ten: from the first that is not below ``least`` to the first not below ``most``."""
    edges = [step * 10.0**power for power in range(-6, 5) for step in (1, 2, 5)]
    first = next((i for i, edge in enumerate(edges) if edge >= least), len(edges) - 1)
    last = next((i for i, edge in enumerate(edges) if edge >= most), len(edges) - 1)
    return edges[first : last + 1]
