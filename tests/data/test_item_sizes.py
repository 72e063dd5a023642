"""A few sizes that fit a data set's batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfmmrank.data.item_sizes import few_sizes, fitting


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=300), st.integers(1, 3000))
def test_whatever_comes_fits_and_most_batches_share_four_sizes(counts, limit):
    counts = [min(count, limit) for count in counts]
    sizes = few_sizes(counts, limit)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == limit
    for count in [*counts, limit]:
        size = fitting(count, sizes)
        assert size >= count
        assert size == limit or size % 8 == 0
    assert len({fitting(count, sizes) for count in counts}) <= 4


def test_by_hand():
    # Quartiles 100, 200, 300, 400, rounded up to eights; then by quarters more, up to the limit.
    assert few_sizes(range(0, 401), 640) == [104, 200, 304, 400, 504, 632, 640]
    # Sizes that differ by less than a twentieth are one.
    assert few_sizes([390, 395, 400], 640) == [400, 504, 632, 640]
    assert few_sizes([0], 1) == [1]


def test_padding_is_a_small_part_of_what_varies_little():
    counts = np.random.default_rng(0).normal(1000, 50, 256).astype(int)
    sizes = few_sizes(counts, 8000)
    assert np.mean([fitting(count, sizes) for count in counts]) < 1.05 * counts.mean()
