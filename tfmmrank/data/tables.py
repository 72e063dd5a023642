"""Tables in chunks: CSV, Parquet, JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tfmmrank.data.errors import DataError, Report
from tfmmrank.registry import nearest

FORMATS = {".csv": "csv", ".parquet": "parquet", ".jsonl": "json lines", ".ndjson": "json lines"}


class Chunk:
    """Some rows of a table, and where they stand: ``frame.index`` is the 1-based row in ``file``."""

    def __init__(self, file: Path, frame: pd.DataFrame) -> None:
        self.file, self.frame = file, frame

    def where(self, row: int) -> str:
        """For error messages."""
        return f"{self.file}: row {row}"


def read_chunks(files: Sequence[Path], columns: Sequence[str], rows: int) -> Iterator[Chunk]:
    """Reads some columns of tables, a chunk at a time.

    Args:
        files: tables, read one after another as one.
        columns: the columns wanted, without repetition mattering.
        rows: rows a chunk.

    Yields:
        Chunks; a missing value is None or NaN. In CSV every value is a string, undecodable bytes are kept as surrogates.

    Raises:
        DataError: for a file that is missing, of another format, or malformed, or that lacks a column.
    """
    wanted = list(dict.fromkeys(columns))
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: there is no such file")
        kind = FORMATS.get(file.suffix.lower())
        if kind is None:
            raise DataError(f'{file}: unknown table format "{file.suffix}"; expected one of {", ".join(FORMATS)}')
        reader = {"csv": _read_csv, "parquet": _read_parquet, "json lines": _read_json_lines}[kind]
        start = 1
        for frame in reader(file, wanted, rows):
            frame.index = pd.RangeIndex(start, start + len(frame))
            start += len(frame)
            yield Chunk(file, frame)


def _check_columns(file: Path, wanted: Sequence[str], known: Sequence[str]) -> None:
    for column in wanted:
        if column not in known:
            hint = nearest(column, [str(name) for name in known])
            raise DataError(f'{file}: column "{column}" is missing{hint}; columns: {", ".join(map(str, known))}')


def _read_csv(file: Path, wanted: list[str], rows: int) -> Iterator[pd.DataFrame]:
    options: dict[str, Any] = {"encoding": "utf-8", "encoding_errors": "surrogateescape"}
    try:
        header = pd.read_csv(file, nrows=0, **options)
        _check_columns(file, wanted, list(header.columns))
        with pd.read_csv(
            file, usecols=wanted, dtype=object, keep_default_na=False, chunksize=rows, engine="c", **options
        ) as reader:
            for frame in reader:
                yield frame[wanted]
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{file}: is empty; expected a header with {', '.join(wanted)}") from error
    except pd.errors.ParserError as error:
        raise DataError(f"{file}: is not well-formed CSV ({str(error).strip()})") from error


def _read_parquet(file: Path, wanted: list[str], rows: int) -> Iterator[pd.DataFrame]:
    try:
        table = pq.ParquetFile(file)
    except Exception as error:
        raise DataError(f"{file}: is not a Parquet file ({str(error).splitlines()[0]})") from error
    _check_columns(file, wanted, table.schema_arrow.names)
    for batch in table.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
        yield pd.DataFrame({name: batch.column(name).to_pandas(integer_object_nulls=True) for name in wanted}).astype(object)


def _read_json_lines(file: Path, wanted: list[str], rows: int) -> Iterator[pd.DataFrame]:
    seen: set[str] = set()
    chunk: list[dict[str, Any]] = []
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{file}: line {number}: is not JSON ({error.msg}): {line.strip()[:60]!r}") from error
            if not isinstance(row, dict):
                raise DataError(f"{file}: line {number}: expected a JSON object, found {type(row).__name__}")
            seen.update(row)
            chunk.append(row)
            if len(chunk) == rows:
                yield _frame(chunk, wanted)
                chunk = []
    if chunk:
        yield _frame(chunk, wanted)
    _check_columns(file, wanted, sorted(seen))


def _frame(rows: list[dict[str, Any]], wanted: list[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in wanted})


# -- columns of a chunk to typed arrays; each returns values and which rows are bad -----------------------------------


def is_missing(values: pd.Series) -> np.ndarray:
    """Which values are missing: None, NaN or an empty string."""
    return (values.isna() | (values == "")).to_numpy(bool)


def texts(chunk: Chunk, column: str, report: Report, good: np.ndarray) -> np.ndarray:
    """A text column as UTF-8 bytes, ``b""`` where missing; bad rows are reported and taken out of ``good``."""
    values = chunk.frame[column]
    missing = is_missing(values)
    out = np.empty(len(values), object)
    for i, (row, value) in enumerate(values.items()):
        if missing[i]:
            out[i] = b""
            continue
        try:
            out[i] = (value if isinstance(value, str) else str(value)).encode("utf-8")
        except UnicodeEncodeError:
            out[i] = b""
            if good[i]:
                raw = str(value).encode("utf-8", "surrogateescape")[:40]
                report.bad_row(
                    "non-UTF-8 text", f"{chunk.where(int(row))}: column {column}: {raw!r} is not UTF-8; save the table as UTF-8"  # type: ignore[call-overload]
                )
                good[i] = False
    return out


def ids(chunk: Chunk, column: str, report: Report, good: np.ndarray) -> np.ndarray:
    """An identifier column as str; whole numbers lose a trailing ``.0``. A missing one is a bad row."""
    values = texts(chunk, column, report, good)
    out = np.array([value.decode() for value in values], object)
    for i in np.flatnonzero((out == "") & good):
        row = int(chunk.frame.index[i])
        report.bad_row("missing id", f"{chunk.where(row)}: column {column}: is empty; expected an id")
        good[i] = False
    return out


def numbers(
    chunk: Chunk, column: str, report: Report, good: np.ndarray, *, required: bool = False, minimum: float | None = None
) -> np.ndarray:
    """A numeric column as float64, NaN where missing.

    Text that is no number, infinities and NaN written out are bad rows; so are missing values if ``required`` and values
    under ``minimum``.
    """
    values = chunk.frame[column]
    missing = is_missing(values)
    out = pd.to_numeric(values.where(~missing), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~missing & ~np.isfinite(out)
    _report_rows(chunk, column, wrong & good, "non-finite number", "expected a finite number", report)
    if required:
        _report_rows(chunk, column, missing & good, "missing number", "expected a number", report)
        wrong |= missing
    if minimum is not None:
        with np.errstate(invalid="ignore"):
            low = out < minimum
        _report_rows(chunk, column, low & good, f"negative {column}" if minimum == 0 else f"{column} too small",
                     f"expected at least {minimum:g}", report)  # fmt: skip
        wrong |= low
    good &= ~wrong
    out[wrong] = np.nan
    return out


def times(chunk: Chunk, column: str, report: Report, good: np.ndarray, *, required: bool = False) -> np.ndarray:
    """A time column (ISO 8601, or seconds since 1970) as float64 seconds since 1970 UTC, NaN where missing."""
    values = chunk.frame[column]
    missing = is_missing(values)
    out = pd.to_numeric(values.where(~missing), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    rest = ~missing & ~np.isfinite(out)
    if rest.any():
        parsed = pd.to_datetime(values[rest], errors="coerce", utc=True, format="ISO8601")
        seconds = (parsed - pd.Timestamp("1970-01-01", tz="UTC")) / pd.Timedelta(seconds=1)
        out[rest] = seconds.to_numpy(np.float64, na_value=np.nan)
    wrong = ~missing & ~np.isfinite(out)
    _report_rows(chunk, column, wrong & good, "unreadable time", "expected ISO 8601 or seconds since 1970", report)
    if required:
        _report_rows(chunk, column, missing & good, "missing time", "expected a time", report)
        wrong |= missing
    good &= ~wrong
    return out


def _report_rows(chunk: Chunk, column: str, wrong: np.ndarray, cause: str, expected: str, report: Report) -> None:
    for i in np.flatnonzero(wrong):
        row, value = int(chunk.frame.index[i]), chunk.frame[column].iloc[i]
        shown = "is empty" if value is None or value == "" else f"got {value!r}"
        report.bad_row(cause, f"{chunk.where(row)}: column {column}: {shown}; {expected}")
