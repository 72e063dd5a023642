"""Matches against numbers worked out by hand, or by an independent library."""

from contextlib import nullcontext

import bm25s
import numpy as np
import pytest

from tests.conftest import encode_picture, uncompiled
from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.matching import CosineMatch, LateMatch, LexicalMatch, MatchFeatures, matches
from tfmmrank.ranker import Ranker
from tfmmrank.stack import tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers import LexicalTower
from tfmmrank.training import build_ranker

DOCS = ["red shoes for men", "blue shoes, blue laces", "", "Crème brûlée set of berries", "红色 衬衫", "red red dress"]
ASKED = ["red shoe", "blue", "creme berry", "红", "", "dresses nobody sells"]


def as_bytes(texts):
    out = np.empty(len(texts), object)
    out[:] = [text.encode() for text in texts]
    return out


@pytest.fixture(scope="module")
def words():
    item = LexicalTower(["title"], max_words=8, name="words")
    item.adapt([{"title": as_bytes(DOCS[:3])}, {"title": as_bytes(DOCS[3:])}])
    return item, LexicalTower(["query"], side="query", share=item, max_words=6, name="asked")


def tokens_of(tower, texts):
    (column,) = tower.columns
    return tower.match_tokens(tower.embed(tower.preprocess({column: tf.constant(as_bytes(texts))})))


def lexical(words, docs=DOCS, asked=ASKED):
    item, query = words
    match = LexicalMatch("asked", "words")
    match.bind(query, item)
    offered = tokens_of(item, docs)
    everyone = Tokens(*(tf.repeat(part[None], len(asked), 0) for part in offered))
    return match(tokens_of(query, asked), everyone).numpy()


def test_bm25_equals_the_library(words):
    features = lexical(words)
    analysed = [["red", "shoe", "for", "men"], ["blue", "shoe", "blue", "lace"], [],
                ["creme", "brulee", "set", "of", "berry"], list("红色衬衫"), ["red", "red", "dress"]]  # fmt: skip
    index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    index.index([doc or ["\0"] for doc in analysed], show_progress=False)
    # bm25s leaves (k1 + 1) out, as Lucene does, and counts our placeholder into the mean length.
    mean = sum(map(len, analysed)) / len(analysed)
    for asked, row in ((["red", "shoe"], 0), (["blue"], 1), (["creme", "berry"], 2), (["红"], 3)):
        expected = []
        for doc in analysed:
            total = 0.0
            for word in asked:
                n = sum(word in other for other in analysed)
                count = doc.count(word)
                idf = np.log1p((len(DOCS) - n + 0.5) / (n + 0.5))
                total += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(doc) / mean)) if count else 0.0
            expected.append(total)
        np.testing.assert_allclose(features[row, :, 0], expected, rtol=2e-3)  # half precision
        order = index.get_scores(asked)
        assert np.argmax(order) == np.argmax(expected)


def test_overlap_counts_the_query_s_words(words):
    features = lexical(words)
    np.testing.assert_allclose(features[0, :, 1], [1, 0.5, 0, 0, 0, 0.5])
    np.testing.assert_allclose(features[2, :, 1], [0, 0, 0, 1, 0, 0])
    assert not features[4].any(-1)[2]  # an empty query, an item without a text
    np.testing.assert_allclose(features[:, :, 3], np.tile([1, 1, 0, 1, 1, 1], (len(ASKED), 1)))
    idf = {"red": np.log1p(4.5 / 2.5), "shoe": np.log1p(4.5 / 2.5)}
    np.testing.assert_allclose(features[0, 1, 2], idf["shoe"] / sum(idf.values()), rtol=1e-3)
    # "dresses" is stemmed to "dresse" and not to "dress": the S-stemmer is no more than it is.
    np.testing.assert_allclose(features[5, :, 1], 0)


def test_words_past_the_room_are_not_matched_and_count_for_the_length(words):
    long = " ".join(f"word{i}" for i in range(20))
    features = lexical(words, [long, "word3"], ["word3", "word19"])
    assert features[0, 1, 0] > features[0, 0, 0] > 0
    assert features[1, 0, 0] == 0


def test_padding_and_order_change_nothing(words):
    narrow = lexical(words, DOCS[:2])
    wide = lexical(words)
    np.testing.assert_array_equal(wide[:, :2], narrow)


def test_statistics_are_weights_and_config_makes_the_tower_again(words):
    item, _ = words
    again = LexicalTower.from_config({k: v for k, v in item.get_config().items() if k != "share"})
    again.build()
    again.set_weights(item.get_weights())
    np.testing.assert_array_equal(tokens_of(again, DOCS).values, tokens_of(item, DOCS).values)
    assert again.embed_state() == item.embed_state()
    other = LexicalTower(["title"], name="other")
    other.adapt([{"title": as_bytes(DOCS[:2])}])
    assert other.embed_state() != item.embed_state()


class _Encoded:
    side, name, match_width = "item", "tower", 3

    def __init__(self, output):
        self.output_kind = output


def encoded(rng, query=(2, 3), item=(2, 4, 5)):
    asked = Tokens(tf.constant(rng.normal(size=(*query, 3)), tf.float32), tf.constant(rng.random(query) < 0.8))
    offered = Tokens(tf.constant(rng.normal(size=(*item, 3)), tf.float32), tf.constant(rng.random(item) < 0.8))
    return asked, offered


