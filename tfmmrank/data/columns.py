"""A chunk's columns to typed arrays. What cannot be used is reported with file, row, column and value.

Every function takes ``good`` (bool ``[n]``), and sets it to False for the rows it reports: a row is reported once.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import numpy as np

from tfmmrank.data.errors import Report
from tfmmrank.data.tables import Chunk, Moment

LARGEST = float(np.finfo(np.float32).max)  # numbers are stored as float32
_FLAGS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
# Numbers outside these years are no times of a shop, but dates written as numbers, or other units.
_EARLIEST = datetime(1990, 1, 1, tzinfo=timezone.utc).timestamp()
_LATEST = datetime(2100, 1, 1, tzinfo=timezone.utc).timestamp()
_UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_FINITE = f"expected a finite number, up to {LARGEST:.2g}"


def texts(chunk: Chunk, column: str, report: Report, good: np.ndarray) -> np.ndarray:
    """A text column as str, verbatim; ``""`` where missing. Numbers are written out, whole ones without ``.0``."""
    values = chunk.columns[column]
    out = np.empty(len(values), object)
    for i, value in enumerate(values):
        text = value if isinstance(value, str) else _written(value)
        if text is None:
            if good[i]:
                message = f"{chunk.where(int(i), column)}: expected text, found {_shown(value)}"
                report.bad_row("not a text", message)
                good[i] = False
            text = ""
        elif not text.isascii() and _has_surrogates(text):
            if good[i]:
                message = f"{chunk.where(int(i), column)}: {_raw(text)[:60]!r} is not UTF-8; save the table as UTF-8"
                report.bad_row("non-UTF-8 text", message)
                good[i] = False
            text = ""
        out[i] = text
    return out


def ids(chunk: Chunk, column: str, report: Report, good: np.ndarray) -> np.ndarray:
    """An identifier column as str. A missing one is a bad row."""
    out = texts(chunk, column, report, good)
    for i in np.flatnonzero((out == "") & good):
        report.bad_row("missing id", f"{chunk.where(int(i), column)}: is empty; expected an id")
        good[i] = False
    return out


def numbers(
    chunk: Chunk,
    column: str,
    report: Report,
    good: np.ndarray,
    *,
    required: bool = False,
    minimum: float = -np.inf,
    maximum: float = np.inf,
) -> np.ndarray:
    """A numeric column as float64, NaN where missing.

    Text that is no number, NaN and infinities written out, what float32 cannot hold, and numbers outside [minimum,
    maximum] are bad rows; so are missing ones if ``required``.
    """
    values = chunk.columns[column]
    out = _floats(values)
    missing = _missing(values)
    finite = np.abs(out) <= LARGEST
    limits = (
        f"expected a number from {minimum:g} to {maximum:g}" if maximum < np.inf else f"expected at least {minimum:g}"
    )
    with np.errstate(invalid="ignore"):
        small, large = out < minimum, out > maximum
    _bad(chunk, column, ~finite & ~missing, "not a finite number", _FINITE, report, good)
    _bad(chunk, column, small, f"negative {column}" if minimum == 0 else f"{column} too small", limits, report, good)
    _bad(chunk, column, large, f"{column} too large", limits, report, good)
    if required:
        _bad(chunk, column, missing, f"missing {column}", "expected a number", report, good)
    return np.where(finite, out, np.nan)


def times(chunk: Chunk, column: str, report: Report, good: np.ndarray, *, required: bool = False) -> np.ndarray:
    """A time column as float64 seconds since 1970, NaN where missing.

    Times are ISO 8601 (UTC unless they say otherwise), a Parquet timestamp or date, or seconds since 1970 that fall
    between 1990 and 2100: a number outside is a date without dashes, a year, milliseconds or a flag, and a bad row.
    """
    values = chunk.columns[column]
    out = _floats(values)
    missing = _missing(values)
    numeric = ~np.isnan(out)
    for i in np.flatnonzero(~missing & ~numeric):
        out[i] = _seconds(values[i])
    with np.errstate(invalid="ignore"):
        unlikely = numeric & ~((out >= _EARLIEST) & (out < _LATEST))
    expected = "expected ISO 8601 (2026-01-31T12:00:00) or seconds since 1970"
    for i in np.flatnonzero(unlikely):
        if isinstance(values[i], Moment):
            unlikely[i] = False
        elif good[i]:
            message = f"{chunk.where(int(i), column)}: found {_shown(values[i])}; {expected}{_time_hint(out[i])}"
            report.bad_row("unreadable time", message)
            good[i] = False
    _bad(chunk, column, ~missing & ~np.isfinite(out), "unreadable time", expected, report, good)
    if required:
        _bad(chunk, column, missing, f"missing {column}", expected, report, good)
    return np.where(unlikely, np.nan, out)


def note_empty(chunk: Chunk, column: str, values: np.ndarray, report: Report, good: np.ndarray) -> None:
    """Counts the empty texts among the good rows; they stay, as missing."""
    empty = np.flatnonzero((values == "") & good)
    if len(empty):
        report.note(f"empty text in {column}", f"{chunk.where(empty[0], column)}: is empty", len(empty))


def _missing(values: np.ndarray) -> np.ndarray:
    return np.fromiter((value is None or value == "" for value in values), bool, len(values))


def _floats(values: np.ndarray) -> np.ndarray:
    """Values as float64; NaN for what is missing or no number."""
    try:
        if not any(isinstance(value, str) and "_" in value for value in values):  # Python reads 1_000 as a number
            return values.astype(np.float64)  # None becomes NaN; an empty string, or a word, raises
    except (ValueError, TypeError, OverflowError):
        pass
    return np.fromiter((_float(value) for value in values), np.float64, len(values))


def _float(value: Any) -> float:
    if value is None:
        return np.nan
    if isinstance(value, str):
        value = value.strip()
        if "_" in value:
            return np.nan
        value = _FLAGS.get(value.lower(), value)
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return np.inf
    except (ValueError, TypeError):
        return np.nan


def _seconds(value: Any) -> float:
    """ISO 8601 to seconds since 1970; NaN for anything else."""
    try:
        time = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    except ValueError:
        return np.nan
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()


def _time_hint(number: float) -> str:
    """What a number that is no likely time may be."""
    for unit, units_a_second in _UNITS.items():
        if _EARLIEST <= number / units_a_second < _LATEST:
            return f", and these look like {unit}: divide by {units_a_second:.0f}"
    if number.is_integer() and 1e7 <= number < 1e8:
        with contextlib.suppress(ValueError):
            return f"; write a date as {datetime.strptime(f'{number:.0f}', '%Y%m%d').date()}"
    return ", from 1990 to 2100"


def _written(value: Any) -> str | None:
    """A table's value as text; None for what is no text."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float):
        if np.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value) if isinstance(value, (int, np.generic)) else None


def _has_surrogates(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _raw(text: str) -> bytes:
    """The bytes behind a text with surrogates: undecodable ones as they were, or half a pair out of JSON."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    return (str(value) if isinstance(value, Decimal) else repr(value))[:80]


def _bad(
    chunk: Chunk, column: str, wrong: np.ndarray, cause: str, expected: str, report: Report, good: np.ndarray
) -> None:
    for i in np.flatnonzero(wrong & good):
        report.bad_row(cause, f"{chunk.where(int(i), column)}: found {_shown(chunk.columns[column][i])}; {expected}")
        good[i] = False
