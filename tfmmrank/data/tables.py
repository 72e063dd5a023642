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
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tfmmrank.data.errors import DataError, Report
from tfmmrank.registry import nearest

_CSV_BLOCK_BYTES = 2**20  # the most that a row may take; Arrow reads 32 blocks ahead, so no more than needed
_CSV_HEADER_BYTES = 2**20
_PICTURE_ROWS = 1000  # the most rows held at once of a table with pictures inside
_UNCLOSED = "a quote is probably not closed here or before; the rest of the table was read as one value"


class Moment(float):
    """Seconds since 1970, UTC, from a column whose type says that it holds times."""


@dataclass
class Chunk:
    """Some rows of a table.

    Attributes:
        file: where they stand.
        rows: int64 ``[n]``, their numbers, from 1: in CSV the header is row 1, as in a spreadsheet; in JSON Lines it is
            the line; in Parquet the row.
        columns: object arrays ``[n]`` of str, bytes, numbers or Moment; a missing value is None or an empty string.
            Text that is not UTF-8 carries its bytes as surrogates (PEP 383).
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
        if file.is_dir():
            raise DataError(f"{file}: is a folder; expected a table ({', '.join(_READERS)})")
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


def _check_delimiter(file: Path, wanted: Sequence[str], header: list[str], delimiter: str) -> None:
    """Names the likely separator of a table whose header came out as one column."""
    if len(header) > 1 or header[0] in wanted:
        return
    for other in ";", "\t", "|", ",":
        if other in header[0]:
            raise DataError(
                f"{file}: row 1: the header is one column, {header[0][:60]!r}; is {other!r} its separator? "
                f"expected {delimiter!r}"
            )


def _csv_header(file: Path, delimiter: str) -> list[str]:
    with open(file, "rb") as content:
        text = content.read(_CSV_HEADER_BYTES).decode("utf-8-sig", "surrogateescape")
    try:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise DataError(f"{file}: row 1: the header is not well-formed CSV ({error})") from error
    if not names:
        raise DataError(f"{file}: is empty; expected a header")
    for name in names:
        if not name.isascii() and _raw(name) != name.encode("utf-8", "replace"):
            raise DataError(f"{file}: row 1: the header is not UTF-8 ({_raw(name)[:60]!r}); save the table as UTF-8")
    return names


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _read_csv(file: Path, wanted: list[str], rows: int, report: Report) -> Iterator[Chunk]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    header = _csv_header(file, delimiter)
    _check_delimiter(file, wanted, header, delimiter)
    _check_columns(file, wanted, header)
    places = {name: header.index(name) for name in wanted}
    malformed: dict[int, str] = {}  # by row, until told; blocks are parsed ahead of the batches that are read

    def on_invalid(row: Any) -> str:
        lines = "\n" in row.text or "\r" in row.text
        if lines and row.text.count('"') % 2 and _ends_with(file, row.text.encode()):
            malformed[row.number] = _UNCLOSED
        else:
            found = f"found {row.actual_columns} values, expected {row.expected_columns}: {row.text[:60]!r}"
            malformed[row.number] = found
        return "skip"

    def tell(before: float) -> None:
        for number in [number for number in malformed if number < before]:
            found = malformed.pop(number)
            if found == _UNCLOSED:  # nobody knows how many rows it swallowed, so there is no skipping it
                raise DataError(f"{file}: row {number}: {found}")
            report.bad_row("malformed row", f"{file}: row {number}: {found}")

    start, last = 2, b""
    try:
        # One thread, because only then are the numbers of malformed rows known. All columns, because only then is it
        # known whether a row is blank.
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
                column_types=dict.fromkeys(header, pa.binary()),
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            numbers = np.arange(start, start + len(batch) + len(malformed), dtype=np.int64)
            numbers = numbers[~np.isin(numbers, list(malformed))][: len(batch)]
            start = int(numbers[-1]) + 1 if len(numbers) else start
            tell(start)
            last = batch.column(len(header) - 1)[-1].as_py() if len(batch) else last
            batch, numbers = _without_blank_rows(file, batch, numbers, report)
            for at in range(0, len(batch), rows):
                part = batch.slice(at, rows)
                texts = {name: _decoded(part.column(place)) for name, place in places.items()}
                yield Chunk(file, numbers[at : at + rows], texts)
        tell(np.inf)
        if _runs_to_the_end(file, last):
            raise DataError(f"{file}: row {start - 1}: {_UNCLOSED}")
    except pa.ArrowException as error:
        found = str(error).splitlines()[0][:200]
        hint = f"; {_UNCLOSED}" if "straddl" in found else ""
        raise DataError(f"{file}: is not well-formed CSV, at row {start} or later ({found}){hint}") from error


def _ends_with(file: Path, tail: bytes) -> bool:
    """Whether a file ends with some bytes, but for its last line end."""
    with open(file, "rb") as content:
        size = content.seek(0, io.SEEK_END)
        content.seek(max(0, size - len(tail) - 2))
        return content.read().rstrip(b"\r\n").endswith(tail.rstrip(b"\r\n"))


def _runs_to_the_end(file: Path, value: bytes) -> bool:
    """Whether a file's last value begins with a quote and takes all that follows: the quote was not closed."""
    lines = value.splitlines()
    # A value of one line, or of line ends alone, took no rows.
    return lines != [value] and any(lines) and _ends_with(file, b'"' + value.replace(b'"', b'""'))


