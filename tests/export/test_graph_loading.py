"""A SavedModel loaded in steps runs as one loaded at once."""

from __future__ import annotations

import numpy as np
import pytest

from tfmmrank.export import Servable
from tfmmrank.stack import tf


class Prices(tf.Module):
    """Looks words up in a file's table and scales by a variable, with functions that call functions and branch."""

    def __init__(self, file):
        super().__init__()
        self.scale = tf.Variable(3.0)
        init = tf.lookup.TextFileInitializer(file, tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        self.table = tf.lookup.StaticHashTable(init, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def price(self, row):
        return self.scale * tf.cast(row, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, words):
        price = self.price(self.table.lookup(words))
        total = tf.cond(tf.size(words) > 1, lambda: tf.reduce_sum(price), lambda: tf.constant(-1.0))
        doubled = tf.map_fn(lambda one: 2.0 * one, price)
        return {"price": price, "total": total, "doubled": doubled}


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "words.txt").write_text("red\nblue\ngreen\n")
    module = Prices(str(tmp_path / "words.txt"))
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": module.serve})
    (tmp_path / "words.txt").unlink()  # the model brings its own
    return tmp_path / "model"


def test_outputs_are_those_of_tensorflows_own_loader(saved):
    servable = Servable(saved)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        theirs = tf.compat.v1.saved_model.load(session, ["serve"], str(saved)).signature_def["serving_default"]
        for words in ([b"green", b"nope", b"blue"], [b"red"], []):
            feeds = {theirs.inputs["words"].name: np.array(words, object)}
            expected = session.run({name: info.name for name, info in theirs.outputs.items()}, feeds)
            found = servable.run("", {"words": np.array(words, object)})
            assert set(found) == {"price", "total", "doubled"}
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value)
    found = servable.run("", {"words": np.array([b"green", b"blue"], object)})
    assert (found["price"].tolist(), found["total"], found["doubled"].tolist()) == ([6.0, 3.0], 9.0, [12.0, 6.0])
    servable.close()


def test_what_is_no_savedmodel_is_told(saved, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Servable(tmp_path / "nowhere")
    (saved / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(OSError, match="model"):
        Servable(saved)


def test_what_is_damaged_is_told(saved):
    values = next((saved / "variables").glob("*.data*"))
    values.write_bytes(values.read_bytes()[:-2])
    with pytest.raises(OSError, match="model: no SavedModel that can be loaded: "):
        Servable(saved)


def test_a_savedmodel_that_is_not_for_serving_is_told(saved):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = saved / "saved_model.pb"
    model = SavedModel.FromString(file.read_bytes())
    model.meta_graphs[0].meta_info_def.tags[:] = ["train"]
    file.write_bytes(model.SerializeToString())
    with pytest.raises(OSError, match="model: no SavedModel that can be loaded: .*serve"):
        Servable(saved)
