"""Tables in chunks: CSV, Parquet, JSON Lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tfmmrank.data.errors import DataError, Report
from tfmmrank.registry import nearest

_CSV_BLOCK_BYTES = 4 * 2**20


@dataclass
class Chunk:
    """Some rows of a table.

    Attributes:
        file: where they stand.
        rows: int64 ``[n]``, their numbers, from 1: in CSV the header is row 1, as in a spreadsheet; in JSON Lines it is
            the line; in Parquet the row.
        columns: object arrays ``[n]``; a missing value is None or an empty string. Text that is not UTF-8 carries its
            bytes as surrogates (PEP 383).
    """

    file: Path
    rows: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, i: int, column: str) -> str:
        """File, row and column of the i-th row, for error messages."""
        return f'{self.file}: row {self.rows[i]}: column "{column}"'


def read_chunks(files: Sequence[Path], columns: Sequence[str], rows: int, report: Report) -> Iterator[Chunk]:
    """Reads some columns of tables, a chunk at a time, so that memory is bounded by the chunk.

    Args:
        files: tables, read one after another as one; CSV (``.csv``, ``.tsv``), Parquet or JSON Lines by their names.
        columns: the columns wanted; one named twice is read once.
        rows: the most rows of a chunk.
        report: gets the rows that are malformed.

    Raises:
        DataError: for a file that is missing, of another format or malformed, or that lacks a column.
    """
    wanted = list(dict.fromkeys(columns))
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: there is no such file")
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            raise DataError(f'{file}: unknown table format "{file.suffix}"; expected one of {", ".join(_READERS)}')
        yield from reader(file, wanted, rows, report)


def _check_columns(file: Path, wanted: Sequence[str], known: Sequence[str]) -> None:
    for column in wanted:
        if column not in known:
            hint = nearest(column, list(known))
            raise DataError(f'{file}: column "{column}" is missing{hint}; columns: {", ".join(known)}')
        if list(known).count(column) > 1:
            raise DataError(f'{file}: column "{column}" stands there twice; expected each name once')


def _csv_header(file: Path, delimiter: str) -> list[str]:
    with open(file, "rb") as content:
        line = content.readline(2**20)
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: row 1: the header is not UTF-8 ({line[:60]!r}); save the table as UTF-8") from error
    names = next(csv.reader(io.StringIO(text), delimiter=delimiter), [])
    if not names:
        raise DataError(f"{file}: is empty; expected a header")
    return names


def _read_csv(file: Path, wanted: list[str], rows: int, report: Report) -> Iterator[Chunk]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    header = _csv_header(file, delimiter)
    _check_columns(file, wanted, header)
    malformed: dict[int, str] = {}

    def on_invalid(row: Any) -> str:
        found = f"found {row.actual_columns} values, expected {row.expected_columns}: {row.text[:60]!r}"
        malformed[row.number] = f"{file}: row {row.number}: {found}"
        return "skip"

    start, told = 2, 0
    try:
        # One thread, because only then are the numbers of malformed rows known.
        reader = pa.csv.open_csv(
            file,
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=on_invalid,
            ),
            convert_options=pa.csv.ConvertOptions(
                include_columns=wanted,
                column_types={name: pa.binary() for name in wanted},
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            numbers = np.arange(start, start + len(batch) + len(malformed) - told, dtype=np.int64)
            numbers = numbers[~np.isin(numbers, list(malformed))][: len(batch)]
            for message in list(malformed.values())[told:]:
                report.bad_row("malformed row", message)
            told = len(malformed)
            start = int(numbers[-1]) + 1 if len(numbers) else start
            for at in range(0, len(batch), rows):
                part = batch.slice(at, rows)
                texts = {name: _decoded(part.column(i)) for i, name in enumerate(part.schema.names)}
                yield _without_blank_rows(Chunk(file, numbers[at : at + rows], texts), report)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file}: is not well-formed CSV ({str(error).splitlines()[0][:200]})") from error


def _without_blank_rows(chunk: Chunk, report: Report) -> Chunk:
    """The chunk without blank lines, which are no rows but have numbers."""
    blank = np.logical_and.reduce([values == "" for values in chunk.columns.values()])
    if not blank.any():
        return chunk
    first = chunk.rows[np.flatnonzero(blank)[0]]
    report.note("blank row", f"{chunk.file}: row {first}: is blank in every column that is read", int(blank.sum()))
    return Chunk(chunk.file, chunk.rows[~blank], {name: values[~blank] for name, values in chunk.columns.items()})


def _decoded(values: pa.Array) -> np.ndarray:
    """Binary to an object array of str; what is not UTF-8 is kept as surrogates, to be reported with its row."""
    try:
        return values.cast(pa.string()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return _objects([value.decode("utf-8", "surrogateescape") for value in values.to_pylist()])


def _read_parquet(file: Path, wanted: list[str], rows: int, report: Report) -> Iterator[Chunk]:
    try:
        table = pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: is not a Parquet file ({str(error).splitlines()[0]})") from error
    _check_columns(file, wanted, table.schema_arrow.names)
    start = 1
    for batch in table.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
        numbers = np.arange(start, start + len(batch), dtype=np.int64)
        start += len(batch)
        yield Chunk(file, numbers, {name: _arrow_objects(batch.column(name)) for name in wanted})


def _arrow_objects(values: pa.Array) -> np.ndarray:
    """An Arrow column to an object array of str, bytes, int, float, bool or datetime; null is None, NaN stays NaN."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_dictionary(values.type):
        values = values.cast(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values.to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        utc = values.cast(pa.timestamp("us", getattr(kind, "tz", None))).cast(pa.int64())
        return _objects([None if value is None else value / 1e6 for value in utc.to_pylist()])
    if pa.types.is_decimal(kind):
        values = values.cast(pa.float64())
    return _objects(values.to_pylist())


def _read_json_lines(file: Path, wanted: list[str], rows: int, report: Report) -> Iterator[Chunk]:
    checked = False
    numbers: list[int] = []
    records: list[dict[str, Any]] = []

    def chunk() -> Chunk:
        columns = {name: _objects([record.get(name) for record in records]) for name in wanted}
        return Chunk(file, np.array(numbers, np.int64), columns)

    for number, record in _json_records(file, report):
        numbers.append(number)
        records.append(record)
        if len(records) == rows:
            if not checked:
                _check_json_columns(file, wanted, records)
                checked = True
            yield chunk()
            numbers.clear()
            records.clear()
    if not checked:
        _check_json_columns(file, wanted, records)
    if records:
        yield chunk()


def _json_records(file: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            text = line.lstrip("﻿").strip()
            if not text:
                continue
            try:
                record = json.loads(text)
            except ValueError as error:
                shown = text[:60].encode("utf-8", "surrogateescape")
                report.bad_row("malformed row", f"{file}: row {number}: is not JSON ({error}): {shown!r}")
                continue
            if isinstance(record, dict):
                yield number, record
            else:
                found = type(record).__name__
                report.bad_row("malformed row", f"{file}: row {number}: expected a JSON object, found {found}")


def _check_json_columns(file: Path, wanted: list[str], first: list[dict[str, Any]]) -> None:
    """A column is missing when no row of the file has it; most files show all columns at once."""
    seen: dict[str, None] = {}
    for record in first:
        seen.update(dict.fromkeys(record))
    if not all(column in seen for column in wanted):
        for _, record in _json_records(file, Report("skip")):
            seen.update(dict.fromkeys(record))
    if not seen:
        raise DataError(f"{file}: is empty; expected rows with {', '.join(wanted)}")
    _check_columns(file, wanted, list(seen))


def _objects(values: list[Any]) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


_READERS: dict[str, Callable[[Path, list[str], int, Report], Iterator[Chunk]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
