"""TF-Ranking's TFRecords: ExampleListWithContext and SequenceExample.

``tfr.data`` parses what is written here, and what TF-Ranking's users have is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.atomic import replace_file
from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.example_lists import (
    ExampleListWithContext,
    SequenceExample,
    read_records_or_damage,
    serialize_list,
    set_features,
    write_record,
)
from tfmmrank.data.raw_list import BadPartError, RawList
from tfmmrank.registry import nearest
from tfmmrank.schema import ExampleLists

#: Context features that may hold the query's id, the first found counting.
QUERY_IDS = ("query_id", "qid")


def read_records_lists(labels: ExampleLists, files: Sequence[Path], report: Report) -> Iterator[RawList]:
    """Reads lists of either kind, one in memory at a time.

    A feature is float or int64; one that an item lacks is missing (NaN). A weight that is lacking is 1.

    Args:
        labels: the kind, and what to read.
        files: read one after another.
        report: gets the records that are damaged or of another kind, and the items with a label that is missing,
            negative or not finite, or a feature of the wrong width or type.

    Raises:
        DataError: for a file that cannot be read on; for a name that no item of the first list with any has; for a
            query text that is no text, or that no list has.
    """
    named = False
    contexts: set[str] = set()
    for file in files:
        for where, record in _records(file):
            try:
                context, items = _split(where, labels, record)
                contexts.update(context)
                query_id = _query_id(where, context)
                query = _query(where, labels, context)
            except BadPartError as bad:
                bad.tell(report)
                continue
            if items and not named:
                _check_names(where, labels, items)
                named = True
            yield _make(where, labels, query_id, query, items, report)
    if labels.query_text and named and labels.query_text not in contexts:
        hint = nearest(labels.query_text, list(contexts))
        shown = ", ".join(sorted(contexts)) or "nothing"
        raise DataError(
            f'{", ".join(map(str, files))}: no list has a context feature "{labels.query_text}" '
            f"(labels.query_text){hint}; they have: {shown}"
        )


def write_elwc(lists: Iterable[RawList], path: str | Path) -> None:
    """Writes lists as ExampleListWithContext.

    Context: ``query_id`` and the query's columns. Examples: ``label``, ``weight`` and the features; a missing number
    is NaN, a missing text is empty.
    """
    with replace_file(path) as file:
        for made in lists:
            columns = _columns(made)
            examples = ({name: values[i] for name, values in columns.items()} for i in range(len(made)))
            write_record(file, serialize_list({"query_id": made.query_id.encode(), **made.query}, examples))


def write_sequence_example(lists: Iterable[RawList], path: str | Path) -> None:
    """Writes lists as SequenceExample: context as in ``write_elwc``, one feature list a column, one frame an item."""
    with replace_file(path) as file:
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


def _records(file: Path) -> Iterator[tuple[str, bytes | None]]:
    """Records, each with its place for error messages; None for a damaged one."""
    try:
        for place, record in enumerate(read_records_or_damage(file), 1):
            yield f"{file}: record {place}", record
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from error


def _split(where: str, labels: ExampleLists, record: bytes | None) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """A record's context features, and each item's features."""
    if record is None:
        raise BadPartError("damaged record", f"{where}: is damaged: it does not match its checksum")
    message = ExampleListWithContext if labels.kind == "elwc" else SequenceExample
    try:
        made = message.FromString(record)
    except Exception as error:  # protobuf's DecodeError has no public home in every version
        found = f"is no {message.DESCRIPTOR.name} ({error}); check labels.kind"
        raise BadPartError("damaged record", f"{where}: {found}") from error
    if labels.kind == "elwc":
        return made.context.features.feature, [example.features.feature for example in made.examples]
    lists = {name: list(value.feature) for name, value in made.feature_lists.feature_list.items()}
    if len({len(frames) for frames in lists.values()}) > 1:
        shown = ", ".join(f"{name} {len(frames)}" for name, frames in sorted(lists.items()))
        found = f"feature lists have different lengths ({shown}); expected one frame an item"
        raise BadPartError("damaged record", f"{where}: {found}")
    frames = zip(*lists.values(), strict=True)
    return made.context.feature, [dict(zip(lists, frame, strict=True)) for frame in frames]


def _check_names(where: str, labels: ExampleLists, items: Sequence[Mapping[str, Any]]) -> None:
    """A misspelt feature would be missing everywhere, silently."""
    known = sorted({name for item in items for name in item})
    weight = [("weight", labels.weight)] if labels.weight else []
    for what, name in [("label", labels.label), *weight, *(("feature", name) for name in labels.features)]:
        if name not in known:
            hint = nearest(name, known)
            raise DataError(f'{where}: no item has a {what} "{name}"{hint}; they have: {", ".join(known)}')


def _query_id(where: str, context: Mapping[str, Any]) -> str:
    """The query's id; empty where there is none."""
    for name in QUERY_IDS:
        if name in context:
            kind = context[name].WhichOneof("kind")
            values = getattr(context[name], kind).value if kind else []
            if len(values) == 1:
                return _text(where, name, values[0]) if isinstance(values[0], bytes) else f"{values[0]:.17g}"
    return ""


