"""A version loaded as TensorFlow Serving loads it."""

import json
import shutil

import numpy as np
import pytest

from tests.serving.small_model import write_version
from tfmmrank.export import RequestError, Servable
from tfmmrank.export.description import DESCRIPTION_FILE, ranker_digest
from tfmmrank.export.warmup import WARMUP_FILE
from tfmmrank.ranker import Ranker
from tfmmrank.serving.server.loaded_version import load_warm
from tfmmrank.stack import tf


def ids(*names):
    return np.array([[name.encode() for name in names]], object)


ASKED = {
    "query": np.array([b"red shirt"], object), "user age": np.array([np.nan], np.float32),
    "season": np.array([b""], object), "item_ids": ids("i0", "i1", "i2"), "num_items": np.array([3], np.int32),
}  # fmt: skip


def test_describe_says_what_the_file_says(servable, served):
    file = json.loads((served.model_dir / "1" / DESCRIPTION_FILE).read_text("utf-8"))
    found = json.loads(servable.run("describe", {"ask": np.array([b""], object)})["description"].item())
    assert found.items() < file.items()
    assert found["num_items"] == 40
    assert found["list_context"] is False
    assert found["columns"]["slot"] == {"past_impressions": 1, "past_ctr": 1, "age_days": 1}
    assert file["ndcg@10"] == 0.5
    assert "classify" in file["signatures"]


def test_a_rankers_digest_outlives_saving_and_tells_rankers_apart(served, tmp_path):
    served.ranker.save_ranker(tmp_path)
    again = Ranker.load_ranker(tmp_path)
    digest = ranker_digest(served.ranker)
    assert ranker_digest(again) == digest
    kernel = again.cross.head.kernel
    kernel.assign(kernel + 1e-7)
    assert ranker_digest(again) != digest


def test_the_fingerprint_is_the_contents(served, servable, tmp_path):
    copy = shutil.copytree(served.model_dir / "1", tmp_path / "5")
    same = Servable(copy)
    same.close()
    assert same.fingerprint == servable.fingerprint
    names = (copy / "assets" / "item_ids.txt").read_text("utf-8")
    (copy / "assets" / "item_ids.txt").write_text(names.replace("i0\n", "j0\n"), "utf-8")
    other = Servable(copy)
    other.close()
    assert other.fingerprint != servable.fingerprint


def test_a_runs_time_is_bounded(servable):
    assert servable.run("rank", ASKED, timeout=60.0)["known"].all()
    long = {**ASKED, "item_ids": np.repeat(ids("i0"), 20_000, 1), "num_items": np.array([20_000], np.int32)}
    with pytest.raises(RequestError, match="[Tt]imed out") as caught:
        servable.run("rank", long, timeout=0.001)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_what_warms_rank_warms_the_default(servable):
    """A session keeps what it prepared for a run by the names of the tensors."""
    assert servable.signatures["serving_default"] == servable.signatures["rank"]


def test_what_one_run_answers_is_optimised_once(tmp_path):
    """A session optimises for each set of tensors that it is asked for; those of stateful signatures stay apart."""
    ran = []
    small = Servable(write_version(tmp_path / "1"))
    run = small._session.run
    small._session.run = lambda tensors, *more, **options: ran.append(tuple(tensors)) or run(tensors, *more, **options)
    x = {"x": np.ones((1, 2), np.float32)}
    assert sorted(small.run("", x)) == ["total", "y"]
    assert sorted(small.run("", x, ["total"])) == ["total"]
    serialized = {"inputs": np.array([b""], object)}
    assert sorted(small.run("classify", serialized)) == ["classes", "scores"]
    assert sorted(small.run("regress", serialized)) == ["outputs"]
    assert len(set(ran)) == 2
    row = {"x": np.zeros(1, np.float32)}
    small.run("go", row)
    small.run("wait", row)
    assert len(set(ran)) == 4
    small.close()


def test_what_another_model_calls_num_items_is_its_own(tmp_path):
    x, z = (tf.TensorSpec([None, None], tf.float32, name) for name in "xz")
    module = tf.Module()
    module.go = tf.function(lambda x, z, num_items: {"y": tf.size(x) + tf.size(z)}).get_concrete_function(
        x, z, tf.TensorSpec([], tf.string, "num_items")
    )
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.go})
    foreign = Servable(tmp_path / "1")
    inputs = {"num_items": np.array(b"many", object)}
    inputs.update(x=np.zeros([2, 3], np.float32), z=np.zeros([1, 5], np.float32))
    assert foreign.run("", inputs)["y"] == 11
    foreign.close()


def test_a_damaged_warmup_file_is_named(served, tmp_path):
    copy = shutil.copytree(served.model_dir / "1", tmp_path / "5")
    (copy / WARMUP_FILE).write_bytes(b"nonsense" * 20)
    with pytest.raises(OSError, match="tf_serving_warmup_requests: is damaged; expected a TFRecord of PredictionLog"):
        load_warm(copy)


def test_inputs_that_do_not_fit_are_named(servable):
    with pytest.raises(RequestError, match=r"Expects arg\[1\] to be int32 but int64 is provided"):
        servable.run("rank", {**ASKED, "num_items": np.array([3])})
    with pytest.raises(RequestError, match=r'input "item_ids" has shape \[3\]; expected \[\?, \?\]'):
        servable.run("rank", {**ASKED, "item_ids": ids("i0", "i1", "i2")[0]})
    sizes = np.array([3, 4], np.int32)  # the graph would answer the second list as unknown
    two = {name: np.repeat(value, 2, 0) for name, value in ASKED.items()} | {"num_items": sizes}
    for call in (servable.run, servable.check):
        with pytest.raises(RequestError, match="input num_items is 4 for list 1; expected 0 to 3"):
            call("rank", two)
        with pytest.raises(RequestError, match=r"input query has shape \[2\]; expected \[1\], to go with input item"):
            call("rank", {**ASKED, "query": two["query"]})
    with pytest.raises(RequestError, match="input tensor alias not found in signature: query"):
        servable.run("describe", {"query": ASKED["query"]})
