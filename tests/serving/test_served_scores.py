"""Scores over gRPC equal ``model.predict``, for every signature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.serving.served_shop import TOLERANCE, assert_table_scores
from tfmmrank.export import UNKNOWN_SCORE
from tfmmrank.export.warmup import present
from tfmmrank.ranker import PADDING_SCORE
from tfmmrank.stack import tf


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def in_request_order(ranked):
    scores = np.empty(len(ranked), np.float32)
    scores[ranked.order] = ranked.scores
    return scores


def as_bytes(values):
    out = np.empty(len(values), object)
    out[:] = values
    return out


def elwc(questions, q):
    """Serialized with tensorflow-serving-api's own class."""
    from tensorflow_serving.apis import input_pb2

    message = input_pb2.ExampleListWithContext()
    _fill(message.context, {"query": questions.query(q).encode(), **questions.context(q)})
    for item in questions.items(q):
        _fill(message.examples.add(), item)
    return message.SerializeToString()


def _fill(example, values):
    for name, value in present(values).items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.float_list.value.extend(value)


def test_the_lists_hold_what_is_to_be_tested(now, then):
    titles = b"".join(now.raw["title"])
    assert (now.raw["picture"] == b"").any()
    assert np.isnan(now.raw["price"]).any()
    assert any(not now.query(q).isascii() for q in range(len(now)))
    assert titles.decode() != titles.decode().encode("ascii", "ignore").decode()
    assert len({now.size(q) for q in range(len(now))}) > 1
    assert not np.array_equal(now.slots["past_ctr"], then.slots["past_ctr"])


def test_rank_one_by_one(client, now):
    for q in range(len(now)):
        ranked = client.rank(now.query(q), now.ids(q), **now.context(q))
        assert_table_scores(in_request_order(ranked), now.predicted[q])
        assert ranked.known.all()
        assert (np.diff(ranked.scores) <= 0).all()
        assert [ranked[i].item_id for i in range(len(ranked))] == [now.ids(q)[i] for i in ranked.order]


def test_rank_batched_equals_one_by_one(client, now):
    everything = range(len(now))
    columns = {name: [now.context(q)[name] for q in everything] for name in now.context(0)}
    ranked = client.rank_batch([now.query(q) for q in everything], [now.ids(q) for q in everything], **columns)
    for q in everything:
        assert_table_scores(in_request_order(ranked[q]), now.predicted[q])


def test_padding_is_marked_and_changes_nothing(client, now):
    ids = np.full((2, 20), b"not an item", object)
    ids[0, : now.size(0)] = [item.encode() for item in now.ids(0)]
    # TF Serving's batching pads with the tensor's first element: a real item.
    ids[1] = ids[0, 0]
    ids[1, : now.size(1)] = [item.encode() for item in now.ids(1)]
    context = {name: np.array([now.context(q)[name] for q in (0, 1)]) for name in ("user age", "season")}
    inputs = {
        "query": as_bytes([now.query(0).encode(), now.query(1).encode()]), "item_ids": ids,
        "num_items": np.array([now.size(0), now.size(1)], np.int32), "user age": context["user age"],
        "season": as_bytes(context["season"].tolist()),
    }  # fmt: skip
    out = client.predict("", inputs)
    for q in (0, 1):
        assert_table_scores(out["scores"][q, : now.size(q)], now.predicted[q])
        assert (out["scores"][q, now.size(q) :] == np.float32(PADDING_SCORE)).all()
        assert out["known"][q].tolist() == [True] * now.size(q) + [False] * (20 - now.size(q))


def test_unknown_ids_are_told_and_take_no_part(client, now):
    ids = ["never seen", *now.ids(0), "i0 ", ""]
    ranked = client.rank(now.query(0), ids, **now.context(0))
    scores, known = in_request_order(ranked), np.empty(len(ids), bool)
    known[ranked.order] = ranked.known
    assert known.tolist() == [False, *[True] * now.size(0), False, False]
    assert scores[[0, -2, -1]].tolist() == [UNKNOWN_SCORE] * 3
    assert_table_scores(scores[1:-2], now.predicted[0])
    nobody = client.rank(now.query(0), ["never seen", "nor this"], **now.context(0))
    assert nobody.scores.tolist() == [UNKNOWN_SCORE] * 2
    assert PADDING_SCORE < UNKNOWN_SCORE < scores[1:-2].min()


