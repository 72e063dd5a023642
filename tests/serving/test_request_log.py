"""What is logged, what is not, and that a log in trouble harms nobody."""

import hashlib
import hmac
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from tests.conftest import encode_picture
from tfmmrank.data.example_lists import read_records, serialize_list
from tfmmrank.serving.monitoring.log_privacy import PRESENT, Redactor, keyed_hash, read_key
from tfmmrank.serving.monitoring.request_log import LogCounts, RequestLog
from tfmmrank.serving.monitoring.rotating_records import RotatingRecords
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor

KEY = b"0123456789abcdef-a-key"
QUERIES = ["red shoes", "红色 衬衫", ""]


def hashed(column, value):
    """By the definition, with the standard library."""
    return hmac.new(KEY, column.encode() + b"\0" + value.encode(), hashlib.sha256).hexdigest()[:32].encode()


def messages(message=wire, query="red shoes"):
    """A request of three lists, and its answer."""
    queries = [query, *QUERIES[1:]]
    request, response = message.PredictRequest(), message.PredictResponse()
    write_tensor(request.inputs["query"], queries)
    write_tensor(request.inputs["user age"], np.array([31, np.nan, 40], np.float32))
    write_tensor(request.inputs["item_ids"], [["i1", "商品"], ["i2", ""], ["i1", ""]])
    write_tensor(request.inputs["num_items"], np.array([2, 1, 1], np.int32))
    write_tensor(response.outputs["scores"], np.array([[1.5, -2], [0.25, -1e9], [3, -1e9]], np.float32))
    write_tensor(response.outputs["known"], np.array([[True, False], [True, False], [True, False]]))
    write_tensor(response.outputs["embedding"], np.ones((3, 4), np.float32))
    request.model_spec.name = "shop"
    return request, response


def logged(folder):
    return [
        wire.PredictionLog.FromString(record)
        for file in sorted(folder.glob("*.tfrecord"))
        for record in read_records(file)
    ]


def arrays(log):
    return {name: read_tensor(tensor) for name, tensor in log.predict_log.request.inputs.items()}


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_ids_and_texts_are_hashed_with_the_key():
    kept = arrays(Redactor(KEY).predict_log(*messages()))
    assert kept["query"].tolist() == [hashed("query", "red shoes"), hashed("query", "红色 衬衫"), b""]
    assert kept["item_ids"].tolist() == [
        [hashed("item_ids", "i1"), hashed("item_ids", "商品")], [hashed("item_ids", "i2"), b""],
        [hashed("item_ids", "i1"), b""],
    ]  # fmt: skip
    assert kept["query#text"].tolist() == [[9, 2, 0], [5, 4, 1], [0, 0, 0]]
    assert set(kept) == {"query", "query#text", "user age", "item_ids", "num_items"}
    np.testing.assert_array_equal(kept["user age"], np.array([31, np.nan, 40], np.float32))
    assert keyed_hash(KEY, "query", b"i1") != keyed_hash(KEY, "item_ids", b"i1")
    assert keyed_hash(b"another key of mine", "item_ids", b"i1") != hashed("item_ids", "i1")


def test_ids_are_always_hashed():
    """Whatever bytes they are, and whoever asks for plain text."""
    request = wire.PredictRequest()
    ids = [b"\xff\xd8\xff", b"GIF8", b"a\0b", b"plain", b""]
    write_tensor(request.inputs["item_ids"], np.array([ids], object))
    kept = arrays(Redactor(KEY, plain_text=["item_ids"]).predict_log(request, wire.PredictResponse()))
    assert set(kept) == {"item_ids"}
    assert kept["item_ids"].tolist() == [[keyed_hash(KEY, "item_ids", value) if value else b"" for value in ids]]
    assert len(set(kept["item_ids"][0])) == len(ids)


def test_nothing_of_the_text_is_in_the_bytes():
    record = Redactor(KEY).predict_log(*messages()).SerializeToString()
    for secret in ("red", "shoes", "红色", "衬衫", "商品", "i1", "i2"):
        assert secret.encode() not in record


