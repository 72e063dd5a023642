"""What a client and a model server say to each other, whatever carries the words.

Each method is a generator: it yields questions that may be asked together, is sent their answers in order (or has the
ServingError thrown in), and returns what the caller wants to know. ``Client`` carries the words by waiting,
``AsyncClient`` by awaiting; what is said stands here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from tfmmrank.serving.client import questions
from tfmmrank.serving.client.answers import Prediction, RankedList, ServingError, Signature, list_context_of
from tfmmrank.serving.client.questions import Question, Target
from tfmmrank.serving.client.ranking_inputs import (
    Part,
    check_lists,
    feature_inputs,
    item_table,
    query_inputs,
    rank_inputs,
    split_lists,
)

T = TypeVar("T")
Steps = Generator[list[Question], list[Any], T]

_OF_OTHER_SIGNATURES = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"}
_ROUNDS = 4  # a swap takes one; more means that servers of several versions answer in turn


class Dialogue:
    """Talks of one model, and remembers its signatures.

    Args:
        target: the model.
        max_candidates: of a list, in one request.

    Raises:
        ValueError: for a ``max_candidates`` below 1.
    """

    def __init__(self, target: Target, max_candidates: int) -> None:
        if max_candidates < 1:
            raise ValueError(f"max_candidates is {max_candidates}; expected at least 1")
        self.target, self.max_candidates = target, max_candidates
        self._signatures: dict[str, Signature] | None = None

    # -- ranking ------------------------------------------------------------------------------------------------------

    def rank(self, query: str, item_ids: Sequence[str], split: bool, context: Mapping[str, Any]) -> Steps[RankedList]:
        """Ranks one list by id."""
        columns = {name: [value] for name, value in context.items()}
        return (yield from self.rank_batch([query], [item_ids], split, columns))[0]

    def rank_batch(
        self,
        queries: Sequence[str],
        item_ids: Sequence[Sequence[str]],
        split: bool,
        context: Mapping[str, Sequence[Any]],
    ) -> Steps[list[RankedList]]:
        """Ranks B lists by id, in parts where one is longer than ``max_candidates``."""
        check_lists(queries, item_ids)
        item_ids = [list(ids) for ids in item_ids]
        if not any(item_ids):
            return [RankedList.empty() for _ in queries]
        return (yield from self._of_now(lambda: self._rank_batch(queries, item_ids, split, context)))

    def _rank_batch(
        self,
        queries: Sequence[str],
        item_ids: Sequence[Sequence[str]],
        split: bool,
        context: Mapping[str, Sequence[Any]],
    ) -> Steps[list[RankedList]]:
        columns = query_inputs((yield from self.signature("rank")), queries, context)
        lengths = [len(ids) for ids in item_ids]
        parts = split_lists(lengths, self.max_candidates)
        asked = [questions.predict(self.target, "rank", rank_inputs(columns, item_ids, part)) for part in parts]
        if len(parts) == 1:
            answered = yield asked
        else:
            answered = yield from self._ask_parts(asked, max(lengths), split)
        return _merge(item_ids, parts, answered)

    def rank_features(self, query: str, items: Any, context: Mapping[str, Any]) -> Steps[RankedList]:
        """Ranks one list by raw values."""
        ids, columns = item_table(items)
        if not ids:
            return RankedList.empty()
        return (yield from self._of_now(lambda: self._rank_features(query, ids, columns, context)))

    def _rank_features(
        self, query: str, ids: list[str], columns: Mapping[str, Any], context: Mapping[str, Any]
    ) -> Steps[RankedList]:
        signature = yield from self.signature("rank_features")
        inputs = {
            **query_inputs(signature, [query], {name: [value] for name, value in context.items()}),
            **feature_inputs(signature, columns, len(ids)),
        }
        outputs = yield from self.predict("rank_features", inputs)
        return RankedList.of(ids, outputs["scores"][0, : len(ids)], np.ones(len(ids), bool))

    # -- the protocol -------------------------------------------------------------------------------------------------

    def signature(self, name: str) -> Steps[Signature]:
        """A signature's inputs and outputs. Raises ServingError when the model has none of that name."""
        signatures = yield from self._remembered()
        if name not in signatures:
            known = ", ".join(sorted(n for n in signatures if not n.startswith("__")))
            raise ServingError(
                "FAILED_PRECONDITION", f'model "{self.target.model}" has no signature "{name}"; it has: {known}'
            )
        return signatures[name]

    def predict(
        self, signature: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()
    ) -> Steps[dict[str, np.ndarray]]:
        """Calls a signature."""
        asked = questions.predict(self.target, signature, inputs, output_filter)
        return (yield [asked])[0].outputs

    def metadata(self) -> Steps[dict[str, Signature]]:
        """The model's signatures, asked anew."""
        (signatures,) = yield [questions.metadata(self.target)]
        self._signatures = signatures
        return signatures

    def status(self) -> Steps[dict[int, str]]:
        """State by version."""
        (states,) = yield [questions.status(self.target)]
        return states

    def _remembered(self) -> Steps[dict[str, Signature]]:
        signatures = self._signatures
        return signatures if signatures is not None else (yield from self.metadata())

    def _of_now(self, ask: Callable[[], Steps[T]]) -> Steps[T]:
        """What ``ask`` gives; once more where it fails by signatures that a new version no longer has."""
        remembered = self._signatures
        try:
            return (yield from ask())
        except (ServingError, ValueError) as error:
            if remembered is None or (isinstance(error, ServingError) and error.code not in _OF_OTHER_SIGNATURES):
                raise
            if (yield from self.metadata()) == remembered:
                raise
        return (yield from ask())

    # -- long lists ---------------------------------------------------------------------------------------------------

    def _ask_parts(self, asked: list[Question], longest: int, split: bool) -> Steps[list[Prediction]]:
        """Asks for a long list's parts, where the model scores each item alone.

        The description is asked for each time, since the next version may have list context; it must be of the
        version that scored the parts.
        """
        if "describe" not in (yield from self._remembered()):
            if not split:
                raise ValueError(self._why_not_split(longest, None))
            return (yield from self._of_one_version(asked, (yield asked)))
        describe = questions.predict(self.target, "describe", {"ask": np.array([b""], object)})
        described = yield [describe]
        self._check_split(described[0], longest, split)
        answered = yield asked
        answered = yield from self._of_one_version([describe, *asked], described + answered)
        self._check_split(answered[0], longest, split)
        return answered[1:]

    def _of_one_version(self, asked: list[Question], answered: list[Prediction]) -> Steps[list[Prediction]]:
        """Asks again what another version answered than the newest of those that answered last.

        So it ends after one round when versions are swapped meanwhile, and after two when they are rolled back.
        """
        last = answered
        for _ in range(_ROUNDS):
            now = max(prediction.version for prediction in last)
            stale = [number for number, prediction in enumerate(answered) if prediction.version != now]
            if not stale:
                return answered
            last = yield [asked[number] for number in stale]
            answered = list(answered)
            for number, prediction in zip(stale, last, strict=True):
                answered[number] = prediction
        versions = sorted({prediction.version for prediction in answered})
        if len(versions) == 1:
            return answered
        raise ServingError(
            "ABORTED",
            f'model "{self.target.model}": versions {" and ".join(map(str, versions))} answer in turn, and the parts '
            "of one list must be scored by one; name a version or a label",
        )

    def _check_split(self, described: Prediction, longest: int, split: bool) -> None:
        context = list_context_of(described)
        if context or (context is None and not split):
            raise ValueError(self._why_not_split(longest, context))

    def _why_not_split(self, longest: int, context: bool | None) -> str:
        sizes = (
            f'{longest} candidates are more than max_candidates={self.max_candidates}, and model "{self.target.model}"'
        )
        if context:
            return (
                f"{sizes} has list context: every item's score depends on the others of its request, so that parts "
                "would not compare; send fewer, or a larger max_candidates"
            )
        return (
            f"{sizes} does not say whether it has list context (it has no signature `describe`); pass split=True if "
            "it scores each item alone, send fewer, or a larger max_candidates"
        )


def _merge(item_ids: Sequence[Sequence[str]], parts: list[Part], answered: list[Prediction]) -> list[RankedList]:
    scores: list[list[np.ndarray]] = [[] for _ in item_ids]
    known: list[list[np.ndarray]] = [[] for _ in item_ids]
    for part, prediction in zip(parts, answered, strict=True):
        for row, b in enumerate(part.rows):
            count = len(item_ids[b][part.span])
            scores[b].append(prediction.outputs["scores"][row, :count])
            known[b].append(prediction.outputs["known"][row, :count])
    return [
        RankedList.of(
            [i.decode("utf-8") if isinstance(i, bytes) else str(i) for i in ids],
            np.concatenate(scores[b]),
            np.concatenate(known[b]),
        )
        if len(ids)
        else RankedList.empty()
        for b, ids in enumerate(item_ids)
    ]