def _query(where: str, labels: ExampleLists, context: Mapping[str, Any]) -> dict[str, bytes]:
    """The query's raw columns."""
    name = labels.query_text
    if not name:
        return {}
    kind = context[name].WhichOneof("kind") if name in context else None
    values = getattr(context[name], kind).value if kind else []
    if kind not in (None, "bytes_list") or len(values) > 1:
        found = f"{len(values)} values in a {kind}" if len(values) > 1 else f"a {kind}"
        raise DataError(f'{where}: context feature "{name}" (labels.query_text) holds {found}; expected one text')
    if not values:
        return {"query": b""}
    _text(where, name, values[0])
    return {"query": bytes(values[0])}


def _text(where: str, name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f'context feature "{name}": {bytes(value)[:60]!r} is not UTF-8'
        raise BadPartError("non-UTF-8 text", f"{where}: {found}") from error


def _make(
    where: str, labels: ExampleLists, query_id: str, query: dict[str, bytes], items: list[Any], report: Report
) -> RawList:
    """The list, without the items that cannot be used."""
    grades: list[float] = []
    weights: list[float] = []
    rows: dict[str, list[list[float]]] = {name: [] for name in labels.features}
    for number, item in enumerate(items, 1):
        at = f"{where}: item {number}"
        try:
            grade = _number(at, "label", labels.label, item)
            weight = _number(at, "weight", labels.weight, item) if labels.weight and labels.weight in item else 1.0
            found = {name: _feature(at, name, width, item) for name, width in labels.features.items()}
        except BadPartError as bad:
            bad.tell(report)
            continue
        grades.append(grade)
        weights.append(weight)
        for name, values in found.items():
            rows[name].append(values)
    features = {}
    for name, width in labels.features.items():
        table = np.array(rows[name], np.float32).reshape(len(grades), width)
        features[name] = table[:, 0] if width == 1 else table
    return RawList(query_id, dict(query), np.array(grades, np.float32), np.array(weights, np.float32), features)


def _feature(where: str, name: str, width: int, item: Mapping[str, Any]) -> list[float]:
    """An item's numbers of a feature, NaN where it has none."""
    found = _numbers(where, name, item[name]) if name in item else []
    if len(found) not in (0, width):
        raise BadPartError("bad feature", f'{where}: feature "{name}" has {len(found)} numbers; expected {width}')
    if np.isinf(found).any():
        expected = "expected finite numbers, or NaN for missing"
        raise BadPartError("bad feature", f'{where}: feature "{name}" is infinite; {expected}')
    return found or [np.nan] * width


def _number(where: str, what: str, name: str, item: Mapping[str, Any]) -> float:
    if name not in item:
        known = f"it has: {', '.join(sorted(item))}"
        raise BadPartError(f"bad {what}", f'{where}: has no {what} "{name}"{nearest(name, list(item))}; {known}')
    found = _numbers(where, name, item[name])
    if len(found) != 1 or not 0 <= found[0] < np.inf:
        expected = "expected one finite number, 0 or more"
        raise BadPartError(f"bad {what}", f'{where}: {what} "{name}" is {found}; {expected}')
    return found[0]


def _numbers(where: str, name: str, feature: Any) -> list[float]:
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        raise BadPartError("bad feature", f'{where}: feature "{name}" holds bytes; expected floats or whole numbers')
    return [float(value) for value in getattr(feature, kind).value] if kind else []
