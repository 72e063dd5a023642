"""Tables in chunks: rows, numbers of rows, and what is wrong with a file."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmmrank.data import columns, tables
from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.tables import read_chunks


def read(file, names, rows=100, report=None):
    return list(read_chunks([file], names, rows, report or Report("fail")))


def whole(file, names, rows=100):
    chunks = read(file, names, rows)
    return {name: [v for chunk in chunks for v in chunk.columns[name]] for name in names}, [
        int(row) for chunk in chunks for row in chunk.rows
    ]


@pytest.fixture
def save(tmp_path):
    def write(name: str, content: bytes | str):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


def test_csv_values_are_verbatim_and_rows_count_as_in_a_spreadsheet(save):
    file = save("t.csv", '\ufeffid,text,other\n01, NA ,x\n02,"a ""b"",\nc",y\n03,,z\n')
    values, rows = whole(file, ["text", "id"], rows=2)
    assert values == {"text": [" NA ", 'a "b",\nc', ""], "id": ["01", "02", "03"]}
    assert rows == [2, 3, 4]


@pytest.mark.parametrize("rows", [1, 2, 3, 1000])
def test_chunks_hold_at_most_so_many_rows_and_lose_none(save, rows):
    file = save("t.csv", "a\n" + "".join(f"{i}\n" for i in range(7)))
    chunks = read(file, ["a"], rows)
    assert max(len(chunk) for chunk in chunks) == min(rows, 7)
    assert [v for chunk in chunks for v in chunk.columns["a"]] == [str(i) for i in range(7)]


def test_row_numbers_hold_across_blocks_of_the_csv_reader(save):
    file = save("t.csv", "a,b\n" + "".join(f"{i},{'x' * 2000}\n" for i in range(5000)))  # 10 MB, several blocks
    values, rows = whole(file, ["a"], rows=1000)
    assert values["a"] == [str(i) for i in range(5000)]
    assert rows == list(range(2, 5002))


def test_malformed_csv_row(save):
    file = save("t.csv", "a,b\n1,x\n\n2\n3,z\n4,v,w\n5,u\n")
    with pytest.raises(DataError, match=r"t\.csv: row 4: found 1 values, expected 2"):
        read(file, ["a"])
    report = Report("skip")
    (chunk,) = read(file, ["a"], report=report)
    assert list(chunk.columns["a"]) == ["1", "3", "5"]
    assert list(chunk.rows) == [2, 5, 7]  # a blank line is no row, but it has a number
    assert report.skipped == {"malformed row": 2}
    assert report.noted == {"blank row": 1}


def test_tab_separated(save):
    assert whole(save("t.tsv", "a\tb\n1,5\tx\n"), ["a"])[0] == {"a": ["1,5"]}


def test_json_lines(save):
    file = save("t.jsonl", '{"id": 7, "text": "红"}\n\n{"id": "8"}\n{"id": 9.5, "text": null}\n')
    values, rows = whole(file, ["id", "text"], rows=2)
    assert values == {"id": [7, "8", 9.5], "text": ["红", None, None]}
    assert rows == [1, 3, 4]


def test_malformed_json(save):
    file = save("t.jsonl", '{"id": 7}\n{"id": \n[1]\n{"id": 8}\n')
    with pytest.raises(DataError, match=r"t\.jsonl: row 2: is not JSON"):
        read(file, ["id"])
    report = Report("skip")
    (chunk,) = read(file, ["id"], report=report)
    assert list(chunk.columns["id"]) == [7, 8]
    assert report.skipped == {"malformed row": 2}


def test_a_column_that_comes_late_in_json_lines_is_no_missing_column(save):
    file = save("t.jsonl", '{"id": 1}\n{"id": 2}\n{"id": 3, "note": "x"}\n')
    assert whole(file, ["note"], rows=1)[0] == {"note": [None, None, "x"]}


def test_parquet_tells_null_from_nan(tmp_path):
    table = pa.table(
        {
            "id": pa.array([1, None, 3]),
            "x": pa.array([1.5, None, float("nan")]),
            "s": pa.array(["a", None, ""]).dictionary_encode(),
            "t": pa.array([datetime(2026, 1, 1, 12), None, None]),
            "b": pa.array([True, False, None]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    values, rows = whole(tmp_path / "t.parquet", ["id", "x", "s", "t", "b"], rows=2)
    assert values["id"] == [1, None, 3]
    assert values["x"][:2] == [1.5, None]
    assert np.isnan(values["x"][2])
    assert values["s"] == ["a", None, ""]
    assert values["t"] == [datetime(2026, 1, 1, 12, tzinfo=timezone.utc).timestamp(), None, None]
    assert values["b"] == [True, False, None]
    assert rows == [1, 2, 3]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_misnamed_column_suggests_the_nearest(tmp_path, name):
    file = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"item_id": ["1"], "titel": ["x"]}), file)
    else:
        file.write_text("item_id,titel\n1,x\n" if name.endswith("csv") else '{"item_id": "1", "titel": "x"}\n')
    with pytest.raises(DataError, match=r'column "title" is missing; did you mean "titel"\?; columns: item_id, titel'):
        read(file, ["item_id", "title"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty; expected a header"),
        ("t.csv", b"a,a\n1,2\n", 'column "a" stands there twice'),
        ("t.csv", "\u00e4,b\n".encode("latin-1"), "row 1: the header is not UTF-8"),
        ("t.csv", b'"a,b\n1,2\n', "row 1: the header is not well-formed CSV"),
        ("t.jsonl", b"", "is empty; expected rows with a"),
        ("t.parquet", b"PAR0", "is not a Parquet file"),
        ("t.xlsx", b"x", 'unknown table format ".xlsx"; expected one of .csv'),
    ],
)
def test_unreadable_files(save, name, content, message):
    with pytest.raises(DataError, match=message):
        read(save(name, content), ["a"])


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file"):
        read(tmp_path / "nowhere.csv", ["a"])


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(DataError, match=r"is a folder; expected a table \(\.csv, "):
        read(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"sku;name\n1;hat\n", r"header is one column, 'sku;name'; is ';' its separator\? expected ','"),
        ("t.csv", b"sku\tname\n1\that\n", r"is '\\t' its separator\? expected ','"),
        ("t.tsv", b"sku,name\n1,hat\n", r"is ',' its separator\? expected '\\t'"),
        ("t.csv", b"name\nhat\n", 'column "sku" is missing; columns: name'),
    ],
)
def test_another_separator_is_named(save, name, content, says):
    with pytest.raises(DataError, match=says):
        read(save(name, content), ["sku"])


def test_one_column_with_a_semicolon_in_its_name(save):
    (chunk,) = read(save("t.csv", b"a;b\n1\n"), ["a;b"])
    assert list(chunk.columns["a;b"]) == ["1"]


def test_non_utf8_text_names_row_and_bytes(save):
    file = save("t.csv", b"id,text\n1,fine\n2,caf\xe9\n")
    (chunk,) = read(file, ["text"])
    with pytest.raises(DataError, match=r'row 3: column "text": b\'caf\\xe9\' is not UTF-8; save the table as UTF-8'):
        columns.texts(chunk, "text", Report("fail"), np.ones(2, bool))
    good, report = np.ones(2, bool), Report("skip")
    assert list(columns.texts(chunk, "text", report, good)) == ["fine", ""]
    assert list(good) == [True, False]
    assert report.skipped == {"non-UTF-8 text": 1}


def test_half_a_surrogate_pair_in_json_is_not_utf8(save):
    (chunk,) = read(save("t.jsonl", '{"text": "\\ud83d"}\n'), ["text"])
    with pytest.raises(DataError, match="is not UTF-8"):
        columns.texts(chunk, "text", Report("fail"), np.ones(1, bool))


def column(save, values):
    import json

    (chunk,) = read(save("c.jsonl", "".join(json.dumps({"x": v}) + "\n" for v in values)), ["x"])
    return chunk, np.ones(len(values), bool)


def test_ids_are_alike_whatever_the_table_format(save):
    chunk, good = column(save, [12, 12.0, "12", "012", 2.5])
    assert list(columns.ids(chunk, "x", Report("fail"), good)) == ["12", "12", "12", "012", "2.5"]


def test_missing_id(save):
    chunk, good = column(save, ["a", ""])
    with pytest.raises(DataError, match=r'row 2: column "x": is empty; expected an id'):
        columns.ids(chunk, "x", Report("fail"), good)


def test_numbers(save):
    chunk, good = column(save, [1, "2.5", " 3e2 ", None, "", True, "false"])
    values = columns.numbers(chunk, "x", Report("fail"), good)
    np.testing.assert_array_equal(values, [1, 2.5, 300, np.nan, np.nan, 1, 0])
    assert good.all()


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-Infinity", float("nan"), float("inf"), "12 EUR", "1_000", "1e39", [1]]
)
def test_non_finite_number(save, value):
    chunk, good = column(save, [1, value])
    with pytest.raises(DataError, match=r'row 2: column "x": found .*; expected a finite number'):
        columns.numbers(chunk, "x", Report("fail"), good)
    report = Report("skip")
    columns.numbers(chunk, "x", report, good)
    assert list(good) == [True, False]
    assert report.skipped == {"not a finite number": 1}


def test_numbers_outside_their_limits(save):
    chunk, good = column(save, [-1, 0, 2, None])
    report = Report("skip")
    columns.numbers(chunk, "x", report, good, required=True, minimum=0, maximum=1)
    assert list(good) == [False, True, False, False]
    assert report.skipped == {"negative x": 1, "x too large": 1, "missing x": 1}


def test_a_bad_row_is_reported_once(save):
    chunk, good = column(save, ["nan"])
    report = Report("skip")
    columns.numbers(chunk, "x", report, good)
    columns.numbers(chunk, "x", report, good)
    assert report.skipped == {"not a finite number": 1}


def test_times_in_every_form_are_the_same_moment(save):
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=timezone.utc)
    forms = [
        "2026-03-01T12:30:00Z",
        "2026-03-01T12:30:00",
        "2026-03-01 12:30",
        "2026-03-01T14:30:00+02:00",
        moment.timestamp(),
        str(moment.timestamp()),
    ]
    chunk, good = column(save, [*forms, None])
    values = columns.times(chunk, "x", Report("fail"), good)
    np.testing.assert_array_equal(values[:-1], [moment.timestamp()] * len(forms))
    assert np.isnan(values[-1])


def test_unreadable_time(save):
    chunk, good = column(save, ["yesterday"])
    with pytest.raises(DataError, match=r'row 1: column "x": found \'yesterday\'; expected ISO 8601'):
        columns.times(chunk, "x", Report("fail"), good)


def test_a_row_is_blank_only_when_the_whole_line_is(save):
    file = save("t.csv", "a,b,c\n1,x,\n,,z\n,,\n\n2,y,\n")
    report = Report("fail")
    (chunk,) = read(file, ["a", "b"], report=report)
    assert list(chunk.columns["a"]) == ["1", "", "2"]  # the second is for its reader to judge
    assert list(chunk.rows) == [2, 3, 6]
    assert report.noted == {"blank row": 2}


@pytest.mark.parametrize("content", ["a,b\n1\n2\n", "a,b\n1,x\n2\n3\n"], ids=["every row", "the last rows"])
def test_malformed_rows_that_no_good_row_follows_are_told(save, content):
    file = save("t.csv", content)
    with pytest.raises(DataError, match=r"t\.csv: row [23]: found 1 values, expected 2"):
        read(file, ["a"])
    report = Report("skip")
    read(file, ["a"], report=report)
    assert report.skipped == {"malformed row": 2}


@pytest.mark.parametrize("block", [500, 4 * 2**20])
def test_row_numbers_hold_where_malformed_rows_meet_the_end_of_a_block(save, monkeypatch, block):
    monkeypatch.setattr(tables, "_CSV_BLOCK_BYTES", block)
    lines = [f"{row}" if row % 300 > 150 else f"{row},x" for row in range(2, 1002)]
    report = Report("skip")
    chunks = read(save("t.csv", "a,b\n" + "\n".join(lines) + "\n"), ["a"], report=report)
    for chunk in chunks:
        assert [str(row) for row in chunk.rows] == list(chunk.columns["a"])
    assert sum(len(chunk) for chunk in chunks) + report.skipped["malformed row"] == 1000


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ('a,b\n1,x\n2,"y\n3,z\n', 3),
        ('a,b\n1,x\n2,"y\n3,z', 3),
        ('a,b\r\n1,x\r\n2,"y\r\n3,z\r\n', 3),
        ('a,b,c\n1,x,2\n2,"y,2\n3,z,2\n', 3),
        ("a,b\n" + "1,x\n" * 100 + '2,"y\n' + "1,x\n" * 1000, 102),
    ],
    ids=["last column", "no line end", "CRLF", "other column", "several blocks"],
)
def test_a_quote_that_is_not_closed_swallows_no_rows_silently(save, monkeypatch, content, row):
    monkeypatch.setattr(tables, "_CSV_BLOCK_BYTES", 1000)
    file = save("t.csv", content)
    for policy in ("fail", "skip"):  # nobody knows how many rows are lost
        with pytest.raises(DataError, match=f"row {row}.*a quote is probably not closed"):
            read(file, ["a"], report=Report(policy))


CLOSED = ['"y\n"', '"\n"', '"\r\n"', '"say ""hi""\n"', '"y\n""hi"""', '"y\n"""""', '5"', '""""', '"a\nb"']


