"""Parts of a ranker by themselves, forward and backward: compiled by XLA or not, in bfloat16 or float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.interleaved import interleaved, ratio
from tfmmrank.cross_tower import CrossTower
from tfmmrank.encoders.efficientnet_lite import EfficientNetLite0Encoder
from tfmmrank.fusion import GatedFusion
from tfmmrank.precision import FLOAT32, MIXED, policy
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers import ImageTower, TextTower
from tfmmrank.towers.wordpiece import RESERVED

_Part = tuple[Callable[[], Any], list[Any]]  # a scalar to lower, and the layers whose weights lower it
_Lines = list[tuple[str, str, float]]


def _text() -> _Part:
    vocabulary = [*RESERVED, *(f"word{number}" for number in range(1000))]
    tower = TextTower(["title"], layers=2, dropout=0.0, vocabulary=vocabulary, name="title")
    ids = tf.constant(np.random.default_rng(0).integers(len(RESERVED), len(vocabulary), (256, 24)), tf.int32)
    return lambda: _square(tower({"ids": ids}, training=True).values), [tower]


def _small_cnn() -> _Part:
    tower = ImageTower(["image"], size=64, dropout=0.0, name="image")
    features = {"pixels": _pixels(64, 64), "present": tf.ones([64], tf.bool)}
    return lambda: _square(tower(features, training=True).values), [tower]


def _efficientnet() -> _Part:
    encoder = EfficientNetLite0Encoder(size=64, trainable_blocks=None)
    features = {"pixels": _pixels(8, 64), "present": tf.ones([8], tf.bool)}
    return lambda: _square(encoder(features, training=True).values), [encoder]


def _fusion_and_cross() -> _Part:
    fusion, cross = GatedFusion(dim=64, name="fusion"), CrossTower(dropout=0.0, name="cross")
    rng = np.random.default_rng(0)
    lists, slots = 32, 16

    def tokens(*shape: int) -> Tokens:
        values = tf.constant(rng.normal(size=(*shape, 64)), fusion.compute_dtype)
        return Tokens(values, tf.ones(shape, tf.bool))

    query = {"query": tokens(lists, 8)}
    item = {"title": tokens(lists, slots, 24), "image": tokens(lists, slots, 1), "facts": tokens(lists, slots, 1)}
    mask = tf.ones([lists, slots], tf.bool)
    return (
        lambda: _square(cross(fusion(query, item, training=True), None, mask, training=True)),
        [fusion, cross],
    )


PARTS = {
    "text tower, 2 layers": _text,
    "small CNN at 64 pixels": _small_cnn,
    "EfficientNet-Lite0 at 64 pixels": _efficientnet,
    "gated fusion and cross tower": _fusion_and_cross,
}


def compiled(rounds: int) -> _Lines:
    """How many times longer each part takes when XLA compiles it."""
    return [
        (
            f"xla: {name}",
            "times as long compiled",
            _compare(rounds, _step(make, FLOAT32, jit=True), _step(make, FLOAT32)),
        )
        for name, make in PARTS.items()
    ]


def in_bfloat16(rounds: int) -> _Lines:
    """How many times longer each part takes in mixed precision."""
    return [
        (f"precision: {name}", "times as long in bfloat16", _compare(rounds, _step(make, MIXED), _step(make, FLOAT32)))
        for name, make in PARTS.items()
    ]


def _compare(rounds: int, other: Callable[[], object], usual: Callable[[], object]) -> float:
    seconds = interleaved({"other": other, "usual": usual}, rounds)
    return ratio(seconds["other"], seconds["usual"])


def _step(make: Callable[[], _Part], policy_name: str, jit: bool = False) -> Callable[[], object]:
    """Loss and gradients of a part, in one function."""
    keras.utils.set_random_seed(0)
    with policy(policy_name):
        loss_of, layers = make()
        loss_of()  # makes the weights

    @tf.function(jit_compile=jit)
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of()
        weights = [weight for layer in layers for weight in layer.trainable_weights]
        gradients = [gradient for gradient in tape.gradient(loss, weights) if gradient is not None]
        return loss, [tf.reduce_sum(tf.convert_to_tensor(gradient)) for gradient in gradients]

    return lambda: step()[0].numpy()


def _pixels(count: int, size: int) -> Any:
    return tf.constant(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


def _square(values: Any) -> Any:
    return tf.reduce_mean(tf.square(tf.cast(values, tf.float32)))