def test_scores_are_kept_and_vectors_are_not():
    outputs = Redactor(KEY).predict_log(*messages()).predict_log.response.outputs
    assert set(outputs) == {"scores", "known"}
    np.testing.assert_array_equal(read_tensor(outputs["scores"])[:, 0], np.array([1.5, 0.25, 3], np.float32))


def test_plain_text_where_asked_and_nowhere_else():
    request, response = messages()
    write_tensor(request.inputs["title"], [["hat", "coat"]])
    kept = arrays(Redactor(KEY, plain_text=["query"]).predict_log(request, response))
    assert [value.decode() for value in kept["query"]] == QUERIES
    assert kept["title"][0, 0] == hashed("title", "hat")
    assert kept["item_ids"][0, 0] == hashed("item_ids", "i1")
    with pytest.raises(TypeError, match=r'plain_text is "query"; expected names'):
        Redactor(KEY, plain_text="query")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_present_or_missing(form):
    picture = encode_picture((200, 30, 30), (8, 8), form)
    request, response = messages()
    write_tensor(request.inputs["picture"], np.array([[picture, b"", b"\xff\x00 broken", bytes(70_000)]], object))
    log = Redactor(KEY, plain_text=["picture"]).predict_log(request, response)
    assert arrays(log)["picture"].tolist() == [[PRESENT, b"", PRESENT, PRESENT]]
    assert arrays(log)["picture#text"].tolist() == [[[0, 0, 0]] * 4]
    assert picture[:20] not in log.SerializeToString()


def test_serialized_lists_are_present_or_missing():
    request = wire.PredictRequest()
    write_tensor(request.inputs["input_ranking_data"], [serialize_list({"query": b"secret"}, [{"title": b"hat"}])])
    write_tensor(request.inputs["inputs"], [b"plain ascii is text, in a proto"])
    log = Redactor(KEY, ["input_ranking_data", "inputs"]).predict_log(request, wire.PredictResponse())
    assert {name: value.tolist() for name, value in arrays(log).items()} == {
        "input_ranking_data": [PRESENT], "inputs": [PRESENT],
    }  # fmt: skip


def test_empty_lists():
    request = wire.PredictRequest()
    write_tensor(request.inputs["item_ids"], np.empty((1, 0), object))
    write_tensor(request.inputs["title"], np.empty((1, 0), object))
    kept = arrays(Redactor(KEY).predict_log(request, wire.PredictResponse()))
    assert {name: value.shape for name, value in kept.items()} == {
        "item_ids": (1, 0), "title": (1, 0), "title#text": (1, 0, 3),
    }  # fmt: skip


def test_key_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "log.key"
    file.write_bytes(KEY + b"\n")
    assert read_key(file) == KEY
    monkeypatch.setenv("TFMMRANK_LOG_KEY", "another key, long enough")
    assert read_key() == b"another key, long enough"
    assert read_key(file) == KEY
    file.write_bytes(b"short\n")
    with pytest.raises(ValueError, match=r"log\.key: holds a key of 5 bytes; expected at least 16"):
        read_key(file)
    monkeypatch.delenv("TFMMRANK_LOG_KEY")
    with pytest.raises(ValueError, match="set TFMMRANK_LOG_KEY"):
        read_key()
    with pytest.raises(FileNotFoundError):
        read_key(tmp_path / "none")


# -- the log ----------------------------------------------------------------------------------------------------------


