"""A SavedModel that takes milliseconds to write and load, with a signature for every API."""

from __future__ import annotations

from pathlib import Path

from tfmmrank.stack import tf


def write_version(directory: Path, scale: float = 2.0) -> Path:
    """Writes a version.

    Signatures: ``serving_default``: ``x [B, L]`` to ``y = scale * x`` and the batch's row sums ``total [B]``;
    ``wait`` and ``go``: ``x [B]`` to ``y = x``, where each ``wait`` needs one ``go`` to end; and of serialized
    tf.Examples with floats ``x`` and ``bias``, all from one tensor: ``regress``: ``scale * x + bias``; ``classify``:
    classes low and high with scores -value and value; ``labels``: the classes alone; ``other``: as ``regress``, from
    a tensor of its own.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None])
        factor = v1.get_variable("factor", initializer=scale, use_resource=True)
        signatures = {"serving_default": _predict({"x": x}, {"y": factor * x, "total": tf.reduce_sum(factor * x, 1)})}

        row = v1.placeholder(tf.float32, [None])
        queue = tf.queue.FIFOQueue(100, tf.float32, [[]], shared_name="gate")
        signatures["wait"] = _predict({"x": row}, {"y": row + queue.dequeue()})
        with tf.control_dependencies([queue.enqueue(0.0)]):
            signatures["go"] = _predict({"x": row}, {"y": tf.identity(row)})

        serialized, value = _value_of_examples(factor)
        other, other_value = _value_of_examples(factor)
        classes = tf.tile([["low", "high"]], [tf.size(serialized), 1])
        scores = tf.stack([-value, value], 1)
        build = v1.saved_model
        signatures["regress"] = build.regression_signature_def(serialized, value)
        signatures["other"] = build.regression_signature_def(other, other_value)
        signatures["classify"] = build.classification_signature_def(serialized, classes, scores)
        signatures["labels"] = build.classification_signature_def(serialized, classes, None)
        session.run(v1.global_variables_initializer())
        builder = build.Builder(str(directory))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return directory


def _predict(inputs, outputs):
    return tf.compat.v1.saved_model.predict_signature_def(inputs, outputs)


def _value_of_examples(factor):
    serialized = tf.compat.v1.placeholder(tf.string, [None])
    features = {name: tf.io.FixedLenFeature([], tf.float32, 0.0) for name in ("x", "bias")}
    parsed = tf.io.parse_example(serialized, features)
    return serialized, factor * parsed["x"] + parsed["bias"]