@pytest.mark.parametrize("last", CLOSED)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_quotes_that_are_closed_may_end_a_file(save, last, end):
    (chunk,) = read(save("t.csv", f"a,b\n1,x\n2,{last}{end}"), ["a", "b"])
    assert list(chunk.columns["a"]) == ["1", "2"]


def test_lines_may_end_as_on_old_macs_and_headers_hold_quoted_line_ends(save):
    assert whole(save("t.csv", "a,b\r1,x\r2,y\r"), ["b"])[0] == {"b": ["x", "y"]}
    assert whole(save("u.csv", '"a\nb",c\n1,x\n'), ["a\nb", "c"])[0] == {"a\nb": ["1"], "c": ["x"]}


def test_a_json_number_of_any_size_is_judged(save):
    (chunk,) = read(save("t.jsonl", '{"x": 1%s}\n{"x": 2}\n' % ("0" * 400)), ["x"])
    report = Report("skip")
    good = np.ones(2, bool)
    assert columns.numbers(chunk, "x", report, good)[1] == 2
    assert report.skipped == {"not a finite number": 1}


def test_json_nested_beyond_reason_is_malformed(save):
    report = Report("skip")
    (chunk,) = read(save("t.jsonl", '{"x": 2}\n' + "[" * 100_000 + "\n"), ["x"], report=report)
    assert (len(chunk), report.skipped) == (1, {"malformed row": 1})


