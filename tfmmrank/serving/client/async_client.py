"""The client for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import grpc.aio
import numpy as np

from tfmmrank.serving.client.answers import RankedList, ServingError, Signature
from tfmmrank.serving.client.client_base import ClientBase
from tfmmrank.serving.client.dialogue import Steps, T
from tfmmrank.serving.client.questions import Question
from tfmmrank.serving.client.transport import Deadline


class AsyncClient(ClientBase):
    """``Client`` for asyncio: the same arguments and methods, awaited. Make it where the event loop runs.

    Example:
        >>> async with AsyncClient("127.0.0.1:8500", "shop") as client:
        ...     ranked = await client.rank("red running shoes", ["i1", "i2", "i3"])
    """

    _grpc = grpc.aio

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def rank(
        self,
        query: str,
        item_ids: Sequence[str],
        *,
        timeout: float | None = None,
        split: bool = False,
        **context: Any,
    ) -> RankedList:
        """Ranks catalogue items by id: see ``Client.rank``."""
        return await self._run(self._dialogue.rank(query, item_ids, split, context), timeout)

    async def rank_batch(
        self,
        queries: Sequence[str],
        item_ids: Sequence[Sequence[str]],
        *,
        timeout: float | None = None,
        split: bool = False,
        **context: Sequence[Any],
    ) -> list[RankedList]:
        """Ranks B lists in one request: see ``Client.rank_batch``."""
        return await self._run(self._dialogue.rank_batch(queries, item_ids, split, context), timeout)

    async def rank_features(
        self, query: str, items: Any, *, timeout: float | None = None, **context: Any
    ) -> RankedList:
        """Ranks items by their raw values: see ``Client.rank_features``."""
        return await self._run(self._dialogue.rank_features(query, items, context), timeout)

    async def signature(self, name: str, timeout: float | None = None) -> Signature:
        """A signature's inputs and outputs. Raises ServingError when the model has none of that name."""
        return await self._run(self._dialogue.signature(name), timeout)

    async def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        output_filter: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Calls a signature with arrays by input; strings come back as object arrays of bytes."""
        return await self._run(self._dialogue.predict(signature, inputs, output_filter), timeout)

    async def metadata(self, timeout: float | None = None) -> dict[str, Signature]:
        """The model's signatures."""
        return await self._run(self._dialogue.metadata(), timeout)

    async def status(self, timeout: float | None = None) -> dict[int, str]:
        """State by version: ``AVAILABLE`` is ready to answer."""
        return await self._run(self._dialogue.status(), timeout)

    async def _run(self, steps: Steps[T], timeout: float | None) -> T:
        deadline = self._deadline(timeout)
        try:
            asked = next(steps)
            while True:
                try:
                    answers = await self._ask_all(asked, deadline)
                except ServingError as error:
                    asked = steps.throw(error)
                else:
                    asked = steps.send(answers)
        except StopIteration as done:
            return done.value

    async def _ask_all(self, asked: list[Question], deadline: Deadline) -> list[Any]:
        if len(asked) == 1:
            return [await self._ask(asked[0], deadline)]
        tasks = [asyncio.ensure_future(self._ask_in_turn(question, deadline)) for question in asked]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # the others, when one failed

    async def _ask_in_turn(self, question: Question, deadline: Deadline) -> Any:
        async with self._places:
            return await self._ask(question, deadline)

    async def _ask(self, question: Question, deadline: Deadline) -> Any:
        attempts = self._attempts(deadline)
        call = self._channel.unary_unary(question.method)
        while True:
            try:
                return question.read(await call(question.message, **attempts.options()))
            except grpc.RpcError as error:
                await asyncio.sleep(attempts.wait_after(error))

    @functools.cached_property
    def _places(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self._in_flight)