def test_cosine_and_late_by_numpy(rng):
    asked, offered = encoded(rng)
    q, qm, t, tm = (part.numpy() for part in (*asked, *offered))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    cosine, late = CosineMatch("a", "b"), LateMatch("a", "b")
    for match in (cosine, late):
        match.bind(_Encoded("both"), _Encoded("both"))
    got_cosine, got_late = cosine(asked, offered).numpy(), late(asked, offered).numpy()
    for b in range(2):
        for i in range(4):
            there = qm[b, 0] and tm[b, i, 0]
            expected = unit(q[b, 0]) @ unit(t[b, i, 0]) if there else 0.0
            np.testing.assert_allclose(got_cosine[b, i], [expected, there], atol=1e-6)
            words, pieces = unit(q[b, 1:][qm[b, 1:]]), unit(t[b, i, 1:][tm[b, i, 1:]])
            if len(words) and len(pieces):
                best = (words @ pieces.T).max(1)
                np.testing.assert_allclose(got_late[b, i], [best.mean(), best.min(), 1.0], atol=1e-6)
            else:
                assert not got_late[b, i].any()


@pytest.mark.parametrize("nearly", [False, True])
def test_scale_is_that_of_the_training_pairs(rng, nearly):
    features = MatchFeatures([CosineMatch("a", "b", name="m")])
    features.build()
    values = rng.normal(3, 2, (1000, 2)).astype(np.float32)
    values[:, 1] = 1.0  # always present
    if nearly:
        values[:, 1] -= rng.normal(0, 1e-5, 1000)  # rounding is not to be blown up to a deviation of 1
    features.adapt([values[:400], values[400:]])
    np.testing.assert_allclose(features.mean, values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(features.deviation, [values[:, 0].std(), 1.0], rtol=1e-4)
    assert features.names == ["m/cosine", "m/present"]


MODEL = {
    "dim": 16,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "vocab_size": 200, "max_tokens": 8},
        "title": {"kind": "text", "columns": ["title"], "share": "query", "max_tokens": 10},
        "words": {"kind": "lexical", "columns": ["title"]},
        "asked": {"kind": "lexical", "side": "query", "columns": ["query"], "share": "words"},
    },
    "match": {"words": {"kind": "lexical", "query": "asked", "item": "words"}},
    "cross": {"layers": 1, "deep": [8]},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    from tests.conftest import encode_picture

    return MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture)


@pytest.mark.parametrize("fused", [True, False])
def test_training_starts_from_the_matches_and_a_saved_ranker_keeps_them(shop, tmp_path, fused):
    towers = MODEL["towers"] if fused else {name: MODEL["towers"][name] for name in ("words", "asked")}
    ranker = build_ranker(make_recipe({**MODEL, "towers": towers}), shop)
    batch = next(iter(shop.dataset("valid", ranker, batch_size=24)))[0]
    raw, scores = ranker.match_features(batch).numpy(), ranker(batch).numpy()
    mask = batch["slot_mask"].numpy()
    bm25, overlap = raw[..., 0][mask], raw[..., 1][mask]
    assert np.corrcoef(bm25 + overlap, scores[mask])[0, 1] > 0.95
    ranker.compile("adam", metrics=["ndcg@10"])
    with nullcontext() if fused else uncompiled():
        ranker.fit(shop.dataset("train", ranker, batch_size=8, shuffle=True), epochs=2, verbose=0)
    after = ranker(batch).numpy()
    assert not np.allclose(after, scores)
    ranker.save_ranker(tmp_path / "ranker")
    np.testing.assert_allclose(Ranker.load_ranker(tmp_path / "ranker")(batch).numpy(), after, atol=1e-5)


def test_what_cannot_be_matched_is_told(shop):
    towers = {name: dict(options) for name, options in MODEL["towers"].items()}

    def build(**match):
        return build_ranker(make_recipe({**MODEL, "towers": towers, "match": match}), shop)

    with pytest.raises(ValueError, match=r'match "m": "title" is no tower of side item or slot that can be matched by'):
        build(m={"kind": "lexical", "query": "asked", "item": "title"})
    with pytest.raises(ValueError, match='tower "words" is neither fused nor matched'):
        build()
    with pytest.raises(ValueError, match='model.match.m: unknown match "cosin"; did you mean "cosine"'):
        build(m={"kind": "cosin", "query": "asked", "item": "words"})
    with pytest.raises(ValueError, match='tower "asked" has output None; expected one of pooled, both'):
        build(m={"kind": "cosine", "query": "asked", "item": "words"})
    assert set(matches) >= {"cosine", "late", "lexical"}


def test_word_statistics_are_of_the_items_alone(tmp_path):
    """However many queries there are: of two columns, which a query tower of one shares."""
    shop = MemoryShop(tmp_path, encode_picture)
    shop.item_columns = {**shop.item_columns, "brand": "text"}
    towers = {
        "words": {"kind": "lexical", "columns": ["title", "brand"]},
        "asked": {"kind": "lexical", "side": "query", "columns": ["query"], "share": "words"},
    }
    match = {"words": {"kind": "lexical", "query": "asked", "item": "words"}}
    ranker = build_ranker(make_recipe({"towers": towers, "match": match, "cross": {"layers": 0, "deep": []}}), shop)
    alone = LexicalTower(["title", "brand"])
    alone.adapt([shop.catalogue.rows(np.arange(40), ["title", "brand"])])
    np.testing.assert_array_equal(ranker.towers[0].idf, alone.idf)
    np.testing.assert_array_equal(ranker.towers[0].mean_length, alone.mean_length)
