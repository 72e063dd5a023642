"""LETOR files: ``grade qid:7 1:0.5 2:NULL ... # comment``, one line an item, a query's lines together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tfmmrank.data.errors import DataError
from tfmmrank.data.raw_list import RawList, written_aside

FEATURES = "features"


def read_libsvm(files: Sequence[Path], num_features: int | None = None) -> Iterator[RawList]:
    """Reads lists, one in memory at a time.

    Args:
        files: read one after another as one.
        num_features: width of the feature vector; None takes the highest index in the files, which costs a first pass.

    Yields:
        Lists with one feature, ``features`` ``[n, num_features]``. What a line leaves out is 0, as in every sparse
        file of this form; ``NULL`` is missing (NaN).

    Raises:
        DataError: naming file and line, for a malformed line, a bad grade, a number that is not finite, an index out of
            range or given twice, or a query whose lines do not stand together.
    """
    width = num_features if num_features is not None else max((_highest_index(file) for file in files), default=0)
    seen: set[str] = set()
    query = ""
    labels: list[float] = []
    vectors: list[np.ndarray] = []
    for file in files:
        for where, line in _lines(file):
            grade, qid, vector = _parse(where, line, width)
            if qid != query or not labels:
                if labels:
                    yield _make(query, labels, vectors)
                if qid in seen:
                    raise DataError(
                        f"{where}: qid:{qid} was seen before other queries; expected a query's lines together"
                    )
                seen.add(qid)
                query, labels, vectors = qid, [], []
            labels.append(grade)
            vectors.append(vector)
    if labels:
        yield _make(query, labels, vectors)


def write_libsvm(lists: Iterable[RawList], path: str | Path) -> None:
    """Writes lists, features side by side in the order of the first list's, numbered from 1.

    The form has no place for weights, texts and missing values: weights and the query's columns are left out, and a
    missing number is written ``NULL``.

    Raises:
        DataError: for a feature that is not numeric, or a query id with white space.
    """
    with written_aside(path) as file:
        for made in lists:
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
                file.write(f"{label:.9g} qid:{made.query_id} {shown}\n".encode())


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, without comment, each with its place for error messages."""
    try:
        with open(file, "rb") as content:
            for number, raw in enumerate(content, 1):
                where = f"{file}:{number}"
                try:
                    line = raw.decode("utf-8").partition("#")[0].strip()
                except UnicodeDecodeError as error:
                    raise DataError(f"{where}: is not UTF-8 ({error.reason})") from error
                if line:
                    yield where, line
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _highest_index(file: Path) -> int:
    highest = 0
    for where, line in _lines(file):
        for pair in line.split()[2:]:
            index = pair.partition(":")[0]
            if not index.isdecimal():
                raise DataError(f'{where}: "{pair}"; expected INDEX:VALUE with an index from 1')
            highest = max(highest, int(index))
    return highest


def _parse(where: str, line: str, width: int) -> tuple[float, str, np.ndarray]:
    parts = line.split()
    try:
        grade = float(parts[0])
    except ValueError as error:
        raise DataError(f'{where}: grade is "{parts[0]}"; expected a number') from error
    if not 0 <= grade < np.inf:
        raise DataError(f"{where}: grade is {parts[0]}; expected a finite number, 0 or more")
    if len(parts) < 2 or not parts[1].startswith("qid:") or len(parts[1]) == 4:
        found = f'"{parts[1]}"' if len(parts) > 1 else "the end of the line"
        raise DataError(f"{where}: {found} follows the grade; expected qid:QUERY")
    return grade, parts[1][4:], _vector(where, parts[2:], width)


def _vector(where: str, pairs: list[str], width: int) -> np.ndarray:
    """A line's features ``[width]``. The usual line is parsed at once, a line with anything odd pair by pair."""
    vector = np.zeros(width, np.float32)
    with contextlib.suppress(ValueError):
        numbers = np.array([float(number) for number in " ".join(pairs).replace(":", " ").split()])
        indices, values = numbers[0::2], numbers[1::2]
        whole = len(numbers) == 2 * len(pairs) and all(pair.count(":") == 1 for pair in pairs)
        ascending = whole and np.isfinite(numbers).all() and (np.diff(indices) > 0).all() and (indices % 1 == 0).all()
        if ascending and (not len(indices) or (indices[0] >= 1 and indices[-1] <= width)):
            vector[indices.astype(np.int64) - 1] = values
            return vector
    given: set[int] = set()
    for pair in pairs:
        index, value = _pair(where, pair, width)
        if index in given:
            raise DataError(f'{where}: "{pair}": index {index} is given twice')
        given.add(index)
        vector[index - 1] = value
    return vector


def _pair(where: str, pair: str, width: int) -> tuple[int, float]:
    index, colon, value = pair.partition(":")
    if not colon or not index.isdecimal() or not 1 <= int(index) <= width:
        raise DataError(f'{where}: "{pair}"; expected INDEX:VALUE with an index from 1 to {width} (num_features)')
    if value == "NULL":
        return int(index), np.nan
    try:
        number = float(value)
    except ValueError as error:
        raise DataError(f'{where}: "{pair}"; expected a number after the colon') from error
    if not np.isfinite(number):
        raise DataError(f'{where}: "{pair}" is not finite; expected a finite number, or NULL for a missing one')
    return int(index), number


def _make(query: str, labels: list[float], vectors: list[np.ndarray]) -> RawList:
    grades = np.array(labels, np.float32)
    return RawList(query, {}, grades, np.ones(len(grades), np.float32), {FEATURES: np.stack(vectors)})