def test_parquet_times_of_any_unit_and_year(tmp_path):
    moment = datetime(1965, 3, 1, 12, 30, tzinfo=timezone.utc)
    units = ["s", "ms", "us", "ns"]
    table = {unit: pa.array([moment, None]).cast(pa.timestamp(unit, "UTC")) for unit in units}
    table["fine"] = pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns"))
    table["far"] = pa.array([10**12, None], pa.timestamp("s"))
    table["day"] = pa.array([moment.date(), None])
    table["date64"] = pa.array([moment.date(), None], pa.date64())
    pq.write_table(pa.table(table), tmp_path / "t.parquet", version="2.6")
    (chunk,) = read(tmp_path / "t.parquet", list(table))
    times = {name: columns.times(chunk, name, Report("fail"), np.ones(2, bool)) for name in table}
    assert all(np.isnan(values[1]) for values in times.values())
    assert [times[unit][0] for unit in units] == [moment.timestamp()] * 4
    assert times["fine"][0] == pytest.approx(1_700_000_000.123456789, abs=1e-6)  # what a float64 can hold
    assert times["far"][0] == 1e12
    assert times["day"][0] == times["date64"][0] == datetime(1965, 3, 1, tzinfo=timezone.utc).timestamp()


def test_a_damaged_page_of_parquet(tmp_path):
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [str(i) for i in range(5000)]}), file, compression="zstd", use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[200:1000] = bytes(800)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: is damaged, at row 1 or later"):
        read(file, ["a"])


