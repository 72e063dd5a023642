"""Rows of features and their digests."""

from __future__ import annotations

import numpy as np
import pytest

from tfmmrank.data import feature_rows
from tfmmrank.data.feature_rows import FeatureRows, RowWriter, digests_of, match


def test_digests_tell_values_apart():
    text = np.array([b"ab", b"a", b"", b"a"], object)
    other = np.array([b"c", b"bc", b"abc", b"bc"], object)
    number = np.array([1, np.nan, -np.float32(np.nan), np.nan], np.float32)
    digests = digests_of([text, other])
    assert len(set(digests.tolist())) == 3  # where a value ends counts
    assert digests[1] == digests[3]
    assert len(set(digests_of([number]).tolist())) == 2  # one kind of missing number


def test_matching():
    have = np.array([b"c", b"", b"a", b"b\0\1"], "S16")
    wanted = np.array([b"a", b"d", b"b\0\1", b"c", b"a", b"0"], "S16")
    assert match(wanted, have).tolist() == [2, -1, 3, 0, 2, -1]
    assert match(wanted, have[:0]).tolist() == [-1] * 6


def test_digests_follow_values_to_disk(tmp_path, monkeypatch):
    rows = np.arange(3)
    writer = RowWriter(tmp_path / "rows", 6)
    writer.write(rows, digests_of([rows.astype(np.float32)]), {"a": rows * 2.5})
    assert list(FeatureRows.open(tmp_path / "rows").digests) == [b""] * 6  # as a kill would leave it now
    writer.flush()
    found = FeatureRows.open(tmp_path / "rows")
    assert [bool(digest) for digest in found.digests] == [True] * 3 + [False] * 3
    np.testing.assert_array_equal(found.features["a"], [0, 2.5, 5, 0, 0, 0])
    monkeypatch.setattr(feature_rows, "FLUSH_SECONDS", 0)
    writer.write(rows[:2] * 2 + 3, digests_of([rows[1:].astype(np.float32)]), {"a": np.array([7.0, 8.0])})
    found = FeatureRows.open(tmp_path / "rows")
    np.testing.assert_array_equal(found.features["a"], [0, 2.5, 5, 7, 0, 8])
    assert [bool(digest) for digest in found.digests] == [True, True, True, True, False, True]


def test_rows_of_another_layout_are_refused(tmp_path):
    digests = digests_of([np.arange(2, dtype=np.float32)])
    with RowWriter(tmp_path / "rows", 2) as writer:
        writer.write(np.arange(1), digests[:1], {"a": np.zeros((1, 3), np.float32)})
        with pytest.raises(ValueError, match=r"float16 \[3\]'\}, and of other items \{'a': 'float32 \[3\]'\}"):
            writer.write(np.arange(1, 2), digests[1:], {"a": np.zeros((1, 3), np.float16)})
    assert FeatureRows.open(tmp_path / "rows").digests.tolist() == [digests[0], b""]


def test_no_rows_at_all(tmp_path):
    with RowWriter(tmp_path / "rows", 0):
        pass
    found = FeatureRows.open(tmp_path / "rows")
    assert (len(found.digests), found.features) == (0, {})
