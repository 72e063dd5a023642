"""A client of the embedded server and of TensorFlow Serving alike. Needs numpy and gRPC, not TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import numpy as np

from tfmmrank.registry import nearest
from tfmmrank.serving import wire
from tfmmrank.serving.raw_values import raw_array, refuse_picture_paths, table_columns
from tfmmrank.serving.tensors import read_tensor, type_name, write_tensor

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


class Client:
    """Asks a model server. Safe to use from several threads; close it, or use it in a ``with`` block.

    Args:
        address: ``host:port`` of its gRPC port.
        model: the model's name.
        timeout: seconds to wait for an answer.
        version: default: whichever the server serves as the latest.

    Example:
        >>> with Client("127.0.0.1:8500", "shop") as client:
        ...     for item in client.rank("red running shoes", ["i1", "i2", "i3"]):
        ...         print(item.item_id, item.score)
    """

    def __init__(self, address: str, model: str, timeout: float = 5.0, version: int | None = None) -> None:
        self.address, self.model, self.timeout, self.version = address, model, timeout, version
        # The 4 MB limit is the client's own; a full catalogue's embeddings are more.
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._signatures: dict[str, Signature] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- ranking ------------------------------------------------------------------------------------------------------

    def rank(self, query: str, item_ids: Sequence[str], **context: Any) -> RankedList:
        """Ranks catalogue items by id.

        An item that the model's catalogue lacks is scored as one of which nothing is known. That score says nothing
        beside those of known items, so that it comes after them, whatever it is, with ``known`` False.

        Args:
            query: the query's text; not sent to a model that reads none.
            item_ids: the candidates.
            **context: other query columns; those left out are missing.

        Raises:
            ServingError: when the server does not answer or refuses.
            TypeError: for one id, a str, instead of a sequence of them.
            ValueError: for a context column that the model does not read.
        """
        return self.rank_batch([query], [item_ids], **{name: [value] for name, value in context.items()})[0]

    def rank_batch(
        self, queries: Sequence[str], item_ids: Sequence[Sequence[str]], **context: Sequence[Any]
    ) -> list[RankedList]:
        """Ranks B lists in one request: query b's candidates are ``item_ids[b]``; a context column holds B values."""
        if len(queries) != len(item_ids):
            raise ValueError(f"there are {len(queries)} queries and {len(item_ids)} lists of item ids")
        for ids in item_ids:
            if isinstance(ids, (str, bytes)):
                raise TypeError(f"item_ids is {ids!r}; expected a sequence of ids, such as [{ids!r}]")
        if not any(len(ids) for ids in item_ids):
            return [_nothing() for _ in queries]
        signature = self.signature("rank")
        inputs = _query_inputs(signature, queries, context)
        width = max(len(ids) for ids in item_ids)
        padded = np.full((len(queries), width), b"", object)
        for b, ids in enumerate(item_ids):
            padded[b, : len(ids)] = [item if isinstance(item, bytes) else str(item).encode("utf-8") for item in ids]
        inputs["item_ids"] = padded
        inputs["num_items"] = np.array([len(ids) for ids in item_ids], np.int32)
        outputs = self.predict("rank", inputs)
        return [
            RankedList.of(
                [i.decode("utf-8") if isinstance(i, bytes) else str(i) for i in ids],
                outputs["scores"][b, : len(ids)],
                outputs["known"][b, : len(ids)],
            )
            for b, ids in enumerate(item_ids)
        ]

    def rank_features(self, query: str, items: Any, **context: Any) -> RankedList:
        """Ranks items by their raw values: for items newer than the model, or a model without a catalogue.

        Args:
            query: the query's text.
            items: a list of ``{column: value}``, or a DataFrame. Text as str, a picture as the bytes of its JPEG, PNG
                or WebP (other bytes count as a missing picture), numbers as numbers; None and NaN are missing, and so
                is a column left out. ``item_id``, if there, names the items in the answer; else their places do.
            **context: other query columns.

        Raises:
            ServingError: when the server does not answer or refuses.
            ValueError: for a column that the model does not read, or a value of the wrong kind; also for a picture's
                file name instead of its bytes.
        """
        columns, count = table_columns(items)
        ids = [str(value) for value in columns.pop("item_id", range(count))]
        if not count:
            return _nothing()
        signature = self.signature("rank_features")
        inputs = _query_inputs(signature, [query], {name: [value] for name, value in context.items()})
        places = {name: spec for name, spec in signature.inputs.items() if len(spec.shape) > 1}
        _refuse_unknown(columns, places, "item column")
        for name, values in columns.items():
            refuse_picture_paths(name, values)
        for name, spec in places.items():
            inputs[name] = raw_array(name, columns.get(name, [None] * count), spec.dtype, spec.shape[2:])[None]
        inputs["num_items"] = np.array([count], np.int32)
        scores = self.predict("rank_features", inputs)["scores"][0, :count]
        return RankedList.of(ids, scores, np.ones(count, bool))

    def signature(self, name: str) -> Signature:
        """A signature's inputs and outputs. Raises ServingError when the model has none of that name."""
        with self._lock:
            if self._signatures is None:
                self._signatures = self.metadata()
        if name not in self._signatures:
            known = ", ".join(sorted(n for n in self._signatures if not n.startswith("__")))
            raise ServingError(
                "FAILED_PRECONDITION", f'model "{self.model}" has no signature "{name}"; it has: {known}'
            )
        return self._signatures[name]

    # -- the protocol -------------------------------------------------------------------------------------------------

    def predict(
        self, signature: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Calls a signature with arrays by input; strings come back as object arrays of bytes."""
        request = wire.PredictRequest()
        self._fill_spec(request.model_spec)
        request.model_spec.signature_name = signature
        request.output_filter.extend(output_filter)
        for name, value in inputs.items():
            try:
                write_tensor(request.inputs[name], value)
            except TypeError as error:
                raise ValueError(f'input "{name}": {error}') from error
        try:
            response = self._call(wire.PREDICT, request, wire.PredictResponse.FromString)
        except ServingError:
            with self._lock:
                self._signatures = None  # a new version may read other inputs: ask again next time
            raise
        return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}

    def metadata(self) -> dict[str, Signature]:
        """The model's signatures."""
        request = wire.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill_spec(request.model_spec)
        response = self._call(wire.METADATA, request, wire.GetModelMetadataResponse.FromString)
        signatures = wire.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        return {
            name: Signature(_specs(definition.inputs), _specs(definition.outputs), definition.method_name)
            for name, definition in signatures.signature_def.items()
        }

    def status(self) -> dict[int, str]:
        """State by version: ``AVAILABLE`` is ready to answer."""
        request = wire.GetModelStatusRequest()
        self._fill_spec(request.model_spec)
        response = self._call(wire.STATUS, request, wire.GetModelStatusResponse.FromString)
        return {s.version: _STATES.get(s.state, str(s.state)) for s in response.model_version_status}

    def _fill_spec(self, spec: Any) -> None:
        spec.name = self.model
        if self.version is not None:
            spec.version.value = self.version

    def _call(self, method: str, request: Any, parse: Callable[[bytes], Any]) -> Any:
        call = self._channel.unary_unary(
            method, request_serializer=lambda message: message.SerializeToString(), response_deserializer=parse
        )
        try:
            return call(request, timeout=self.timeout)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details()
            if code == "UNAVAILABLE":
                details = f"no model server answers there; start one with `tfmmrank serve` ({details})"
            elif code == "DEADLINE_EXCEEDED":
                details = f"no answer within {self.timeout} s; the server may still be loading its model"
            raise ServingError(code, f'{self.address}, model "{self.model}": {details} [{code}]') from error


def _specs(infos: Mapping[str, Any]) -> dict[str, InputSpec]:
    return {
        name: InputSpec(type_name(info.dtype), tuple(dim.size for dim in info.tensor_shape.dim))
        for name, info in infos.items()
    }


def _query_inputs(
    signature: Signature, queries: Sequence[str], context: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """The query columns that a signature reads, ``[B]``."""
    specs = {name: spec for name, spec in signature.inputs.items() if len(spec.shape) == 1 and name != "num_items"}
    _refuse_unknown(context, {name: spec for name, spec in specs.items() if name != "query"}, "context column")
    given = {"query": queries, **context}
    for name, values in given.items():
        if len(values) != len(queries):
            raise ValueError(f'column "{name}" has {len(values)} values; expected {len(queries)}, one a query')
    nothing = [None] * len(queries)
    return {name: raw_array(name, given.get(name, nothing), spec.dtype, ()) for name, spec in specs.items()}


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    for name in given:
        if name not in known:
            hint = nearest(name, list(known))
            raise ValueError(f'the model reads no {what} "{name}"{hint}; it reads: {", ".join(known) or "none"}')


def _nothing() -> RankedList:
    return RankedList([], np.empty(0, np.float32), np.empty(0, bool), np.empty(0, np.int64))
