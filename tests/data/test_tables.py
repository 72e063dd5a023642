"""Tables in chunks: rows, numbers of rows, and what is wrong with a file."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmmrank.data import columns
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
    assert report.skipped == {"non-finite number": 1}


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
    assert report.skipped == {"non-finite number": 1}


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
