"""TF-Ranking's TFRecords: ExampleListWithContext and SequenceExample.

``tfr.data`` parses what is written here, and what TF-Ranking's users have is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data.errors import DataError
from tfmmrank.data.example_lists import (
    ExampleListWithContext,
    SequenceExample,
    read_records,
    serialize_list,
    set_features,
    write_record,
)
from tfmmrank.data.raw_list import RawList, written_aside
from tfmmrank.registry import nearest
from tfmmrank.schema import ExampleLists

#: Context features that may hold the query's id, the first found counting; without any, a list's id is its number.
QUERY_IDS = ("query_id", "qid")


def read_records_lists(labels: ExampleLists, files: Sequence[Path]) -> Iterator[RawList]:
    """Reads lists of either kind, one in memory at a time.

    A feature is float or int64; one that an item lacks is missing (NaN). A weight that is lacking is 1.

    Raises:
        DataError: naming file and record, for a damaged record, a label that is missing, negative or not finite, a
            feature of the wrong width or type, or one that no item of the first list has.
    """
    message = ExampleListWithContext if labels.kind == "elwc" else SequenceExample
    split = _split_elwc if labels.kind == "elwc" else _split_sequence
    number = 0
    for file in files:
        for place, record in _records(file):
            where = f"{file}: record {place}"
            number += 1
            try:
                context, items = split(where, message.FromString(record))
            except DataError:
                raise
            except Exception as error:  # protobuf's DecodeError has no public home in every version
                raise DataError(f"{where}: is no {message.DESCRIPTOR.name} ({error}); check labels.kind") from error
            if number == 1 and items:
                _check_names(where, labels, items)
            yield _make(where, labels, _query_id(where, context) or str(number), context, items)


def write_elwc(lists: Iterable[RawList], path: str | Path) -> None:
    """Writes lists as ExampleListWithContext.

    Context: ``query_id`` and the query's columns. Examples: ``label``, ``weight`` and the features; a missing number
    is NaN, a missing text is empty.
    """
    with written_aside(path) as file:
        for made in lists:
            columns = _columns(made)
            examples = ({name: values[i] for name, values in columns.items()} for i in range(len(made)))
            write_record(file, serialize_list({"query_id": made.query_id.encode(), **made.query}, examples))


def write_sequence_example(lists: Iterable[RawList], path: str | Path) -> None:
    """Writes lists as SequenceExample: context as in ``write_elwc``, one feature list a column, one frame an item."""
    with written_aside(path) as file:
        for made in lists:
            message = SequenceExample()
            _set(message.context.feature, {"query_id": made.query_id.encode(), **made.query})
            for name, values in _columns(made).items():
                frames = message.feature_lists.feature_list[name]
                for value in values:
                    frame = frames.feature.add()
                    if isinstance(value, bytes):
                        frame.bytes_list.value.append(value)
                    else:
                        frame.float_list.value.extend([value] if isinstance(value, float) else value)
            write_record(file, message.SerializeToString(deterministic=True))


class _Holder:
    """Lets ``set_features`` fill a bare map of features."""

    def __init__(self, feature: Any) -> None:
        self.features = self
        self.feature = feature


def _set(feature: Any, values: Mapping[str, Any]) -> None:
    set_features(_Holder(feature), values)


def _columns(made: RawList) -> dict[str, list[Any]]:
    """Labels, weights and features as lists of Python values: bytes, floats, or lists of floats."""
    arrays = {"label": made.labels, "weight": made.weights, **made.features}
    return {
        name: list(values) if values.dtype == object else np.asarray(values, np.float32).tolist()
        for name, values in arrays.items()
    }


def _records(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        yield from enumerate(read_records(file), 1)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from error


def _split_elwc(where: str, message: Any) -> tuple[Any, list[Mapping[str, Any]]]:
    """Context features, and each item's features."""
    return message.context.features.feature, [example.features.feature for example in message.examples]


def _split_sequence(where: str, message: Any) -> tuple[Any, list[Mapping[str, Any]]]:
    lists = {name: list(value.feature) for name, value in message.feature_lists.feature_list.items()}
    lengths = {len(frames) for frames in lists.values()}
    if len(lengths) > 1:
        shown = ", ".join(f"{name} {len(frames)}" for name, frames in sorted(lists.items()))
        raise DataError(f"{where}: feature lists have different lengths ({shown}); expected one frame an item")
    return message.context.feature, [
        dict(zip(lists, frames, strict=True)) for frames in zip(*lists.values(), strict=True)
    ]


def _check_names(where: str, labels: ExampleLists, items: Sequence[Mapping[str, Any]]) -> None:
    """A misspelt feature would be missing everywhere, silently."""
    known = sorted({name for item in items for name in item})
    for name in (*labels.features, *([labels.weight] if labels.weight else [])):
        if name not in known:
            hint = nearest(name, known)
            raise DataError(f'{where}: no item has a feature "{name}"{hint}; it has: {", ".join(known)}')


def _query_id(where: str, context: Mapping[str, Any]) -> str | None:
    for name in QUERY_IDS:
        if name in context:
            kind = context[name].WhichOneof("kind")
            values = getattr(context[name], kind).value if kind else []
            if len(values) == 1:
                try:
                    return values[0].decode() if isinstance(values[0], bytes) else f"{values[0]:.17g}"
                except UnicodeDecodeError as error:
                    raise DataError(f'{where}: context feature "{name}" is not UTF-8') from error
    return None


def _make(where: str, labels: ExampleLists, query_id: str, context: Any, items: list[Mapping[str, Any]]) -> RawList:
    grades, weights = np.zeros(len(items), np.float32), np.ones(len(items), np.float32)
    features = {
        name: np.full(len(items) if width == 1 else (len(items), width), np.nan, np.float32)
        for name, width in labels.features.items()
    }
    for i, item in enumerate(items):
        at = f"{where}: item {i + 1}"
        grades[i] = _number(at, "label", labels.label, item)
        if labels.weight and labels.weight in item:
            weights[i] = _number(at, "weight", labels.weight, item)
        for name, values in features.items():
            if name in item:
                found = _numbers(at, name, item[name])
                width = labels.features[name]
                if len(found) not in (0, width):
                    raise DataError(f'{at}: feature "{name}" has {len(found)} numbers; expected {width}')
                if np.isinf(found).any():
                    raise DataError(f'{at}: feature "{name}" is infinite; expected finite numbers, or NaN for missing')
                if found:
                    values[i] = found[0] if width == 1 else found
    query = {}
    if labels.query_text:
        text = context[labels.query_text].bytes_list.value if labels.query_text in context else []
        query["query"] = bytes(text[0]) if text else b""
    return RawList(query_id, query, grades, weights, features)


def _number(where: str, what: str, name: str, item: Mapping[str, Any]) -> float:
    if name not in item:
        raise DataError(
            f'{where}: has no {what} "{name}"{nearest(name, list(item))}; it has: {", ".join(sorted(item))}'
        )
    found = _numbers(where, name, item[name])
    if len(found) != 1 or not 0 <= found[0] < np.inf:
        raise DataError(f'{where}: {what} "{name}" is {found}; expected one finite number, 0 or more')
    return found[0]


def _numbers(where: str, name: str, feature: Any) -> list[float]:
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        raise DataError(f'{where}: feature "{name}" holds bytes; expected floats or whole numbers')
    return [float(value) for value in getattr(feature, kind).value] if kind else []
