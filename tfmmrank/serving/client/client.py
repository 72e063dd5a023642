"""A client of the embedded server and of TensorFlow Serving alike. Needs numpy and gRPC, not TensorFlow."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from tfmmrank.serving.client.answers import RankedList, ServingError, Signature
from tfmmrank.serving.client.client_base import ClientBase
from tfmmrank.serving.client.dialogue import Steps, T
from tfmmrank.serving.client.questions import Question
from tfmmrank.serving.client.transport import Deadline


class Client(ClientBase):
    """Asks a model server. Safe to use from several threads; close it, or use it in a ``with`` block.

    One client keeps one connection: make it once, not for each request. While the server is away, as in a restart, a
    call waits for it until its timeout; a refusal is never asked again.

    Args:
        address: ``host:port`` of its gRPC port.
        model: the model's name.
        timeout: seconds in which a call must be answered, all its requests and retries included; calls may name their
            own.
        version: default: whichever the server serves as the latest.
        label: instead of a version: the one that the server gives this label.
        tls: for an encrypted connection.
        max_candidates: longer lists are asked for in parts, where the model has no list context.
        in_flight: how many parts are asked for at once, at most.
        retry: how to ask again a server that is not there, or has too much to do; None: not at all.
        keepalive: seconds of silence after which a connection with requests under way is tried; None: never. TensorFlow
            Serving disconnects a client that tries often (gRPC's ``too_many_pings``).

    Raises:
        ValueError: for both a version and a label, or a number below 1.

    Example:
        >>> with Client("127.0.0.1:8500", "shop") as client:
        ...     for item in client.rank("red running shoes", ["i1", "i2", "i3"]):
        ...         print(item.item_id, item.score)
    """

    _grpc = grpc

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()
        if "_threads" in self.__dict__:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- ranking ------------------------------------------------------------------------------------------------------

    def rank(
        self,
        query: str,
        item_ids: Sequence[str],
        *,
        timeout: float | None = None,
        split: bool = False,
        **context: Any,
    ) -> RankedList:
        """Ranks catalogue items by id.

        An item that the model's catalogue lacks has a score that says nothing beside those of known items, so that it
        comes after them, whatever it is, with ``known`` False.

        More candidates than ``max_candidates`` are asked for in several requests and merged, if the model scores each
        item alone. All are scored by one version: parts that another one scored are asked for again.

        Args:
            query: the query's text; not sent to a model that reads none.
            item_ids: the candidates.
            timeout: seconds; default: the client's.
            split: that a model without the signature ``describe`` has no list context, so that many candidates may be
                asked for in parts.
            **context: other query columns; those left out are missing. One that is called ``timeout`` or ``split`` can
                only be sent by ``predict``.

        Raises:
            ServingError: when the server does not answer or refuses.
            TypeError: for one id, a str, instead of a sequence of them.
            ValueError: for a context column that the model does not read, and for more candidates than
                ``max_candidates`` where the model has list context, or may have.
        """
        return self._run(self._dialogue.rank(query, item_ids, split, context), timeout)

    def rank_batch(
        self,
        queries: Sequence[str],
        item_ids: Sequence[Sequence[str]],
        *,
        timeout: float | None = None,
        split: bool = False,
        **context: Sequence[Any],
    ) -> list[RankedList]:
        """Ranks B lists in one request: query b's candidates are ``item_ids[b]``; a context column holds B values.

        The rest is as in ``rank``.
        """
        return self._run(self._dialogue.rank_batch(queries, item_ids, split, context), timeout)

    def rank_features(self, query: str, items: Any, *, timeout: float | None = None, **context: Any) -> RankedList:
        """Ranks items by their raw values: for items newer than the model, or a model without a catalogue.

        Args:
            query: the query's text.
            items: a list of ``{column: value}``, or a DataFrame. Text as str, a picture as the bytes of its JPEG, PNG
                or WebP (other bytes count as a missing picture), numbers as numbers; None and NaN are missing, and so
                is a column left out. ``item_id``, if there, names the items in the answer; else their places do.
            timeout: seconds; default: the client's.
            **context: other query columns.

        Raises:
            ServingError: when the server does not answer or refuses.
            ValueError: for a column that the model does not read, or a value of the wrong kind; also for a picture's
                file name instead of its bytes.
        """
        return self._run(self._dialogue.rank_features(query, items, context), timeout)

    # -- the protocol -------------------------------------------------------------------------------------------------

    def signature(self, name: str, timeout: float | None = None) -> Signature:
        """A signature's inputs and outputs. Raises ServingError when the model has none of that name."""
        return self._run(self._dialogue.signature(name), timeout)

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        output_filter: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Calls a signature with arrays by input; strings come back as object arrays of bytes."""
        return self._run(self._dialogue.predict(signature, inputs, output_filter), timeout)

    def metadata(self, timeout: float | None = None) -> dict[str, Signature]:
        """The model's signatures."""
        return self._run(self._dialogue.metadata(), timeout)

    def status(self, timeout: float | None = None) -> dict[int, str]:
        """State by version: ``AVAILABLE`` is ready to answer."""
        return self._run(self._dialogue.status(), timeout)

    # -- carrying the words -------------------------------------------------------------------------------------------

    def _run(self, steps: Steps[T], timeout: float | None) -> T:
        deadline = self._deadline(timeout)
        try:
            asked = next(steps)
            while True:
                try:
                    answers = self._ask_all(asked, deadline)
                except ServingError as error:
                    asked = steps.throw(error)
                else:
                    asked = steps.send(answers)
        except StopIteration as done:
            return done.value

    def _ask_all(self, asked: list[Question], deadline: Deadline) -> list[Any]:
        if len(asked) == 1:
            return [self._ask(asked[0], deadline)]
        return list(self._threads.map(lambda question: self._ask(question, deadline), asked))

    def _ask(self, question: Question, deadline: Deadline) -> Any:
        attempts = self._attempts(deadline)
        call = self._channel.unary_unary(question.method)
        while True:
            try:
                return question.read(call(question.message, **attempts.options()))
            except grpc.RpcError as error:
                time.sleep(attempts.wait_after(error))

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._in_flight, "tfmmrank-client")
