"""Keeping what training reached: best weights, early stopping, and the state to resume from after a kill."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.stack import keras, tf
from tfmmrank.training.averaging import WeightAverage


class OtherTraining(ValueError):  # noqa: N818 - what was found, not what went wrong
    """A folder's checkpoint is of another model, other data or other options than are to be trained."""


class ResumableTraining(keras.callbacks.Callback):
    """Early stopping on a metric to maximise, best weights on disk, and checkpoints that continue exactly.

    A checkpoint holds weights, their average, optimizer slots, dropout's random state, the epoch and step reached, the
    history and the early stopping's counters. On a CPU with one seed, a run killed at any moment and started again ends
    with the weights of an uninterrupted one; but not with a loss that draws random numbers itself (Gumbel, ListMLE's
    ties, YetiRank, RankDistil): TF-Ranking offers no state of theirs to keep, so that a resumed run draws others. The
    history of an epoch in which a run was killed is that of the steps after it.

    Args:
        directory: where checkpoints go, the best epoch's in ``best``.
        steps: steps an epoch.
        of: what is trained on what; a checkpoint of something else is refused.
        monitor: the log to maximise; where it is missing (no validation data), the last epoch counts as the best.
        patience: epochs without a better value before stopping; 0: never stop.
        every_steps: also checkpoint every so many steps; None: after each epoch only.
        average: whose weights are the best ones, instead of the model's own.
    """

    def __init__(
        self,
        directory: Path,
        steps: int,
        of: str,
        monitor: str = "val_ndcg@10",
        patience: int = 5,
        every_steps: int | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        super().__init__()
        self.directory, self.steps, self.of, self.monitor = directory, steps, of, monitor
        self.patience, self.every_steps, self.average = patience, every_steps, average
        self.state: dict[str, Any] = {
            "epoch": 0,
            "step": 0,
            "best": None,
            "wait": 0,
            "done": False,
            "history": {},
            "of": of,
        }

    def restore(self, model: Any) -> bool:
        """Binds to a built, compiled model and loads the last checkpoint; returns whether there was one.

        Without one, the model as it is becomes the first.

        Raises:
            OtherTraining: when it is of another model, other data or other training options.
        """
        model.build_optimizers()
        self._packed = tf.Variable("", dtype=tf.string)
        generators = {f"rng_{i}": generator for i, generator in enumerate(_random_generators(model))}
        checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            encoder_optimizer=model.encoder_optimizer or model.optimizer,
            state=self._packed,
            **({"average": self.average.checkpoint} if self.average is not None else {}),
            **generators,
        )
        self.manager = tf.train.CheckpointManager(checkpoint, str(self.directory), max_to_keep=2)
        best = tf.train.Checkpoint(model=model)
        self.best = tf.train.CheckpointManager(best, str(self.directory / "best"), max_to_keep=1)
        if self.manager.latest_checkpoint is None:
            self._save()  # interrupted in its first epoch, training begins from these weights again
            return False
        reader = tf.train.load_checkpoint(self.manager.latest_checkpoint)
        state = json.loads(reader.get_tensor("state/.ATTRIBUTES/VARIABLE_VALUE").decode())
        if state["of"] != self.of:
            raise OtherTraining(
                f"{self.directory}: the last checkpoint is of another model, dataset, training options or version; "
                "begin again (resume=False, --restart) or choose another folder"
            )
        checkpoint.restore(self.manager.latest_checkpoint).assert_existing_objects_matched()
        self.state = state
        return True

    def restore_best(self) -> None:
        """Gives the model the weights of its best epoch."""
        self.best.checkpoint.restore(self.best.latest_checkpoint).assert_existing_objects_matched()

    def _save(self) -> None:
        self._packed.assign(json.dumps(self.state))
        self.manager.save()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checkpoints every ``every_steps`` steps; not at an epoch's last, where ``on_epoch_end`` is about to."""
        self.state["step"] += 1
        if self.every_steps and self.state["step"] % self.every_steps == 0 and self.state["step"] < self.steps:
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch, keeps its weights if they are the best, decides whether to go on, checkpoints."""
        logs = {name: float(value) for name, value in (logs or {}).items()}
        for name, value in logs.items():
            self.state["history"].setdefault(name, []).append(value)
        if not np.isfinite(logs.get("loss", 0.0)):
            raise FloatingPointError(
                f"the training loss became {logs['loss']} in epoch {epoch + 1}; lower train.learning_rate or clip_norm"
            )
        value = logs.get(self.monitor)
        if value is None or self.state["best"] is None or value > self.state["best"]:
            self.state.update(best=value, wait=0)
            with self.average.in_place() if self.average is not None else nullcontext():
                self.best.save()
        else:
            self.state["wait"] += 1
            if self.patience and self.state["wait"] >= self.patience:
                self.state["done"] = True
                self.model.stop_training = True
        self.state.update(epoch=epoch + 1, step=0)
        self._save()


def _random_generators(model: Any) -> list[Any]:
    """The generators of dropout layers, in the model's order: Keras leaves them out of checkpoints."""
    found: list[Any] = []
    for layer in model._flatten_layers(include_self=False):
        generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
        if generator is not None and all(generator is not other for other in found):
            found.append(generator)
    return found
