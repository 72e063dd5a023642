"""LETOR files: ``grade qid:7 1:0.5 2:NULL ... # comment``, one line an item, a query's lines together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tfmmrank.atomic import replace_file
from tfmmrank.data.columns import LARGEST
from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.raw_list import BadPartError, RawList

FEATURES = "features"
MOST_FEATURES = 1_000_000  # a feature takes memory in every line: a higher index is a mistake


def read_libsvm(files: Sequence[Path], num_features: int | None, report: Report) -> Iterator[RawList]:
    """Reads lists, one in memory at a time.

    Args:
        files: read one after another as one.
        num_features: width of the feature vector; None takes the highest index in the files, which costs a first pass.
        report: gets the lines that cannot be used: malformed, with a bad grade, a number that is not finite, an index
            out of range or given twice, or of a query whose lines do not stand together.

    Yields:
        Lists with one feature, ``features`` ``[n, num_features]``. What a line leaves out is 0, as in every sparse
        file of this form; ``NULL`` is missing (NaN).

    Raises:
        DataError: for a file that cannot be read.
    """
    width = highest_index(files) if num_features is None else num_features
    seen: set[str] = set()
    query = ""
    labels: list[float] = []
    vectors: list[np.ndarray] = []
    for file in files:
        for where, line in _lines(file):
            try:
                grade, qid, vector = _parse(where, line, width)
                if qid != query and qid in seen:
                    raise BadPartError(
                        "lines of a query apart",
                        f"{where}: qid:{qid} was seen before other queries; expected a query's lines together",
                    )
            except BadPartError as bad:
                bad.tell(report)
                continue
            if qid != query:
                if labels:
                    yield _make(query, labels, vectors)
                seen.add(qid)
                query, labels, vectors = qid, [], []
            labels.append(grade)
            vectors.append(vector)
    if labels:
        yield _make(query, labels, vectors)


def highest_index(files: Sequence[Path]) -> int:
    """The highest feature index in files, of those that are within ``MOST_FEATURES``."""
    highest = 0
    for file in files:
        for _, line in _lines(file):
            for pair in line.decode("ascii", "replace").split()[2:]:
                index = _index(pair.partition(":")[0])
                if highest < index <= MOST_FEATURES:
                    highest = index
    return highest


def write_libsvm(lists: Iterable[RawList], path: str | Path) -> None:
    """Writes lists, features side by side in the order of the first list's, numbered from 1; a comment names them.

    The form has no place for weights, texts and missing values: weights and the query's columns are left out, and a
    missing number is written ``NULL``, as in LETOR's MQ2008. Other readers want numbers as query ids: where the first
    list's is none, lists are numbered from 1 instead, and a comment at each line's end tells the id.

    Raises:
        DataError: for a feature that is not numeric, a query id with white space, or one that is no number after such
            as were.
    """
    numbered = False
    with replace_file(path) as file:
        for place, made in enumerate(lists, 1):
            is_number = made.query_id.isascii() and made.query_id.isdecimal()
            if place == 1:
                numbered = not is_number
                file.write(f"# {_named(made)}; NULL is missing\n".encode())
            elif not numbered and not is_number:
                raise DataError(
                    f'query id "{made.query_id}": is no number, and those before it were; LibSVM needs numbers'
                )
            if not made.query_id or made.query_id.split() != [made.query_id]:
                raise DataError(f'query id "{made.query_id}": LibSVM needs one without white space')
            for name, values in made.features.items():
                if values.dtype == object:
                    raise DataError(f'query "{made.query_id}": feature "{name}" is text; LibSVM holds numbers only')
            columns = [values.reshape(len(made), -1) for values in made.features.values()]
            table = np.concatenate(columns, 1) if columns else np.zeros((len(made), 0), np.float32)
            for label, row in zip(made.labels, table, strict=True):
                # 9 digits tell any two float32 apart.
                shown = " ".join(f"{i}:{'NULL' if np.isnan(x) else format(x, '.9g')}" for i, x in enumerate(row, 1))
                of = f"qid:{place} {shown} # {made.query_id}" if numbered else f"qid:{made.query_id} {shown}"
                file.write(f"{label:.9g} {of}\n".encode())


def _named(made: RawList) -> str:
    """Which numbers are which feature."""
    parts, first = [], 1
    for name, values in made.features.items():
        last = first + values.size // max(1, len(made)) - 1
        parts.append(f"{first} {name}" if last == first else f"{first}-{last} {name}")
        first = last + 1
    return f"features: {', '.join(parts) or 'none'}"


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Lines that are not empty, without comment, each with its place for error messages."""
    try:
        with open(file, "rb") as content:
            for number, raw in enumerate(content, 1):
                line = raw.partition(b"#")[0].strip()
                if line:
                    yield f"{file}:{number}", line
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _parse(where: str, line: bytes, width: int) -> tuple[float, str, np.ndarray]:
    try:
        parts = line.decode("utf-8").split()
    except UnicodeDecodeError as error:
        raise BadPartError("non-UTF-8 text", f"{where}: is not UTF-8 ({error.reason}): {line[:60]!r}") from error
    try:
        grade = float(parts[0])
    except ValueError as error:
        raise BadPartError("bad label", f'{where}: grade is "{parts[0]}"; expected a number') from error
    if not 0 <= grade <= LARGEST:
        raise BadPartError("bad label", f"{where}: grade is {parts[0]}; expected a finite number, 0 or more")
    if len(parts) < 2 or not parts[1].startswith("qid:") or len(parts[1]) == 4:
        found = f'"{parts[1]}"' if len(parts) > 1 else "the end of the line"
        raise BadPartError("malformed line", f"{where}: {found} follows the grade; expected qid:QUERY")
    return grade, parts[1][4:], _vector(where, parts[2:], width)


