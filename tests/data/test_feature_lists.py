"""Lists that carry their features: LETOR and TF-Ranking files, without a catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from tfmmrank.data import DataError, feature_lists, prepare
from tfmmrank.schema import Recipe


@dataclass
class RawList:
    query_id: str
    labels: np.ndarray
    features: dict[str, np.ndarray]
    query: dict[str, bytes] = field(default_factory=dict)

    @property
    def weights(self) -> np.ndarray:
        return np.full(len(self.labels), 0.5, np.float32)


def one(query_id, labels, text=None, width=3):
    n = len(labels)
    features = {
        "dense": np.arange(n * width, dtype=np.float32).reshape(n, width),
        "bm25": np.arange(n, dtype=np.float32),
    }
    return RawList(query_id, np.array(labels, np.float32), features, {} if text is None else {"query": text.encode()})


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Prepares what a stand-in reader gives for each split; reading the formats is tested elsewhere."""

    def run(lists, **data):
        def read_lists(labels, files, report):
            return iter(lists[files[0].stem] if files else [])

        monkeypatch.setattr(feature_lists, "read_lists", read_lists)
        for split in lists:
            (tmp_path / f"{split}.tfrecord").write_bytes(b"x")
        labels = {
            "kind": "elwc",
            "files": {split: [f"{split}.tfrecord"] for split in lists},
            "features": {"dense": 3, "bm25": 1},
            "query_text": "text",
        }
        model = {"towers": {"features": {"kind": "behaviour", "side": "slot", "columns": ["bm25"]}}}
        recipe = Recipe.from_dict({"data": {"labels": labels, **data}, "model": model}, root=tmp_path)
        return prepare(recipe, tmp_path / "out", progress=False)

    return run


def test_lists_without_a_catalogue(read):
    data = read({"train": [one("a", [1, 0], "red"), one("b", [2, 0, 1])], "test": [one("c", [0, 1], "blue")]})
    assert data.meta["num_items"] == len(data.catalogue) == 0
    assert (data.item_columns, data.slot_columns) == ({}, {"dense": 3, "bm25": 1})
    assert data.splits == ["train", "test"]
    lists = data.lists("train")
    assert list(lists.queries["query"]) == [b"red", b""]
    np.testing.assert_array_equal(lists.item_rows, [-1] * 5)
    np.testing.assert_array_equal(lists.labels, np.float32([1, 0, 2, 0, 1]))
    np.testing.assert_array_equal(lists.weights, np.full(5, 0.5, np.float32))
    np.testing.assert_array_equal(lists.slots["bm25"], np.float32([0, 1, 0, 1, 2]))
    np.testing.assert_array_equal(lists.slots["dense"][2:], np.arange(9, dtype=np.float32).reshape(3, 3))
    assert data.meta["report"]["read"] == {"lists": 3}


def test_empty_lists_and_lists_of_one_grade(read):
    lists = {"train": [one("a", [1, 0]), one("b", []), one("c", [2, 2])]}
    with pytest.raises(DataError, match=r'labels\.files\.train: list "b": has no item; expected at least one'):
        read(lists)
    data = read(lists, on_bad_row="skip")
    assert data.meta["report"]["skipped"] == {"empty list": 1}
    assert data.meta["report"]["noted"] == {"list with one grade only": 1}
    assert list(data.lists("train").query_ids) == ["a", "c"]


def test_a_text_in_two_splits_is_refused(read):
    with pytest.raises(
        DataError, match='query text "red" is in split test as query "b" and in split train as query "a"'
    ):
        read({"train": [one("a", [1, 0], "Red")], "test": [one("b", [1, 0], " red")]})


def test_a_query_id_in_two_splits_is_refused(read):
    lists = {"train": [one("a", [1, 0])], "test": [one("b", [1, 0]), one("a", [0, 1])]}
    for policy in ("fail", "skip"):
        with pytest.raises(DataError, match='test: list "a": query id is in splits train and test; expected one side'):
            read(lists, on_bad_row=policy)


def test_a_query_id_given_twice_is_a_bad_row(read):
    lists = {"train": [one("a", [1, 0], "red"), one("a", [0, 1], "blue")]}
    with pytest.raises(DataError, match='list "a": stands in an earlier list; expected ids that are unique'):
        read(lists)
    data = read(lists, on_bad_row="skip")
    assert data.meta["report"]["skipped"] == {"duplicate query id": 1}
    assert data.meta["report"]["read"] == {"lists": 2}
    assert list(data.lists("train").labels) == [1, 0]


def test_lists_without_an_id_get_one_that_no_split_shares(read):
    data = read({"train": [one("", [1, 0]), one("", [2, 0])], "test": [one("", [1, 0])]})
    assert [list(data.lists(split).query_ids) for split in ("train", "test")] == [["train-1", "train-2"], ["test-1"]]


def test_empty_texts_are_noted_but_not_of_lists_left_out(read):
    data = read({"train": [one("a", [1, 0], ""), one("b", [], ""), one("c", [1, 0], "x")]}, on_bad_row="skip")
    assert data.meta["report"]["noted"] == {"empty text in text": 1}
    assert data.meta["report"]["read"] == {"lists": 3}


def libsvm(folder, files, **labels):
    model = {"towers": {"features": {"kind": "behaviour", "side": "slot", "columns": ["features"]}}}
    content = {"labels": {"kind": "libsvm", "files": files, **labels}, "on_bad_row": "skip"}
    return prepare(Recipe.from_dict({"data": content, "model": model}, root=folder), folder / "o", progress=False)


def test_one_width_for_all_splits(tmp_path):
    (tmp_path / "a.txt").write_text("1 qid:1 1:1\n0 qid:1 2:1\n")
    (tmp_path / "b.txt").write_text("1 qid:2 5:1\nx qid:2 1:1\n")
    data = libsvm(tmp_path, {"train": ["a.txt"], "test": ["b.txt"]})
    assert data.slot_columns == {"features": 5}
    assert data.lists("train").slots["features"].shape == (2, 5)
    assert data.meta["report"]["skipped"] == {"bad label": 1}


def test_files_that_are_empty_or_listed_twice(tmp_path):
    (tmp_path / "a.txt").write_text("1 qid:1 1:1\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    for other in ("a.txt", "link.txt", "./a.txt"):
        with pytest.raises(DataError, match=r"is listed twice, in labels\.files\.train and labels\.files\.test"):
            libsvm(tmp_path, {"train": ["a.txt"], "test": [other]})
    with pytest.raises(DataError, match=r"empty\.txt: is empty, 0 bytes \(labels\.files\.test\)"):
        libsvm(tmp_path, {"train": ["a.txt"], "test": ["empty.txt"]})


def test_missing_file(tmp_path, read):
    recipe = {"kind": "libsvm", "files": {"train": ["none.txt"]}}
    model = {"towers": {"features": {"kind": "behaviour", "side": "slot", "columns": ["features"]}}}
    with pytest.raises(DataError, match=r"none\.txt: there is no such file \(labels\.files\.train\)"):
        prepare(
            Recipe.from_dict({"data": {"labels": recipe}, "model": model}, root=tmp_path),
            tmp_path / "o",
            progress=False,
        )