def test_rank_features(client, then):
    for q in range(len(then)):
        ranked = client.rank_features(then.query(q), then.items(q), **then.context(q))
        close(in_request_order(ranked), then.predicted[q])


def test_rank_features_of_a_table_with_ids(client, then):
    table = pd.DataFrame(then.items(1)).assign(item_id=then.ids(1))
    ranked = client.rank_features(then.query(1), table, **then.context(1))
    close(in_request_order(ranked), then.predicted[1])
    assert ranked.item_ids == [then.ids(1)[i] for i in ranked.order]


def test_rank_features_batched_and_padded_equals_one_by_one(client, then):
    width = max(then.size(q) for q in (0, 1)) + 3
    inputs = {
        "query": as_bytes([then.query(q).encode() for q in (0, 1)]),
        "season": as_bytes([then.context(q)["season"] for q in (0, 1)]),
        "user age": np.array([then.context(q)["user age"] for q in (0, 1)], np.float32),
        "num_items": np.array([then.size(0), then.size(1)], np.int32),
    }
    for name, value in then.items(0)[0].items():
        column = np.full((2, width), value, object if isinstance(value, bytes) else np.float32)
        for q in (0, 1):
            column[q, : then.size(q)] = [item[name] for item in then.items(q)]
        inputs[name] = column
    scores = client.predict("rank_features", inputs)["scores"]
    for q in (0, 1):
        close(scores[q, : then.size(q)], then.predicted[q])
        assert (scores[q, then.size(q) :] == np.float32(PADDING_SCORE)).all()


def test_predict_elwc_batched_equals_one_by_one(client, then):
    serialized = [elwc(then, q) for q in range(len(then))]
    together = client.predict("predict_elwc", {"input_ranking_data": as_bytes(serialized)})["scores"]
    for q in range(len(then)):
        alone = client.predict("predict_elwc", {"input_ranking_data": as_bytes([serialized[q]])})["scores"]
        assert alone.shape == (1, then.size(q))
        close(alone[0], then.predicted[q])
        close(together[q, : then.size(q)], then.predicted[q])
        assert (together[q, then.size(q) :] == np.float32(PADDING_SCORE)).all()


def test_regress_and_classify_score_each_pair(client, then):
    from tensorflow.core.example import example_pb2

    for q in (0, 3):
        serialized = []
        for item in then.items(q):
            example = example_pb2.Example()
            _fill(example, {"query": then.query(q).encode(), **then.context(q), **item})
            serialized.append(example.SerializeToString())
        outputs = client.predict("regress", {"inputs": as_bytes(serialized)})["outputs"]
        assert outputs.shape == (then.size(q),)
        close(outputs, then.predicted[q])
        scores = client.predict("classify", {"inputs": as_bytes(serialized)})["scores"]
        assert scores.shape == (then.size(q), 1)
        np.testing.assert_array_equal(scores[:, 0], outputs)


@pytest.mark.parametrize("side", ["query", "item"])
def test_embeddings_are_pooled_tokens_of_length_one(client, served, now, side):
    ranker = served.ranker
    if side == "query":
        raw = dict(now.lists.queries)
        got = client.predict("embed_query", raw)["embedding"]
        tokens = ranker.encode_query(ranker.preprocess_query({k: tf.constant(v) for k, v in raw.items()}))
    else:
        raw = {name: now.raw[name] for name in ("title", "picture", "price", "Brand")}
        got = client.predict("embed_items", raw)["embedding"]
        tokens = ranker.encode_items(ranker.preprocess_items({k: tf.constant(v) for k, v in raw.items()}))
    assert got.shape == (len(next(iter(raw.values()))), 16)
    for row in range(len(got)):
        means = [
            t.values.numpy()[row][t.mask.numpy()[row]].mean(0) for t in tokens.values() if t.mask.numpy()[row].any()
        ]
        expected = np.mean(means, axis=0)
        close(got[row], expected / np.linalg.norm(expected))


def test_embedding_of_nothing_is_zero(client):
    inputs = {"query": as_bytes([b""]), "season": as_bytes([b""]), "user age": np.array([np.nan], np.float32)}
    np.testing.assert_array_equal(client.predict("embed_query", inputs)["embedding"], np.zeros((1, 16)))
