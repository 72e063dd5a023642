"""Averaging weights over steps: what is validated, kept and served is smoother than any one step's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfmmrank.stack import keras, tf


class WeightAverage(keras.callbacks.Callback):
    """An exponential moving average of the trained weights [Polyak and Juditsky, 1992], which validation measures.

    Early steps weigh less than ``decay`` says, as (1 + n) / (10 + n) of the n-th, or the average would long be near the
    fresh weights. What is not trained (statistics of batch normalisation) is not averaged.

    Args:
        variables: the trained weights.
        decay: share of the average that a step keeps, in (0, 1); 0.99 averages over about 100 steps.
    """

    def __init__(self, variables: list[Any], decay: float) -> None:
        super().__init__()
        self.variables, self.decay = variables, decay
        self.averages = [tf.Variable(weight, trainable=False, name="average") for weight in variables]
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.checkpoint = tf.train.Checkpoint(averages=self.averages, steps=self.steps)
        self._in_place = False

    @tf.function
    def _update(self) -> None:
        self.steps.assign_add(1)
        done = tf.cast(self.steps, tf.float32)
        kept = tf.minimum(self.decay, (1.0 + done) / (10.0 + done))
        for average, weight in zip(self.averages, self.variables, strict=True):
            average.assign_sub((1.0 - kept) * (average - weight))

    @tf.function
    def _swap(self) -> None:
        for average, weight in zip(self.averages, self.variables, strict=True):
            kept = tf.identity(weight)
            weight.assign(average)
            average.assign(kept)

    def put_in(self) -> None:
        """Gives the model the averages."""
        if not self._in_place:
            self._swap()
            self._in_place = True

    def take_out(self) -> None:
        """Gives the model its own weights back."""
        if self._in_place:
            self._swap()
            self._in_place = False

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages within the block, and its own weights after it."""
        self.put_in()
        try:
            yield
        finally:
            self.take_out()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """After each step."""
        self._update()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validation measures the averages."""
        self.put_in()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Training goes on with the weights."""
        self.take_out()