def test_parquet_text_that_is_not_utf8(tmp_path):
    offsets, values = pa.py_buffer(np.array([0, 2, 4], np.int32).tobytes()), pa.py_buffer(b"ab\xe9b")
    pq.write_table(
        pa.table({"a": pa.Array.from_buffers(pa.string(), 2, [None, offsets, values])}), tmp_path / "t.parquet"
    )
    (chunk,) = read(tmp_path / "t.parquet", ["a"])
    report = Report("skip")
    assert list(columns.texts(chunk, "a", report, np.ones(2, bool))) == ["ab", ""]
    assert report.skipped == {"non-UTF-8 text": 1}


def test_decimals_keep_their_digits_as_ids_and_become_numbers(tmp_path):
    values = [Decimal("12345678901234567890.00"), Decimal("2.50"), None]
    pq.write_table(pa.table({"x": pa.array(values, pa.decimal128(30, 2))}), tmp_path / "t.parquet")
    (chunk,) = read(tmp_path / "t.parquet", ["x"])
    report, good = Report("fail"), np.ones(3, bool)
    assert list(columns.texts(chunk, "x", report, good)) == ["12345678901234567890", "2.5", ""]
    np.testing.assert_array_equal(columns.numbers(chunk, "x", report, good), [12345678901234567890, 2.5, np.nan])


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("20251201", "write a date as 2025-12-01"),
        (20251201, "write a date as 2025-12-01"),
        ("99999999", "from 1990 to 2100"),
        ("2026", "from 1990 to 2100"),
        (True, "from 1990 to 2100"),
        ("true", "from 1990 to 2100"),
        (0, "from 1990 to 2100"),
        ("1767268800000", "these look like milliseconds: divide by 1000$"),
        (1767268800 * 10**9, "these look like nanoseconds: divide by 1000000000$"),
        ("-inf", "from 1990 to 2100"),
        ("nan", "expected ISO 8601"),
    ],
)
def test_numbers_that_are_no_likely_time(save, value, hint):
    chunk, good = column(save, ["2026-01-01", value])
    with pytest.raises(DataError) as error:
        columns.times(chunk, "x", Report("fail"), good)
    assert str(error.value).startswith(f'{chunk.file}: row 2: column "x": found {value!r}; expected ISO 8601')
    assert re.search(hint, str(error.value).partition(" (unreadable time")[0])
    report, good = Report("skip"), np.ones(2, bool)
    assert np.isnan(columns.times(chunk, "x", report, good, required=True)[1])
    assert list(good) == [True, False]
    assert report.skipped == {"unreadable time": 1}
