"""The signatures' own work, op by op: who takes part in a list, and what is computed how often."""

import numpy as np
import pytest

from tests.export.small_shop import make_ranker, make_shop
from tests.tiny_shop import as_bytes
from tfmmrank.export import UNKNOWN_SCORE
from tfmmrank.export.item_table import ItemTable, current_slots
from tfmmrank.export.item_tokens import encode_catalogue
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.export.signatures import Signatures
from tfmmrank.ranker import PADDING_SCORE
from tfmmrank.stack import tf

# Attention over five places adds in another order than over three: float32, of scores of size 1. Observed: 2e-7.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def signatures(shop, tmp_path_factory):
    ranker = make_ranker(shop)
    columns, folder = RawColumns.of(ranker), tmp_path_factory.mktemp("table")
    items = encode_catalogue(ranker, shop, columns, folder, progress=False)
    table = ItemTable(shop.catalogue.ids, items.tokens, current_slots(shop, columns), folder)
    return Signatures(ranker, columns, table, '{"a": 1}')


def ask(signatures, *lists, query=b"red shoe"):
    """Scores and known ids of lists, padded to the longest."""
    ids = np.full((len(lists), max(map(len, lists))), b"i0", object)
    for row, items in zip(ids, lists, strict=True):
        row[: len(items)] = as_bytes(items)
    inputs = {"query": as_bytes([query] * len(lists)), "item_ids": ids, "num_items": [len(items) for items in lists]}
    out = signatures.rank({name: tf.constant(value) for name, value in inputs.items()})
    return out["scores"].numpy(), out["known"].numpy()


def test_an_unknown_id_takes_no_part_in_list_context(signatures):
    without, _ = ask(signatures, ["i1", "i2", "i3"])
    scores, known = ask(signatures, ["i1", "nobody", "i2", "nor me", "i3"])
    np.testing.assert_array_equal(scores[0, [1, 3]], np.float32(UNKNOWN_SCORE))
    np.testing.assert_array_equal(known, [[True, False, True, False, True]])
    np.testing.assert_allclose(scores[0, [0, 2, 4]], without[0], atol=TOLERANCE)
    fewer, _ = ask(signatures, ["i1", "i2"])
    assert np.abs(fewer - without[:, :2]).max() > 100 * TOLERANCE  # a known one does take part


def test_nobody_known_and_nobody_asked(signatures):
    scores, known = ask(signatures, ["nobody", "i1"], ["x", "y"], [])
    assert np.isfinite(scores).all()
    assert scores[1].tolist() == [UNKNOWN_SCORE] * 2
    assert scores[2].tolist() == [PADDING_SCORE] * 2
    assert known.tolist() == [[False, True], [False, False], [False, False]]


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_number_of_items_out_of_range_spoils_its_own_list_alone(signatures, shop, wrong):
    """A server may batch requests of several clients."""
    names = [[b"i1", b"i2", b"i3"], [b"i4", b"i5", b"i0"]]
    raw = shop.catalogue.rows(np.array([[1, 2, 3], [4, 5, 0]]), ["title", "price", "brand", "past_clicks"])
    for answer, items in ((signatures.rank, {"item_ids": np.array(names, object)}), (signatures.rank_features, raw)):

        def score(*sizes, answer=answer, items=items):
            asked = {"query": as_bytes(["red shoe", "hat"]), **items, "num_items": np.array(sizes, np.int32)}
            return answer({name: tf.constant(value) for name, value in asked.items()})

        out, alone = score(wrong, 2), score(3, 2)
        assert out["scores"][0].numpy().tolist() == [UNKNOWN_SCORE] * 3
        np.testing.assert_array_equal(out["scores"][1], alone["scores"][1])
        if "known" in out:
            assert out["known"].numpy().tolist() == [[False] * 3, [True, True, False]]
        with pytest.raises(tf.errors.InvalidArgumentError, match="num_items must be from 0 to the lists' padded"):
            score(wrong, wrong)


def test_by_id_the_query_is_encoded_once_and_no_item_is(signatures, monkeypatch):
    seen = []
    encode = signatures.ranker.encode_query

    def encode_query(features, training):
        seen.append({name: value.shape[0] for name, value in features.items()})
        return encode(features, training)

    monkeypatch.setattr(signatures.ranker, "encode_query", encode_query)
    monkeypatch.setattr(signatures.ranker, "encode_items", None)  # not to be called
    tf.config.run_functions_eagerly(True)
    try:
        ask(signatures, ["i1", "i2", "i3"], ["i4"])
    finally:
        tf.config.run_functions_eagerly(False)
    assert seen == [{"query/query/ids": 2}]  # two queries, whatever the number of their items


def test_describe_says_the_same_to_each_that_asks(signatures):
    found = signatures.describe({"ask": tf.constant(["", "what?"])})["description"]
    assert found.numpy().tolist() == [b'{"a": 1}'] * 2
