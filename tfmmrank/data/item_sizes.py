"""How many items a batch has room for: a few sizes that fit the data, as accelerators compile once a shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the batches seen, each part gets a size of its own
_MULTIPLE = 8
_APART = 0.95  # a size that saves less than this of the next one is not worth a compilation
_BEYOND = 1.25  # from size to size past those seen


def few_sizes(counts: Iterable[int], limit: int) -> list[int]:
    """Sizes to pad to: the quartiles of what was seen, then coarser ones up to what can be.

    Batches of equally long lists differ little in their number of distinct items, and get one size; where they differ,
    a quarter of them each.

    Args:
        counts: distinct items of some batches; at least one.
        limit: the most that any batch may have.

    Returns:
        Sizes in ascending order, the last being ``limit``.
    """
    quartiles = np.quantile(np.fromiter(counts, np.int64), _SHARES, method="higher")
    wanted = [_rounded(float(count), limit) for count in quartiles]
    sizes = [wanted[-1]]
    for size in reversed(wanted[:-1]):
        if size <= _APART * sizes[0]:
            sizes.insert(0, size)
    while sizes[-1] < limit:
        sizes.append(_rounded(_BEYOND * sizes[-1], limit))
    return sizes


def _rounded(size: float, limit: int) -> int:
    return min(limit, max(1, -int(-size // _MULTIPLE)) * _MULTIPLE)


def fitting(count: int, sizes: Sequence[int]) -> int:
    """The smallest of the sizes that has room for a number of items. Raises ValueError when none has."""
    for size in sizes:
        if size >= count:
            return size
    raise ValueError(
        f"a batch has {count} distinct items, and room was made for {sizes[-1]}: of more epochs than told?"
    )