def test_a_log_is_tensorflow_servings(tmp_path):
    """Requests as the server has them; the records read by TensorFlow with TF Serving's own classes."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    from tfmmrank.stack import tf

    with RequestLog(tmp_path / "logs", KEY, rate=1) as log:
        for _ in range(3):
            log.record("shop", 7, "rank", *messages(predict_pb2))
    assert log.counts == LogCounts(offered=3, sampled=3, written=3)
    (file,) = (tmp_path / "logs").iterdir()
    assert file.suffix == ".tfrecord"
    records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    assert len(records) == 3
    record = prediction_log_pb2.PredictionLog.FromString(records[0])
    metadata = record.log_metadata
    spec = metadata.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("shop", 7, "rank")
    assert metadata.sampling_config.sampling_rate == 1
    assert list(metadata.saved_model_tags) == ["serve"]
    assert 0 <= tf.timestamp().numpy() - metadata.timestamp_secs < 600
    assert record.predict_log.request.model_spec == spec
    scores = tf.make_ndarray(record.predict_log.response.outputs["scores"])
    np.testing.assert_array_equal(scores[0], np.array([1.5, -2], np.float32))
    ids = tf.make_ndarray(record.predict_log.request.inputs["item_ids"])
    assert ids[0, 0] == hashed("item_ids", "i1")
    assert not record.HasField("classify_log")


def test_a_share_is_kept(tmp_path):
    request, response = messages()
    with RequestLog(tmp_path, KEY, rate=0.25, max_waiting=10_000) as log:
        log._random.seed(3)
        for _ in range(2000):
            log.record("shop", 7, "rank", request, response)
    # A binomial's standard deviation is sqrt(2000 · 0.25 · 0.75) = 19; five of them either way.
    assert 400 < log.counts.sampled < 600
    assert log.counts.offered == 2000
    assert len(logged(tmp_path)) == log.counts.sampled == log.counts.written
    with pytest.raises(ValueError, match="rate is 2"):
        RequestLog(tmp_path, KEY, rate=2)


def test_rate_zero_keeps_nothing_and_makes_no_file(tmp_path):
    with RequestLog(tmp_path, KEY, rate=0) as log:
        log.record("shop", 7, "rank", *messages())
    assert log.counts == LogCounts(offered=1)
    assert list(tmp_path.iterdir()) == []


class Gate:
    """In a log's place for files: holds the writing thread until it is opened."""

    def __init__(self, log):
        self.entered, self.open, self._files = threading.Event(), threading.Event(), log._files
        self.seconds_left, self.complete_if_due, self.close = (
            log._files.seconds_left,
            log._files.complete_if_due,
            log._files.close,
        )

    def write(self, record):
        self.entered.set()
        assert self.open.wait(60)
        self._files.write(record)


def test_a_full_queue_drops_and_counts(tmp_path):
    log = RequestLog(tmp_path, KEY, rate=1, max_waiting=5)
    log._files = gate = Gate(log)
    log.record("shop", 7, "rank", *messages())
    assert gate.entered.wait(60)
    for _ in range(20):  # each returns at once, though the disk hangs
        log.record("shop", 7, "rank", *messages())
    assert log.counts == LogCounts(offered=21, sampled=21, dropped_queue=15)
    gate.open.set()
    log.close()
    assert log.counts == LogCounts(offered=21, sampled=21, written=6, dropped_queue=15)
    log.record("shop", 7, "rank", *messages())
    assert log.counts.dropped_queue == 16  # closed


def test_a_queue_full_of_bytes_drops_and_counts(tmp_path):
    request, response = messages()
    size = request.ByteSize() + response.ByteSize()
    log = RequestLog(tmp_path, KEY, rate=1, max_waiting_bytes=3 * size)
    log._files = gate = Gate(log)
    log.record("shop", 7, "rank", request, response)
    assert gate.entered.wait(60)
    for _ in range(5):
        log.record("shop", 7, "rank", request, response)
    assert log.counts.dropped_queue == 3  # one is being written, two wait
    gate.open.set()
    log.close()
    assert log.counts.written == 3


def test_requests_that_cannot_be_read_are_counted(tmp_path, caplog):
    request, response = messages()
    request.inputs["query"].tensor_shape.dim[0].size = 1  # of three values
    with RequestLog(tmp_path, KEY, rate=1) as log:
        for damaged in (request, request, messages()[0]):
            log.record("shop", 7, "rank", damaged, response)
    assert log.counts == LogCounts(offered=3, sampled=3, written=1, dropped_damaged=2)
    assert caplog.text.count("a request is dropped") == 1


def test_a_folder_that_goes_away_drops_and_counts(tmp_path, caplog):
    folder = tmp_path / "logs"
    with caplog.at_level(logging.WARNING), RequestLog(folder, KEY, rate=1) as log:
        folder.rmdir()
        folder.write_bytes(b"a file in its place")
        log.record("shop", 7, "rank", *messages())
    assert log.counts == LogCounts(offered=1, sampled=1, dropped_disk=1)
    assert f"{folder}: a request is dropped" in caplog.text


