"""What a model server answers, read from the bytes; and the refusal, which is an answer too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor, type_name

_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


class ServingError(RuntimeError):
    """The server did not answer, or refused the request.

    Attributes:
        code: gRPC's status name, such as ``NOT_FOUND``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RankedItem(NamedTuple):
    """One item of an answer; ``known`` is whether the model's catalogue has it."""

    item_id: str
    score: float
    known: bool


@dataclass(frozen=True)
class RankedList:
    """A query's items, best first; those that the model does not know come last. Ties keep the request's order.

    Attributes:
        item_ids: ids ``[n]``.
        scores: float32 ``[n]``.
        known: bool ``[n]``: whether the model's catalogue has the item.
        order: int64 ``[n]``: each one's place in the request.
    """

    item_ids: list[str]
    scores: np.ndarray
    known: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, item_ids: Sequence[str], scores: np.ndarray, known: np.ndarray) -> RankedList:
        """Sorts: known before unknown, then by score."""
        order = np.lexsort((-scores, ~known))
        return cls([item_ids[i] for i in order], scores[order], known[order], order)

    @classmethod
    def empty(cls) -> RankedList:
        """The answer to no candidates."""
        return cls([], np.empty(0, np.float32), np.empty(0, bool), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.item_ids)

    def __getitem__(self, place: int) -> RankedItem:
        return RankedItem(self.item_ids[place], float(self.scores[place]), bool(self.known[place]))

    def __iter__(self) -> Iterator[RankedItem]:
        return (self[place] for place in range(len(self)))


class InputSpec(NamedTuple):
    """What a signature takes or gives: TensorFlow's name of the type, and the shape, −1 where free."""

    dtype: str
    shape: tuple[int, ...]


class Signature(NamedTuple):
    """A signature's inputs and outputs by name."""

    inputs: dict[str, InputSpec]
    outputs: dict[str, InputSpec]
    method: str


class Prediction(NamedTuple):
    """A signature's outputs, and the version of the model that gave them (0: the server does not say)."""

    version: int
    outputs: dict[str, np.ndarray]


def read_prediction(message: bytes) -> Prediction:
    """A PredictResponse; strings as object arrays of bytes."""
    response = wire.PredictResponse.FromString(message)
    outputs = {name: read_tensor(tensor) for name, tensor in response.outputs.items()}
    return Prediction(response.model_spec.version.value, outputs)


def read_signatures(message: bytes) -> dict[str, Signature]:
    """A GetModelMetadataResponse's signatures by name."""
    response = wire.GetModelMetadataResponse.FromString(message)
    signatures = wire.SignatureDefMap.FromString(response.metadata["signature_def"].value)
    return {
        name: Signature(_specs(definition.inputs), _specs(definition.outputs), definition.method_name)
        for name, definition in signatures.signature_def.items()
    }


def read_states(message: bytes) -> dict[int, str]:
    """A GetModelStatusResponse: state by version."""
    response = wire.GetModelStatusResponse.FromString(message)
    return {s.version: _STATES.get(s.state, str(s.state)) for s in response.model_version_status}


def list_context_of(described: Prediction) -> bool | None:
    """Whether items of one list see each other, from the signature ``describe``; None when the model does not say."""
    return json.loads(described.outputs["description"].item()).get("list_context")


def _specs(infos: Mapping[str, Any]) -> dict[str, InputSpec]:
    return {
        name: InputSpec(type_name(info.dtype), tuple(dim.size for dim in info.tensor_shape.dim))
        for name, info in infos.items()
    }