def _vector(where: str, pairs: list[str], width: int) -> np.ndarray:
    """A line's features ``[width]``. The usual line is parsed at once, a line with anything odd pair by pair."""
    vector = np.zeros(width, np.float32)
    with contextlib.suppress(ValueError):
        numbers = np.array([float(number) for number in " ".join(pairs).replace(":", " ").split()])
        indices, values = numbers[0::2], numbers[1::2]
        whole = len(numbers) == 2 * len(pairs) and all(pair.count(":") == 1 for pair in pairs)
        ascending = (
            whole and (np.abs(numbers) <= LARGEST).all() and (np.diff(indices) > 0).all() and (indices % 1 == 0).all()
        )
        if ascending and (not len(indices) or (indices[0] >= 1 and indices[-1] <= width)):
            vector[indices.astype(np.int64) - 1] = values
            return vector
    given: set[int] = set()
    for pair in pairs:
        index, value = _pair(where, pair, width)
        if index in given:
            raise BadPartError("malformed line", f'{where}: "{pair}": index {index} is given twice')
        given.add(index)
        vector[index - 1] = value
    return vector


def _pair(where: str, pair: str, width: int) -> tuple[int, float]:
    index, colon, value = pair.partition(":")
    if not colon or not 1 <= _index(index) <= width:
        limit = f"{width} (num_features, or the highest index up to {MOST_FEATURES:,})"
        raise BadPartError("malformed line", f'{where}: "{pair}"; expected INDEX:VALUE with an index from 1 to {limit}')
    if value == "NULL":
        return int(index), np.nan
    try:
        number = float(value)
    except ValueError as error:
        raise BadPartError("malformed line", f'{where}: "{pair}"; expected a number after the colon') from error
    if not abs(number) <= LARGEST:
        expected = "expected a finite number that float32 holds, or NULL for a missing one"
        raise BadPartError("non-finite number", f'{where}: "{pair}" is not finite; {expected}')
    return int(index), number


def _index(text: str) -> int:
    """A feature's index; 0 for what is none."""
    return int(text) if text.isdecimal() and len(text) < 20 else 0  # Python refuses thousands of digits


def _make(query: str, labels: list[float], vectors: list[np.ndarray]) -> RawList:
    grades = np.array(labels, np.float32)
    return RawList(query, {}, grades, np.ones(len(grades), np.float32), {FEATURES: np.stack(vectors)})
