"""Lists on disk: what TensorFlow and TF-Ranking read of them, and what comes back into memory."""

from __future__ import annotations

import numpy as np
import pytest

from tfmmrank.data import prepare
from tfmmrank.data.example_lists import read_records, serialize_list, write_record
from tfmmrank.data.lists import ListWriter, read_lists_of
from tfmmrank.stack import tf, tfr

CONTEXT = {"query_id": b"q1", "query": "红色".encode(), "hour": 9.5}
EXAMPLES = [
    {"item_row": 3, "label": 2.0, "weight": 1.0, "past_ctr": 0.25, "wide": [1.0, 2.0]},
    {"item_row": -1, "label": 0.0, "weight": 0.5, "past_ctr": float("nan"), "wide": [3.0, 4.0]},
]


def test_messages_are_tensorflows_own():
    from tensorflow_serving.apis import input_pb2

    parsed = input_pb2.ExampleListWithContext.FromString(serialize_list(CONTEXT, EXAMPLES))

    def plain(example):
        kinds = {"bytes_list": list, "float_list": list, "int64_list": list}
        return {
            name: list(getattr(feature, feature.WhichOneof("kind")).value)
            for name, feature in example.features.feature.items()
            if feature.WhichOneof("kind") in kinds
        }

    assert plain(parsed.context) == {"query_id": [b"q1"], "query": ["红色".encode()], "hour": [9.5]}
    assert plain(parsed.examples[0]) == {
        "item_row": [3], "label": [2.0], "weight": [1.0], "past_ctr": [0.25], "wide": [1.0, 2.0],
    }  # fmt: skip
    assert plain(parsed.examples[1])["item_row"] == [-1]


@pytest.mark.parametrize("records", [[], [b""], [b"a", b"", bytes(range(256)) * 1000]])
def test_records_are_framed_as_tensorflow_frames_them(tmp_path, records):
    with open(tmp_path / "ours", "wb") as file:
        for record in records:
            write_record(file, record)
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert list(read_records(tmp_path / "ours")) == records


def test_a_record_file_that_is_cut_short(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        write_record(file, b"one")
        write_record(file, b"two")
    content = (tmp_path / "file").read_bytes()
    for length in range(len(content) // 2 + 1, len(content)):
        (tmp_path / "file").write_bytes(content[:length])
        with pytest.raises(ValueError, match="record 2"):
            list(read_records(tmp_path / "file"))


def test_tf_ranking_reads_prepared_lists(shop):
    data = prepare(shop.recipe(), shop.folder / "out", progress=False)
    files = sorted(str(path) for path in (data.path / "lists").glob("train-*.tfrecord"))
    parsed = [
        tfr.data.parse_from_example_list(
            records,
            list_size=4,
            context_feature_spec={
                "query_id": tf.io.FixedLenFeature([1], tf.string),
                "query": tf.io.FixedLenFeature([1], tf.string),
            },
            example_feature_spec={
                "item_row": tf.io.FixedLenFeature([1], tf.int64, default_value=[-1]),
                "label": tf.io.FixedLenFeature([1], tf.float32, default_value=[-1.0]),
                "weight": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        for records in tf.data.TFRecordDataset(files).batch(2)
    ]
    assert len(parsed) == 1
    (batch,) = parsed
    assert batch["query_id"].numpy().ravel().tolist() == [b"q1", b"q2"]
    assert batch["query"].numpy().ravel().tolist() == [b"red shirt", "蓝色".encode()]
    np.testing.assert_array_equal(batch["item_row"][..., 0], [[0, 3, 1, -1], [1, 0, -1, -1]])
    np.testing.assert_array_equal(batch["label"][..., 0], [[3, 1, 0, -1], [3, 0, -1, -1]])
    np.testing.assert_array_equal(batch["weight"][..., 0], [[1, 1, 1, 0], [1, 1, 0, 0]])


def test_what_is_written_is_read(tmp_path, monkeypatch, rng):
    monkeypatch.setattr("tfmmrank.data.lists.SHARD_LISTS", 7)
    lengths = rng.integers(1, 9, 30)
    writer = ListWriter(tmp_path, "train")
    written = []
    for number, length in enumerate(lengths):
        one = {
            "rows": rng.integers(0, 2**31 - 1, length),
            "labels": rng.integers(0, 5, length).astype(np.float32),
            "weights": rng.random(length).astype(np.float32),
            "slots": {"ctr": rng.random(length).astype(np.float32), "wide": rng.random((length, 3)).astype(np.float32)},
        }
        one["slots"]["ctr"][0] = np.nan
        writer.write(f"查询{number}", {"query": b"x" * number, "hour": float(number)}, *one.values())
        written.append(one)
    writer.close()
    assert len(list(tmp_path.iterdir())) == 5  # 30 lists, 7 a shard
    assert writer.counts == {"lists": 30, "rows": int(lengths.sum()), "max_list_size": int(lengths.max())}
    lists = read_lists_of(tmp_path, "train", writer.counts, {"query": "text", "hour": "numeric"}, {"ctr": 1, "wide": 3})
    assert list(lists.query_ids) == [f"查询{number}" for number in range(30)]
    assert list(lists.queries["query"]) == [b"x" * number for number in range(30)]
    np.testing.assert_array_equal(lists.queries["hour"], np.arange(30, dtype=np.float32))
    np.testing.assert_array_equal(lists.offsets, np.concatenate([[0], np.cumsum(lengths)]))
    np.testing.assert_array_equal(lists.item_rows, np.concatenate([one["rows"] for one in written]))
    np.testing.assert_array_equal(lists.labels, np.concatenate([one["labels"] for one in written]))
    np.testing.assert_array_equal(lists.weights, np.concatenate([one["weights"] for one in written]))
    for name, values in lists.slots.items():
        np.testing.assert_array_equal(values, np.concatenate([one["slots"][name] for one in written]))
    assert lists.slots["wide"].shape == (lengths.sum(), 3)
    np.testing.assert_array_equal(lists.labels[lists.of(4)], written[4]["labels"])


def test_a_missing_shard_is_found_out(tmp_path):
    writer = ListWriter(tmp_path, "train")
    writer.write("q", {}, [0], [1.0], [1.0], {})
    writer.close()
    (tmp_path / "train-00000.tfrecord").unlink()
    with pytest.raises(ValueError, match=r"has 0 lists and 0 rows, and meta\.json says 1 and 1"):
        read_lists_of(tmp_path, "train", writer.counts, {}, {})
