"""The item table's files: half precision, any order, and numbers that do not fit."""

import numpy as np
import pytest

from tfmmrank.export.item_table import ItemTable
from tfmmrank.export.item_tokens import TokenFiles
from tfmmrank.stack import tf
from tfmmrank.tokens import Tokens

IDS = np.array(["a", "b", "c", "d"], object)


def tokens(*values, mask=True):
    values = np.array(values, np.float32).reshape(-1, 2, 3)
    return Tokens(values, np.broadcast_to(mask, values.shape[:2]))


def test_rows_are_written_in_any_order_and_read_back_in_float32(tmp_path):
    files = TokenFiles(tmp_path, IDS)
    first, second = np.arange(12) / 4, 1 / 3 + np.arange(12)
    files.write(np.array([3, 1]), "title", tokens(first))
    files.write(np.array([0, 2]), "title", tokens(second, mask=[True, False]))
    table = ItemTable(IDS, files.tokens, {"price": np.array([1, 2, 3, 4], np.float32)}, tmp_path)
    rows = table.rows(tf.constant([["b", "d", "nobody"], ["a", "c", "d"]]))
    assert rows.numpy().tolist() == [[1, 3, -1], [0, 2, 3]]
    got = table.tokens(rows)["title"]
    assert got.values.dtype == tf.float32
    np.testing.assert_array_equal(got.values[0, 1], first[:6].reshape(2, 3))  # quarters are exact
    np.testing.assert_array_equal(got.values[0, 0], first[6:].reshape(2, 3))
    halves = second[:3].astype(np.float16)
    np.testing.assert_array_equal(got.values[1, 0], [halves, [0, 0, 0]])  # what is masked is zeroed
    np.testing.assert_array_equal(got.mask[1], [[True, False], [True, False], [True, True]])
    np.testing.assert_array_equal(table.slots(rows)["price"][1], [1, 3, 4])
    assert got.mask.shape == (2, 3, 2)


def test_a_tower_of_half_precision_stays_one(tmp_path):
    """A lexical match compares its words with the query's, which must be of one type."""
    files = TokenFiles(tmp_path, IDS)
    words = Tokens(np.arange(24).reshape(4, 2, 3).astype(np.float16), np.ones((4, 2), bool))
    files.write(np.arange(4), "words/match", words)
    got = ItemTable(IDS, files.tokens, {}, tmp_path).tokens(tf.constant([3]))["words/match"]
    assert got.values.dtype == tf.float16
    np.testing.assert_array_equal(got.values[0], words.values[3])


def test_the_table_shares_the_files_memory(tmp_path):
    """A table of gigabytes is not copied on its way into the SavedModel."""
    files = TokenFiles(tmp_path, IDS)
    files.write(np.arange(4), "title", tokens(np.zeros(24)))
    table = ItemTable(IDS, files.tokens, {}, tmp_path)
    files.tokens["title"].values[2] = 7
    np.testing.assert_array_equal(table.tokens(tf.constant([2]))["title"].values, np.full((1, 2, 3), 7.0))


@pytest.mark.parametrize("value", [70_000.0, -1e9, np.nan, np.inf])
def test_a_number_that_float16_does_not_hold_is_told(tmp_path, value):
    files = TokenFiles(tmp_path, IDS)
    wild = np.zeros(12)
    files.write(np.array([0, 1]), "title", tokens(wild + 65_504))
    wild[8] = value
    files.write(np.array([2, 3]), "title", tokens(wild, mask=[[True, True], [False, True]]))  # hidden: no matter
    with pytest.raises(ValueError, match=r'tower "title" gives item "d" a token that holds (7|-1|nan|inf)'):
        files.write(np.array([2, 3]), "title", tokens(wild))
