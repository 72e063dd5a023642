"""Warm-up: requests that a server replays when it loads a model, so that no shopper waits for the first run."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data.example_lists import ExampleListWithContext, serialize_list, set_features
from tfmmrank.export.graph_loading import Way, at_once
from tfmmrank.export.raw_inputs import Column, RawColumns
from tfmmrank.export.servable import RequestError, Servable
from tfmmrank.stack import tf

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"  # where TF Serving looks
LIST_SIZES = (1, 10, 100)
_RAW_SIZES = (1, 10)  # raw items may carry pictures: a few suffice

Request = tuple[str, dict[str, np.ndarray]]


def warmup_requests(data: Any, columns: RawColumns, signatures: Collection[str]) -> list[Request]:
    """Requests for every signature, of the dataset's own queries and items.

    Args:
        data: the ``Prepared`` dataset.
        columns: what the ranker reads.
        signatures: those exported.

    Returns:
        (signature, inputs); ``serving_default`` is named by its other name.
    """
    sample = _Sample(data, columns)
    requests: list[Request] = []
    if "rank" in signatures:
        requests += [("rank", sample.rank(size)) for size in sorted({min(n, sample.items) for n in LIST_SIZES})]
    if "rank_features" in signatures:
        requests += [("rank_features", sample.rank_features(size)) for size in _RAW_SIZES]
        requests += [("predict_elwc", sample.elwc(size)) for size in _RAW_SIZES]
        requests += [(name, sample.examples(2)) for name in ("regress", "classify")]
    if "embed_query" in signatures:
        requests.append(("embed_query", sample.query()))
    if "embed_items" in signatures:
        requests.append(("embed_items", {name: value[0] for name, value in sample.places(2, columns.item).items()}))
    requests.append(("describe", {"ask": np.array([b""], object)}))
    return requests


def write_warmup(requests: list[Request], directory: Path, model: str) -> None:
    """Writes a SavedModel's warm-up file: a TFRecord of PredictionLog."""
    from tensorflow_serving.apis import prediction_log_pb2

    file = directory / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def read_warmup(directory: Path) -> Iterator[Request]:
    """The Predict requests of a SavedModel's warm-up file; nothing where there is no file.

    Raises:
        OSError: for a damaged file.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    file = directory / WARMUP_FILE
    if not file.is_file():
        return
    try:
        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    except (tf.errors.OpError, DecodeError) as error:
        raise OSError(f"{file}: is damaged; expected a TFRecord of PredictionLog: {error}") from error
    for log in logs:
        if log.HasField("predict_log"):
            request = log.predict_log.request
            yield (
                request.model_spec.signature_name,
                {name: tf.make_ndarray(value) for name, value in request.inputs.items()},
            )


def replay_warmup(servable: Servable, way: Way = at_once) -> int:
    """Runs the warm-up requests; as in TF Serving, one that fails fails the load.

    Args:
        servable: whose.
        way: how each is run; the first of a signature takes long.

    Returns:
        How many there were.

    Raises:
        OSError: for a damaged file.
        RequestError: when one fails.
    """
    count = 0
    for signature, inputs in read_warmup(servable.directory):
        try:
            way(functools.partial(servable.run, signature, inputs))
        except RequestError as error:
            message = f"{servable.directory / WARMUP_FILE}: request {count + 1} ({signature}) fails: {error}"
            raise RequestError(error.code, message) from error
        count += 1
    return count


class _Sample:
    """One query and some items of a dataset, as raw inputs with B = 1."""

    def __init__(self, data: Any, columns: RawColumns) -> None:
        self.columns = columns
        self.items = len(data.catalogue)
        self._ids = data.catalogue.ids[: max(LIST_SIZES)] if self.items else []
        split = data.splits[0]
        self._lists = data.lists(split)
        self._place = {**self._item_values(data), **self._slot_values()}

    def _item_values(self, data: Any) -> dict[str, np.ndarray]:
        names = [column.name for column in self.columns.item]
        return next(iter(data.catalogue.batches(max(_RAW_SIZES), columns=names)), {}) if names else {}

    def _slot_values(self) -> dict[str, np.ndarray]:
        return {column.name: self._lists.slots[column.name][: max(_RAW_SIZES)] for column in self.columns.slot}

    def query(self) -> dict[str, np.ndarray]:
        return {column.name: self._lists.queries[column.name][:1] for column in self.columns.query}

    def places(self, size: int, columns: tuple[Column, ...]) -> dict[str, np.ndarray]:
        """Item or slot columns ``[1, size]``; a sample shorter than that is repeated."""
        out = {}
        for column in columns:
            values = self._place[column.name]
            out[column.name] = values[np.arange(size) % len(values)][None]
        return out

    def rank(self, size: int) -> dict[str, np.ndarray]:
        ids = np.array([[item.encode() for item in self._ids[:size]]], object)
        return {**self.query(), "item_ids": ids, "num_items": np.array([size], np.int32)}

    def rank_features(self, size: int) -> dict[str, np.ndarray]:
        return {
            **self.query(),
            **self.places(size, self.columns.places),
            "num_items": np.array([size], np.int32),
        }

    def _features(self, size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        query = {name: value[0] for name, value in self.query().items()}
        places = self.places(size, self.columns.places)
        return present(query), [present({name: v[0, i] for name, v in places.items()}) for i in range(size)]

    def elwc(self, size: int) -> dict[str, np.ndarray]:
        return {"input_ranking_data": np.array([serialize_list(*self._features(size))], object)}

    def examples(self, size: int) -> dict[str, np.ndarray]:
        query, items = self._features(size)
        message = ExampleListWithContext()
        for item in items:
            set_features(message.examples.add(), {**query, **item})
        return {"inputs": np.array([example.SerializeToString() for example in message.examples], object)}


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Raw values as features of a tf.Example: those that are there, numbers as floats."""
    features: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            if value:
                features[name] = value
        elif np.isfinite(value).any():
            features[name] = np.asarray(value, np.float32).reshape(-1).tolist()
    return features
