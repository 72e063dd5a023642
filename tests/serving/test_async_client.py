"""The client for asyncio: many calls at once over one channel, and calls that are given up."""

from __future__ import annotations

import asyncio
import threading

import grpc
import numpy as np
import pytest

from tests.serving.fake_server import FakeServer
from tfmmrank.serving import AsyncClient, ServingError

WAIT = 30.0  # seconds that nothing here takes


def test_calls_at_once_answer_as_one_by_one(server, client, now):
    async def ask():
        async with AsyncClient(server.address, "tiny", timeout=WAIT) as awaited:
            lists = [awaited.rank(now.query(q), now.ids(q), **now.context(q)) for q in range(len(now))]
            return await asyncio.gather(*lists)

    for q, ranked in enumerate(asyncio.run(ask())):
        expected = client.rank(now.query(q), now.ids(q), **now.context(q))
        assert ranked.item_ids == expected.item_ids
        np.testing.assert_array_equal(ranked.scores, expected.scores)


def test_features_batches_and_the_protocol(server, client, then):
    async def ask():
        async with AsyncClient(server.address, "tiny", timeout=WAIT) as awaited:
            return await asyncio.gather(
                awaited.rank_features(then.query(0), then.items(0), **then.context(0)),
                awaited.rank_batch(["red", "blue"], [then.ids(0), []]),
                awaited.status(),
                awaited.metadata(),
                awaited.signature("rank"),
            )

    features, batch, status, metadata, signature = asyncio.run(ask())
    expected = client.rank_features(then.query(0), then.items(0), **then.context(0))
    np.testing.assert_array_equal(features.scores, expected.scores)
    assert [len(ranked) for ranked in batch] == [then.size(0), 0]
    assert status == {1: "AVAILABLE"}
    assert metadata["rank"] == signature == client.signature("rank")


def test_when_a_part_fails_the_others_are_given_up():
    """Of three parts one is refused at once; the two that the server keeps are cancelled, not waited for."""
    go_on, left = threading.Event(), ["refuse"]

    def before(request, context):
        if request.model_spec.signature_name != "rank":
            return
        if left:
            left.pop()
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        go_on.wait(WAIT)

    async def ask(address):
        async with AsyncClient(address, "m", timeout=WAIT, max_candidates=10) as client:
            with pytest.raises(ServingError, match="broken"):
                await client.rank("red", [f"i{number}" for number in range(30)])
            left_over = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*left_over, return_exceptions=True)
            go_on.set()
            return len((await client.rank("red", ["i1"])).item_ids)

    with FakeServer(before=before) as server:
        assert asyncio.run(ask(server.address)) == 1


def test_a_cancelled_call_leaves_the_client_usable():
    arrived, go_on = threading.Event(), threading.Event()

    def before(request, context):
        arrived.set()
        go_on.wait(WAIT)

    async def ask(address):
        async with AsyncClient(address, "m", timeout=WAIT) as client:
            call = asyncio.ensure_future(client.rank("red", ["i1"]))
            await asyncio.to_thread(arrived.wait, WAIT)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            go_on.set()
            return (await client.rank("red", ["i1", "i2"])).item_ids

    with FakeServer(before=before) as server:
        assert asyncio.run(ask(server.address)) == ["i2", "i1"]