def test_a_full_disk_drops_counts_and_leaves_what_was_written_readable(tmp_path):
    """In a process of its own whose files may not grow beyond 3,000 bytes, as on a disk with so much left."""
    code = f"""
        import resource, sys
        from tests.serving.test_request_log import KEY, RequestLog, messages, logged
        from pathlib import Path
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
        folder = Path({str(tmp_path)!r})
        log = RequestLog(folder, KEY, rate=1)
        for _ in range(50):
            log.record("shop", 7, "rank", *messages())
        log.close()
        assert log.counts.written + log.counts.dropped_disk == 50, log.counts
        print(log.counts.written, len(logged(folder)), len(list(folder.iterdir())))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written, readable, files = map(int, done.stdout.split())
    assert 1 < written < 10
    assert (readable, files) == (written, 1)
    assert "a request is dropped" in done.stderr


# -- files ------------------------------------------------------------------------------------------------------------


def names(folder):
    return [path.suffix for path in sorted(folder.iterdir())]


def test_files_are_partial_until_complete(tmp_path):
    files = RotatingRecords(tmp_path / "deep" / "logs", "r", max_bytes=10**6, max_seconds=3600)
    assert list((tmp_path / "deep" / "logs").iterdir()) == []
    files.write(b"one")
    files.write(b"two")
    assert names(files.folder) == [".partial"]
    assert list(read_records(next(files.folder.iterdir()))) == [b"one", b"two"]  # on disk before it is complete
    files.close()
    assert names(files.folder) == [".tfrecord"]
    assert list(read_records(next(files.folder.iterdir()))) == [b"one", b"two"]
    files.close()
    assert len(names(files.folder)) == 1


def test_large_files_are_replaced(tmp_path):
    files = RotatingRecords(tmp_path, "r", max_bytes=50, max_seconds=3600)
    for _ in range(5):
        files.write(bytes(24))  # 40 with the framing: two fill a file
    assert sorted(names(tmp_path)) == [".partial", ".tfrecord", ".tfrecord"]
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [40, 80, 80]


def test_old_files_are_replaced_though_no_request_comes(tmp_path):
    log = RequestLog(tmp_path, KEY, rate=1, max_file_seconds=0.05)
    completed = threading.Event()
    complete = log._files.close
    log._files.close = lambda: (complete(), completed.set())
    log.record("shop", 7, "rank", *messages())
    assert completed.wait(60)
    assert names(tmp_path) == [".tfrecord"]
    log.close()
    assert len(logged(tmp_path)) == 1


def test_what_a_killed_process_left_is_completed(tmp_path):
    code = f"""
        import os, signal
        from tfmmrank.serving.monitoring.rotating_records import RotatingRecords
        files = RotatingRecords({str(tmp_path)!r}, "r", 10**6, 3600)
        for record in (b"one", b"two", b"three"):
            files.write(record)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial"
    os.truncate(left, left.stat().st_size - 1)  # killed a byte earlier
    (tmp_path / "other-1.tfrecord.partial").write_bytes(left.read_bytes())  # not ours
    RotatingRecords(tmp_path, "r", 10**6, 3600)
    assert list(read_records(left.with_suffix(""))) == [b"one", b"two"]
    assert not left.exists()
    assert names(tmp_path) == [".partial", ".tfrecord"]


def test_what_is_being_written_is_left_alone(tmp_path):
    files = RotatingRecords(tmp_path, "r", max_bytes=10**6, max_seconds=3600)
    files.write(b"one")
    (tmp_path / "r-0.tfrecord.partial").touch()  # made a moment ago, perhaps: its writer has not locked it yet
    RotatingRecords(tmp_path, "r", max_bytes=10**6, max_seconds=3600)
    assert names(tmp_path) == [".partial", ".partial"]
    files.write(b"two")
    files.close()
    (file,) = tmp_path.glob("*.tfrecord")
    assert list(read_records(file)) == [b"one", b"two"]


def test_what_cannot_be_completed_keeps_no_log_from_starting(tmp_path, caplog):
    (tmp_path / "requests-0.tfrecord.partial").mkdir()
    with RequestLog(tmp_path, KEY, rate=1) as log:
        log.record("shop", 7, "rank", *messages())
    assert log.counts.written == 1
    assert "requests-0.tfrecord.partial: cannot complete what a killed process left" in caplog.text
