"""LibSVM, ELWC and SequenceExample, both ways; what is written is parsed by TF-Ranking itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tfmmrank.data import formats
from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.example_lists import ExampleListWithContext, read_records, write_record
from tfmmrank.data.formats import FORMATS, RawList, write_elwc, write_libsvm, write_sequence_example
from tfmmrank.schema import ExampleLists, LibSVM


def data_folder() -> Path:
    return Path(os.environ.get("TFMMRANK_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def read_lists(labels, files, report: Report | None = None):
    return formats.read_lists(labels, files, report or Report("fail"))


def libsvm(path: Path, text: str | bytes, num_features: int | None = None) -> list[RawList]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_lists(LibSVM(files={"train": [path]}, num_features=num_features), [path]))


def records(kind: str, **options) -> ExampleLists:
    return ExampleLists(kind=kind, files={"train": ["x"]}, **{"features": {"price": 1, "vector": 3}, **options})


def two_lists() -> list[RawList]:
    return [
        RawList(
            "q1",
            {"query": "红色 shirt".encode()},
            np.array([2, 0], np.float32),
            np.array([1, 0.5], np.float32),
            {"price": np.array([9.5, np.nan], np.float32), "vector": np.array([[1, 2, 3], [4, 5, 6]], np.float32)},
        ),
        RawList(
            "q2",
            {"query": b""},
            np.array([1.0], np.float32),
            np.array([1.0], np.float32),
            {"price": np.array([1 / 3], np.float32), "vector": np.array([[-1e-30, 0, 16777217]], np.float32)},
        ),
    ]


def assert_same(got: list[RawList], expected: list[RawList]) -> None:
    assert [made.query_id for made in got] == [made.query_id for made in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.query == other.query
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.weights, other.weights)
        assert list(one.features) == list(other.features)
        for name, values in other.features.items():
            assert one.features[name].dtype == np.float32
            np.testing.assert_array_equal(one.features[name], values)


def test_libsvm_by_hand(tmp_path):
    text = "2 qid:7 1:0.5 3:-1e-3 # doc = 9\n\n0 qid:7 2:NULL 1:4\n1 qid:b 3:1\n"
    first, second = libsvm(tmp_path / "a.txt", text)
    assert (first.query_id, second.query_id) == ("7", "b")
    np.testing.assert_array_equal(first.labels, [2, 0])
    np.testing.assert_array_equal(first.weights, [1, 1])
    np.testing.assert_array_equal(first.features["features"], np.array([[0.5, 0, -1e-3], [4, np.nan, 0]], np.float32))
    np.testing.assert_array_equal(second.features["features"], [[0, 0, 1]])
    (wide,) = libsvm(tmp_path / "b.txt", "0 qid:1 1:2\n", num_features=5)
    assert wide.features["features"].shape == (1, 5)
    assert libsvm(tmp_path / "c.txt", "# nothing\n") == []


def test_libsvm_lists_may_go_on_in_the_next_file(tmp_path):
    one, two = tmp_path / "1.txt", tmp_path / "2.txt"
    one.write_text("1 qid:1 1:1\n0 qid:2 1:2\n")
    two.write_text("1 qid:2 1:3\n0 qid:3 2:4\n")
    got = list(read_lists(LibSVM(files={"train": [one, two]}), [one, two]))
    assert [len(made) for made in got] == [1, 2, 1]
    assert all(made.features["features"].shape[1] == 2 for made in got)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x qid:1 1:1", 'grade is "x"; expected a number'),
        ("-1 qid:1 1:1", "grade is -1; expected a finite number, 0 or more"),
        ("nan qid:1 1:1", "grade is nan"),
        ("1 1:1", '"1:1" follows the grade; expected qid:QUERY'),
        ("1", "the end of the line follows the grade"),
        ("1 qid:1 1:abc", '"1:abc"; expected a number after the colon'),
        ("1 qid:1 1:inf", '"1:inf" is not finite'),
        ("1 qid:1 1:nan", '"1:nan" is not finite'),
        ("1 qid:1 0:1", '"0:1"; expected INDEX:VALUE with an index from 1 to 4'),
        ("1 qid:1 5:1", '"5:1"; expected INDEX:VALUE with an index from 1 to 4'),
        ("1 qid:1 2.5:1", '"2.5:1"; expected INDEX:VALUE'),
        ("1 qid:1 1:1 1:2", "index 1 is given twice"),
        ("1 qid:1 1 1:2", '"1"; expected INDEX:VALUE'),
        ("1 qid:1 1:2:3 4", '"4"; expected INDEX:VALUE|"1:2:3"; expected a number'),
        ("1 qid:0 1:1", "qid:0 was seen before other queries"),
        ("1e39 qid:z 1:1", "grade is 1e39; expected a finite number"),
        ("1 qid:z 1:1e39", '"1:1e39" is not finite'),
        ("1 qid:z 1:1 2:-4e38", '"2:-4e38" is not finite'),
        ("1 qid:z 1" + "0" * 5000 + ":1", "expected INDEX:VALUE with an index from 1 to 4 (num_features"),
    ],
)
def test_libsvm_errors_name_file_and_line(tmp_path, line, says):
    with pytest.raises(DataError) as error:
        libsvm(tmp_path / "bad.txt", f"0 qid:0 1:1\n1 qid:z 4:0\n{line}\n", num_features=4)
    assert str(error.value).startswith(f"{tmp_path / 'bad.txt'}:3: ")
    assert any(part in str(error.value) for part in says.split("|"))


def test_libsvm_lines_that_cannot_be_used_are_left_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(
        b"1 qid:1 1:1\nx qid:1 1:1\n0 qid:2 2:1\n1 qid:1 1:1\n2 qid:2 1:1\n\xff\n1 qid:3 1:z\n1 qid:4 1:inf\n"
    )
    report = Report("skip")
    got = list(read_lists(LibSVM(files={"train": [path]}), [path], report))
    assert [(made.query_id, made.labels.tolist()) for made in got] == [("1", [1]), ("2", [0, 2])]
    assert report.skipped == {
        "bad label": 1,
        "lines of a query apart": 1,
        "non-UTF-8 text": 1,
        "malformed line": 1,
        "non-finite number": 1,
    }


def test_libsvm_index_that_no_vector_holds(tmp_path):
    text = "1 qid:1 3:1\n0 qid:1 1000001:1\n"
    with pytest.raises(
        DataError, match=r"a\.txt:2: \"1000001:1\"; expected .* from 1 to 3 \(num_features, .* 1,000,000\)"
    ):
        libsvm(tmp_path / "a.txt", text)
    (made,) = libsvm(tmp_path / "b.txt", "1 qid:1 1000000:1\n")
    assert made.features["features"].shape == (1, 1_000_000)


def test_libsvm_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="is not UTF-8"):
        libsvm(tmp_path / "bad.txt", b"1 qid:\xff 1:1\n")
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read \(No such file"):
        list(read_lists(LibSVM(files={"train": ["gone.txt"]}), [tmp_path / "gone.txt"]))


def test_libsvm_round_trip_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    lists = []
    for number in range(5):
        n = int(rng.integers(1, 6))
        table = (rng.standard_normal((n, 7)) * 10.0 ** rng.integers(-20, 20, (n, 7))).astype(np.float32)
        table[rng.random((n, 7)) < 0.2] = np.nan
        lists.append(
            RawList(
                f"{7 * number}",
                {},
                rng.integers(0, 5, n).astype(np.float32),
                np.ones(n, np.float32),
                {"features": table},
            )
        )
    write_libsvm(lists, tmp_path / "out.txt")
    got = list(read_lists(LibSVM(files={"train": ["x"]}, num_features=7), [tmp_path / "out.txt"]))
    assert_same(got, lists)
    assert (tmp_path / "out.txt").read_text("utf-8").startswith("# features: 1-7 features; NULL is missing\n")


def test_libsvm_of_ids_that_are_no_numbers_is_what_others_read(tmp_path):
    from sklearn.datasets import load_svmlight_file

    ones = np.ones(2, np.float32)
    features = {"clicks": np.array([1, 2], np.float32), "age": np.array([3, 4], np.float32)}
    write_libsvm([RawList(query, {}, ones, ones, features) for query in ("q9", "7")], tmp_path / "out.txt")
    lines = (tmp_path / "out.txt").read_text("utf-8").splitlines()
    assert lines[:2] == ["# features: 1 clicks, 2 age; NULL is missing", "1 qid:1 1:1 2:3 # q9"]
    table, _, queries = load_svmlight_file(str(tmp_path / "out.txt"), query_id=True)
    assert queries.tolist() == [1, 1, 2, 2]
    assert table.toarray().tolist() == [[1, 3], [2, 4], [1, 3], [2, 4]]
    with pytest.raises(DataError, match='query id "q9": is no number, and those before it were'):
        write_libsvm([RawList(query, {}, ones, ones, features) for query in ("7", "q9")], tmp_path / "out.txt")


def test_libsvm_cannot_hold_text_or_spaced_ids(tmp_path):
    ones = np.ones(1, np.float32)
    with pytest.raises(DataError, match='feature "title" is text'):
        write_libsvm([RawList("q", {}, ones, ones, {"title": np.array([b"x"], object)})], tmp_path / "out.txt")
    with pytest.raises(DataError, match="without white space"):
        write_libsvm([RawList("a b", {}, ones, ones, {})], tmp_path / "out.txt")
    assert list(tmp_path.iterdir()) == []  # nothing half-written stays


@pytest.mark.parametrize(("kind", "write"), [("elwc", write_elwc), ("sequence_example", write_sequence_example)])
def test_record_round_trip(tmp_path, kind, write):
    write(two_lists(), tmp_path / "lists.tfrecord")
    labels = records(kind, weight="weight", query_text="query")
    assert_same(list(read_lists(labels, [tmp_path / "lists.tfrecord"])), two_lists())
    with_ones = list(read_lists(records(kind), [tmp_path / "lists.tfrecord"]))
    np.testing.assert_array_equal(with_ones[0].weights, [1, 1])
    assert with_ones[0].query == {}


def test_tf_ranking_parses_both_forms(tmp_path):
    from tfmmrank.stack import tf, tfr

    context = {"query_id": tf.io.FixedLenFeature([], tf.string), "query": tf.io.FixedLenFeature([], tf.string, b"")}
    example = {
        "label": tf.io.FixedLenFeature([], tf.float32, -1.0),
        "weight": tf.io.FixedLenFeature([], tf.float32, 0.0),
        "price": tf.io.FixedLenFeature([], tf.float32, 0.0),
        "vector": tf.io.FixedLenFeature([3], tf.float32, [0.0] * 3),
    }
    parsers = {
        "elwc": tfr.data.parse_from_example_list,
        "sequence_example": tfr.data.parse_from_sequence_example,
    }
    for kind, parse in parsers.items():
        FORMATS[kind](two_lists(), tmp_path / kind)
        serialized = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / kind))]
        assert len(serialized) == 2
        if kind == "sequence_example":  # its parser takes neither scalars nor more than one default
            defaults = {"label": (1, -1.0), "weight": (1, 0.0), "price": (1, 0.0), "vector": (3, 0.0)}
            example = {name: tf.io.FixedLenFeature([n], tf.float32, [value]) for name, (n, value) in defaults.items()}
        parsed = parse(tf.constant(serialized), list_size=3, context_feature_spec=context, example_feature_spec=example)
        flat = {name: value.numpy() for name, value in parsed.items()}
        assert flat["query_id"].reshape(-1).tolist() == [b"q1", b"q2"]
        assert flat["query"].reshape(-1)[0].decode() == "红色 shirt"
        np.testing.assert_array_equal(flat["label"].reshape(2, 3), [[2, 0, -1], [1, -1, -1]])
        np.testing.assert_array_equal(flat["weight"].reshape(2, 3), [[1, 0.5, 0], [1, 0, 0]])
        np.testing.assert_array_equal(flat["vector"][0, :2], [[1, 2, 3], [4, 5, 6]])
        assert np.isnan(flat["price"].reshape(2, 3)[0, 1])


def test_reads_what_tensorflow_writes(tmp_path):
    """Whole numbers, lacking features and no query id: as others write them."""
    from tfmmrank.stack import tf

    def feature(*values):
        whole = all(isinstance(value, int) for value in values)
        if whole:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    sequence = tf.train.SequenceExample(
        context=tf.train.Features(feature={"qid": feature(42)}),
        feature_lists=tf.train.FeatureLists(
            feature_list={
                "relevance": tf.train.FeatureList(feature=[feature(3), feature(0)]),
                "price": tf.train.FeatureList(feature=[feature(2.5), tf.train.Feature()]),
            }
        ),
    )
    with tf.io.TFRecordWriter(str(tmp_path / "s")) as writer:
        writer.write(sequence.SerializeToString())
    labels = records("sequence_example", features={"price": 1}, label="relevance")
    (got,) = read_lists(labels, [tmp_path / "s"])
    assert got.query_id == "42"
    np.testing.assert_array_equal(got.labels, [3, 0])
    np.testing.assert_array_equal(got.features["price"], [2.5, np.nan])


def test_record_errors(tmp_path):
    path = tmp_path / "lists.tfrecord"
    write_elwc(two_lists(), path)

    def message(labels: ExampleLists) -> str:
        with pytest.raises(DataError) as error:
            list(read_lists(labels, [path]))
        assert str(path) in str(error.value)
        return str(error.value)

    assert 'no item has a label "labels"; did you mean "label"?' in message(records("elwc", label="labels"))
    assert 'no item has a feature "prise"; did you mean "price"?' in message(records("elwc", features={"prise": 1}))
    assert 'record 1: item 1: feature "vector" has 3 numbers; expected 2' in message(
        records("elwc", features={"vector": 2})
    )
    assert "record 1" in message(records("sequence_example"))
    bad = two_lists()
    bad[1].labels[0] = -1
    write_elwc(bad, path)
    assert 'record 2: item 1: label "label" is [-1.0]; expected one finite number' in message(records("elwc"))
    path.write_bytes(path.read_bytes()[:-3])
    assert "record 2 is cut short or damaged" in message(records("elwc"))
    path.write_text("not a TFRecord file at all")
    assert "is this a TFRecord file?" in message(records("elwc"))
    path.unlink()
    assert "cannot be read" in message(records("elwc"))


def spoilt(path: Path, *spoil) -> Path:
    """Two lists as ELWC, each changed by its function."""
    write_elwc(two_lists(), path)
    records = list(read_records(path))
    with open(path, "wb") as file:
        for record, change in zip(records, spoil, strict=True):
            message = ExampleListWithContext.FromString(record)
            change(message)
            write_record(file, message.SerializeToString())
    return path


def add_record(path: Path, record: bytes) -> Path:
    with open(path, "ab") as file:
        write_record(file, record)
    return path


def same(message) -> None:
    """Leaves it."""


def test_items_and_records_that_cannot_be_used_are_left_out(tmp_path):
    def label(message):
        message.examples[0].features.feature["label"].float_list.value[0] = -1

    path = spoilt(tmp_path / "lists", label, same)
    content = path.read_bytes()
    add_record(path, b"\xff\xff\xff")
    report = Report("skip")
    got = list(read_lists(records("elwc"), [path], report))
    assert [made.labels.tolist() for made in got] == [[0], [1]]
    np.testing.assert_array_equal(got[0].features["vector"], [[4, 5, 6]])
    assert report.skipped == {"bad label": 1, "damaged record": 1}
    with pytest.raises(DataError, match=r"record 3: is no ExampleListWithContext .*; check labels\.kind"):
        list(read_lists(records("elwc"), [add_record(spoilt(path, same, same), b"\xff\xff\xff")]))
    path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    report = Report("skip")
    assert [made.query_id for made in read_lists(records("elwc"), [path], report)] == ["q2"]
    assert report.skipped == {"damaged record": 1}
    path.write_bytes(content[:-3])  # what is cut short may have lost any number of records
    with pytest.raises(DataError, match="record 2 is cut short or damaged"):
        list(read_lists(records("elwc"), [path], Report("skip")))


def test_feature_of_a_wrong_kind_costs_the_item(tmp_path):
    def spoil(message):
        message.examples[0].features.feature["price"].bytes_list.value.append(b"9")
        message.examples[1].features.feature["vector"].float_list.value.append(1)

    report = Report("skip")
    path = spoilt(tmp_path / "lists", spoil, same)
    assert [len(made) for made in read_lists(records("elwc"), [path], report)] == [0, 1]
    assert report.skipped == {"bad feature": 2}


def test_misspelt_names_are_found_after_an_empty_list(tmp_path):
    path = spoilt(tmp_path / "lists", lambda message: message.ClearField("examples"), same)
    for option in ({"features": {"prise": 1}}, {"label": "lable"}, {"weight": "wieght"}):
        with pytest.raises(DataError, match="record 2: no item has a .*; did you mean"):
            list(read_lists(records("elwc", **option), [path], Report("skip")))


def test_query_text(tmp_path):
    path = spoilt(tmp_path / "lists", same, same)
    with pytest.raises(
        DataError, match=r'context feature "qeury" \(labels\.query_text\); did you mean "query"\?; they have'
    ):
        list(read_lists(records("elwc", query_text="qeury"), [path], Report("skip")))

    def latin(message):
        message.context.features.feature["query"].bytes_list.value[0] = b"caf\xe9"

    report = Report("skip")
    path = spoilt(path, latin, same)
    assert [made.query_id for made in read_lists(records("elwc", query_text="query"), [path], report)] == ["q2"]
    assert report.skipped == {"non-UTF-8 text": 1}
    with pytest.raises(DataError, match=r'record 1: context feature "query": b\'caf\\xe9\' is not UTF-8'):
        list(read_lists(records("elwc", query_text="query"), [path]))

    def number(message):
        message.context.features.feature["query"].float_list.value.append(1)

    def words(message):
        message.context.features.feature["query"].bytes_list.value.append(b"more")

    for spoil, found in ((number, "a float_list"), (words, "2 values in a bytes_list")):
        path = spoilt(path, spoil, same)
        with pytest.raises(DataError, match=rf'context feature "query" .* holds {found}; expected one text'):
            list(read_lists(records("elwc", query_text="query"), [path], Report("skip")))


@pytest.mark.data
def test_mq2008_from_its_raw_files():
    folder = data_folder() / "mq2008"
    if not folder.is_dir():
        pytest.skip(f"no evaluation data at {folder}; set TFMMRANK_DATA")
    files = [folder / f"S{k}.txt" for k in range(1, 6)]
    lists = items = 0
    grades: set[float] = set()
    for made in read_lists(LibSVM(files={"train": files}, num_features=46), files):
        lists += 1
        items += len(made)
        grades |= set(made.labels.tolist())
        assert made.features["features"].shape == (len(made), 46)
    assert (lists, items, grades) == (784, 15211, {0.0, 1.0, 2.0})
