import json

import numpy as np
import pytest

from tfmmrank.fusion import fusions
from tfmmrank.precision import MIXED, policy
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens

B, L, D = 2, 5, 16


def make(rng, with_query=True):
    def tokens(*shape):
        mask = rng.random(shape) < 0.7
        return Tokens(tf.constant(rng.normal(size=(*shape, D)), tf.float32), tf.constant(mask))

    query = {"query": tokens(B, 4)} if with_query else {}
    return query, {"title": tokens(B, L, 6), "image": tokens(B, L, 1), "behaviour": tokens(B, L, 1)}


@pytest.fixture(params=list(fusions))
def fusion(request):
    return fusions[request.param](dim=D)


def test_shape_and_finite_without_any_modality(fusion, rng):
    query, item = make(rng)
    assert fusion(query, item).shape == (B, L, D)
    nothing = {name: Tokens(t.values, tf.zeros_like(t.mask)) for name, t in item.items()}
    no_query = {name: Tokens(t.values, tf.zeros_like(t.mask)) for name, t in query.items()}
    assert np.isfinite(fusion(no_query, nothing).numpy()).all()


def test_what_a_mask_hides_does_not_matter(fusion, rng):
    query, item = make(rng)
    out = fusion(query, item)

    def junk(tokens):
        return Tokens(tf.where(tokens.mask[..., None], tokens.values, 1e6), tokens.mask)

    again = fusion({n: junk(t) for n, t in query.items()}, {n: junk(t) for n, t in item.items()})
    np.testing.assert_allclose(out, again, atol=1e-5)


def test_more_padding_changes_nothing(fusion, rng):
    query, item = make(rng)
    out = fusion(query, item)

    def longer(tokens):
        values = tf.concat([tokens.values, 9 * tf.ones_like(tokens.values)], -2)
        return Tokens(values, tf.concat([tokens.mask, tf.zeros_like(tokens.mask)], -1))

    again = fusion({n: longer(t) for n, t in query.items()}, {n: longer(t) for n, t in item.items()})
    np.testing.assert_allclose(out, again, atol=1e-5)


def test_permuting_items_permutes_vectors(fusion, rng):
    query, item = make(rng)
    order = rng.permutation(L)
    permuted = {
        n: Tokens(tf.gather(t.values, order, axis=1), tf.gather(t.mask, order, axis=1)) for n, t in item.items()
    }
    np.testing.assert_allclose(tf.gather(fusion(query, item), order, axis=1), fusion(query, permuted), atol=1e-5)


def test_every_query_alone_equals_the_batch(fusion, rng):
    query, item = make(rng)
    whole = fusion(query, item)
    for b in range(B):
        one = fusion(
            {n: Tokens(t.values[b : b + 1], t.mask[b : b + 1]) for n, t in query.items()},
            {n: Tokens(t.values[b : b + 1], t.mask[b : b + 1]) for n, t in item.items()},
        )
        np.testing.assert_allclose(whole[b : b + 1], one, atol=1e-5)


def test_works_without_a_query(fusion, rng):
    query, item = make(rng, with_query=False)
    assert np.isfinite(fusion(query, item).numpy()).all()


def test_gradients_are_finite_and_xla_agrees(fusion, rng):
    query, item = make(rng)
    fusion(query, item)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fusion(query, item, training=True) ** 2)
    gradients = [g for g in tape.gradient(loss, fusion.trainable_variables) if g is not None]
    assert gradients
    assert all(np.isfinite(tf.convert_to_tensor(g).numpy()).all() for g in gradients)
    compiled = tf.function(lambda q, i: fusion(q, i), jit_compile=True)(query, item)
    np.testing.assert_allclose(fusion(query, item), compiled, atol=1e-4)  # XLA fuses, and so rounds, differently


def test_mixed_precision_is_near_float32_and_takes_a_step(fusion, rng):
    query, item = make(rng)
    expected = fusion(query, item).numpy()
    query, item = (
        {name: Tokens(tf.cast(tokens.values, tf.bfloat16), tokens.mask) for name, tokens in side.items()}
        for side in (query, item)
    )
    with policy(MIXED):
        twin = type(fusion).from_config(fusion.get_config())
        twin(query, item)
    twin.set_weights(fusion.get_weights())
    found = twin(query, item)
    assert found.dtype == tf.bfloat16
    difference = np.abs(tf.cast(found, tf.float32).numpy() - expected) / expected.std()
    # bfloat16 keeps 8 bits: a few layers, each off by up to 0.4%. Observed: 3.4% at most, 0.6% in the mean.
    assert difference.max() < 0.08
    assert difference.mean() < 0.015
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(twin(query, item, training=True), tf.float32) ** 2)
    gradients = tape.gradient(loss, twin.trainable_variables)
    keras.optimizers.SGD(1e-3).apply_gradients(
        (gradient, weight) for gradient, weight in zip(gradients, twin.trainable_variables, strict=True)
        if gradient is not None
    )  # fmt: skip
    for weight in twin.trainable_variables:
        assert weight.dtype == tf.float32
        assert np.isfinite(weight.numpy()).all()


def test_config_round_trip(fusion):
    again = type(fusion).from_config(json.loads(json.dumps(fusion.get_config())))
    assert again.get_config() == fusion.get_config()


def test_sum_mean_max_min_by_hand():
    vectors = tf.constant([[[[1.0, 2.0], [3.0, -4.0], [100.0, 100.0]]]])
    present = tf.constant([[[True, True, False]]])
    expected = {"sum": [4, -2], "mean": [2, -1], "max": [3, 2], "min": [1, -4]}
    for name, value in expected.items():
        out = fusions[name](dim=2).combine(vectors, present, None, ["a", "b", "c"])
        np.testing.assert_allclose(out[0, 0], value)


def test_gate_follows_the_query(rng):
    query, item = make(rng)
    fusion = fusions["gated"](dim=D)
    before = fusion(query, item).numpy()
    fusion._gate.kernel.assign(rng.normal(size=fusion._gate.kernel.shape).astype(np.float32))
    assert np.abs(before - fusion(query, item).numpy()).max() > 1e-3
