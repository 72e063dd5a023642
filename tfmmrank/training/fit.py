"""Training by a recipe, resumable."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tfmmrank.data.batches import ListBatches
from tfmmrank.schema import TrainConfig
from tfmmrank.stack import keras, tf
from tfmmrank.training.build import seed_everything
from tfmmrank.training.checkpoint import ResumableTraining


def make_optimizer(config: TrainConfig) -> Any:
    """The optimizer that a recipe names: ``adam``, ``adamw``, ``adagrad``, … with clipping and weight decay.

    Raises:
        ValueError: for a name that Keras does not know.
    """
    options: dict[str, Any] = {"learning_rate": config.learning_rate}
    if config.clip_norm is not None:
        options["global_clipnorm"] = config.clip_norm
    if config.weight_decay:
        options["weight_decay"] = config.weight_decay
    return keras.optimizers.get({"class_name": config.optimizer, "config": options})


def fit(
    ranker: Any, config: TrainConfig, data: Any, run: str | Path, *, resume: bool = True, progress: bool = True
) -> dict[str, list[float]]:
    """Trains an adapted ranker and leaves the best epoch's weights in it and under ``run/ranker``.

    Args:
        ranker: from ``build_ranker(..., data)``, under the strategy's scope if there is one.
        config: the recipe's train part.
        data: a ``Prepared`` dataset with a split ``train``, and ``valid`` for early stopping.
        run: folder for checkpoints, TensorBoard logs, ``history.json`` and ``ranker/``.
        resume: whether to go on from the last checkpoint in ``run``; False starts afresh.
        progress: whether to show Keras's progress bar.

    Returns:
        History: ``{"loss": [...], "val_ndcg@10": [...], ...}``, one value an epoch.
    """
    run = Path(run)
    checkpoints = run / "checkpoints"
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    strategy = tf.distribute.get_strategy()
    options: dict[str, Any] = {"batch_size": config.batch_size, "seed": config.seed, "progress": progress}
    batches = ListBatches(data, "train", ranker, list_size=config.list_size, shuffle=True, **options)
    valid = ListBatches(data, "valid", ranker, static=strategy.num_replicas_in_sync > 1, **options) if _has(data, "valid") else None

    seed_everything(config.seed)
    ranker.build_from_columns()
    ranker.compile(
        make_optimizer(config), config.loss, loss_options=config.loss_options, jit_compile=config.jit_compile
    )
    keeper = ResumableTraining(checkpoints, patience=config.patience, every_steps=config.checkpoint_every_steps)
    keeper.restore(ranker)
    if not keeper.state["done"] and keeper.state["epoch"] < config.epochs:
        epoch, step = keeper.state["epoch"], keeper.state["step"]
        ranker.fit(
            _distributed(batches.dataset(epoch, skip=step), strategy),
            validation_data=_distributed(valid.dataset(), strategy) if valid is not None else None,
            initial_epoch=epoch,
            epochs=config.epochs,
            steps_per_epoch=_steps(batches, strategy),
            validation_steps=_steps(valid, strategy) if valid is not None else None,
            callbacks=[keeper, keras.callbacks.TensorBoard(run / "tensorboard", write_graph=False)],
            verbose=1 if progress else 0,
        )
    ranker.load_weights(keeper.best_weights)
    _finish(ranker, keeper.state["history"], run)
    return keeper.state["history"]


def _has(data: Any, split: str) -> bool:
    return split in data.splits and len(data.lists(split)) > 0


def _steps(batches: ListBatches, strategy: Any) -> int | None:
    """Steps an epoch; None lets Keras iterate to the end."""
    replicas = strategy.num_replicas_in_sync
    return None if replicas == 1 else max(1, len(batches) // replicas)


def _distributed(dataset: Any, strategy: Any) -> Any:
    """Gives each replica whole batches: a batch's distinct items cannot be cut along with its lists."""
    if strategy.num_replicas_in_sync == 1:
        return dataset
    return keras.utils.experimental.DatasetCreator(lambda context: dataset.repeat())


def _finish(ranker: Any, history: dict[str, list[float]], run: Path) -> None:
    """Writes the ranker and the history aside, then renames."""
    aside = run / ".ranker.aside"
    shutil.rmtree(aside, ignore_errors=True)
    ranker.save_ranker(aside)
    shutil.rmtree(run / "ranker", ignore_errors=True)
    os.rename(aside, run / "ranker")
    (run / "history.json").write_text(json.dumps(history, indent=1), "utf-8")