def _without_blank_rows(
    file: Path, batch: pa.RecordBatch, numbers: np.ndarray, report: Report
) -> tuple[pa.RecordBatch, np.ndarray]:
    """A batch without the rows that have nothing in any column: they are no rows, but have numbers."""
    blank = np.ones(len(batch), bool)
    for column in batch.columns:
        blank &= np.asarray(pc.equal(pc.binary_length(column), 0))
        if not blank.any():
            return batch, numbers
    report.note("blank row", f"{file}: row {numbers[blank][0]}: has nothing in any column", int(blank.sum()))
    return batch.filter(pa.array(~blank)), numbers[~blank]


def _decoded(values: pa.Array) -> np.ndarray:
    """Binary to an object array of str; what is not UTF-8 is kept as surrogates, to be reported with its row."""
    try:
        return values.cast(pa.large_string()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return _objects([v if v is None else v.decode("utf-8", "surrogateescape") for v in values.to_pylist()])


def _read_parquet(file: Path, wanted: list[str], rows: int, report: Report) -> Iterator[Chunk]:
    try:
        table = pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: is not a Parquet file ({str(error).splitlines()[0]})") from error
    schema = table.schema_arrow
    _check_columns(file, wanted, schema.names)
    kinds = [schema.field(name).type for name in wanted]
    if any(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) for kind in kinds):
        rows = min(rows, _PICTURE_ROWS)
    start = 1
    try:
        for batch in table.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
            numbers = np.arange(start, start + len(batch), dtype=np.int64)
            start += len(batch)
            yield Chunk(file, numbers, {name: _arrow_objects(batch.column(name)) for name in wanted})
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: is damaged, at row {start} or later ({str(error).splitlines()[0][:200]})") from error


def _arrow_objects(values: pa.Array) -> np.ndarray:
    """An Arrow column to an object array of str, bytes, int, float, Decimal, bool or Moment; null is None."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        values = values.cast(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _decoded(values.cast(pa.large_binary()))
    if pa.types.is_date(kind):
        kind = pa.timestamp("s" if pa.types.is_date32(kind) else "ms")
        values = values.cast(kind)
    if pa.types.is_timestamp(kind):
        units = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        return _objects([None if v is None else Moment(v / units) for v in values.cast(pa.int64()).to_pylist()])
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
            except (ValueError, RecursionError) as error:
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
