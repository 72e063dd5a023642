"""Training by a recipe, resumable."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tfmmrank.atomic import replace_directory, write_text
from tfmmrank.data.batches import ListBatches
from tfmmrank.objectives import get_loss
from tfmmrank.registry import nearest
from tfmmrank.runs import keep_queries
from tfmmrank.schema import RecipeError, TrainConfig
from tfmmrank.stack import keras, tf
from tfmmrank.training.averaging import WeightAverage
from tfmmrank.training.build import seed_everything
from tfmmrank.training.checkpoint import OtherTraining, ResumableTraining
from tfmmrank.training.mixed import copy_weights, mixed_twin
from tfmmrank.version import __version__

_LIBRARIES = ("tensorflow", "tf-keras", "tensorflow-ranking", "tensorflow-recommenders", "keras-nlp")  # which train
OPTIMIZERS = ["adadelta", "adagrad", "adam", "adamax", "adamw", "ftrl", "nadam", "rmsprop", "sgd"]


def make_optimizer(config: TrainConfig, steps: int | None = None, learning_rate: float | None = None) -> Any:
    """The optimizer that a recipe names: ``adam``, ``adamw``, ``adagrad``, … with clipping and weight decay.

    Args:
        config: the recipe's train part.
        steps: in all the epochs, over which a cosine schedule falls to zero; None: the rate stays.
        learning_rate: instead of the recipe's.

    Raises:
        RecipeError: for a name that Keras does not know.
    """
    rate: Any = config.learning_rate if learning_rate is None else learning_rate
    if config.schedule == "cosine" and steps is not None:
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    options: dict[str, Any] = {"learning_rate": rate, "is_legacy_optimizer": False}
    if config.clip_norm is not None:
        options["global_clipnorm"] = config.clip_norm
    if config.weight_decay:
        options["weight_decay"] = config.weight_decay
    try:
        return keras.optimizers.get({"class_name": config.optimizer, "config": options})
    except ValueError as error:
        if not str(error).startswith("Unknown optimizer"):
            raise
        name = config.optimizer
        raise RecipeError(
            f'train.optimizer: unknown optimizer "{name}"{nearest(name, OPTIMIZERS)}; known: {", ".join(OPTIMIZERS)}'
        ) from error


def fit(
    ranker: Any,
    config: TrainConfig,
    data: Any,
    run: str | Path,
    *,
    resume: bool = True,
    progress: bool = True,
    callbacks: Sequence[Any] = (),
) -> dict[str, list[float]]:
    """Trains an adapted ranker and leaves the best epoch's weights in it and under ``run/ranker``.

    Args:
        ranker: from ``build_ranker(..., data)``, under the strategy's scope if there is one.
        config: the recipe's train part.
        data: a ``Prepared`` dataset with a split ``train``, and ``valid`` for early stopping; without ``valid``, or
            without a positive label there, all epochs are trained and the last one is kept.
        run: folder for checkpoints, TensorBoard logs, ``history.json``, ``ranker/`` and digests of the queries seen.
        resume: whether to go on from the last checkpoint in ``run``; False removes what is there, and begins with the
            weights that the ranker has.
        progress: whether to show Keras's progress bar.
        callbacks: Keras callbacks of your own. They run after those that keep checkpoints, and see the epochs trained
            by this call alone; what they raise ends the training, which then can be resumed. In mixed precision their
            ``model`` is the ranker's twin that computes so.

    Returns:
        History: ``{"loss": [...], "val_ndcg@10": [...], ...}``, one value an epoch.

    Raises:
        RecipeError: for a loss or an optimizer that cannot be had.
        ValueError: for a dataset without a positive training label, or a checkpoint of another model, dataset,
            training options or version.
        FloatingPointError: when the loss is no longer finite.
    """
    run = Path(run)
    checkpoints = run / "checkpoints"
    _check_labels(data)
    _check_options(config)
    if not resume:
        for folder in (checkpoints, run / "ranker", run / "tensorboard"):
            shutil.rmtree(folder, ignore_errors=True)
        (run / "history.json").unlink(missing_ok=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    options: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "epochs": config.epochs if replicas > 1 else None,  # collective operations are of one shape in all steps
        "progress": progress,
    }
    batches = ListBatches(data, "train", ranker, list_size=config.list_size, shuffle=True, **options)
    # Static batches, or XLA would compile for every number of distinct items anew.
    static = replicas > 1 or config.jit_compile
    valid = ListBatches(data, "valid", ranker, static=static, **options) if _can_validate(data) else None
    steps = -(-len(batches) // replicas)

    seed_everything(config.seed)
    ranker.build_from_columns()
    _compile(ranker, config, steps)
    trained = ranker
    if config.mixed_precision:
        trained = mixed_twin(ranker)
        _compile(trained, config, steps)
    average = None
    if config.weight_averaging is not None:
        average = WeightAverage(trained.trainable_variables, config.weight_averaging)
    of = _fingerprint(ranker, config, [batches, *([valid] if valid is not None else [])], replicas)
    keeper = ResumableTraining(
        checkpoints, steps, of, patience=config.patience, every_steps=config.checkpoint_every_steps, average=average
    )
    keeper.restore(trained)
    if progress and (keeper.state["epoch"] or keeper.state["step"]):
        tqdm.write(f"{run}: going on after epoch {keeper.state['epoch']} of {config.epochs}", file=sys.stderr)
    if keeper.state["epoch"] > config.epochs:
        raise OtherTraining(
            f"{checkpoints}: {keeper.state['epoch']} epochs are trained, and train.epochs is {config.epochs}; ask for "
            "no fewer, begin again (resume=False, --restart) or choose another folder"
        )

    def run_epochs(first: int, last: int, skip: int = 0) -> None:
        trained.fit(
            _distributed(batches, first, skip),
            validation_data=_distributed(valid) if valid is not None else None,
            initial_epoch=first,
            epochs=last,
            # Told the number, Keras asks for no batch past the end: on that one the optimizer's counter and dropout's
            # random state would move on, and a resumed run would differ.
            steps_per_epoch=steps - skip if replicas > 1 or skip else None,
            validation_steps=-(-len(valid) // replicas) if valid is not None and replicas > 1 else None,
            callbacks=[
                *([average] if average is not None else []),
                keeper,
                keras.callbacks.TensorBoard(run / "tensorboard", write_graph=False),
                *callbacks,
            ],
            verbose=_verbosity(progress),
        )

    try:
        if keeper.state["step"] and not keeper.state["done"]:
            # Keras takes the first epoch's number of steps for every epoch's, and this one is cut short.
            run_epochs(keeper.state["epoch"], keeper.state["epoch"] + 1, keeper.state["step"])
        if keeper.state["epoch"] < config.epochs and not keeper.state["done"]:
            run_epochs(keeper.state["epoch"], config.epochs)
    finally:
        if average is not None:
            average.take_out()  # where validation was interrupted
    keeper.restore_best()
    if trained is not ranker:
        copy_weights(trained, ranker)
    _finish(ranker, keeper.state["history"], run, data)
    return keeper.state["history"]


def _compile(ranker: Any, config: TrainConfig, steps: int) -> None:
    slow = config.encoder_learning_rate
    ranker.compile(
        make_optimizer(config, steps * config.epochs),
        config.loss,
        loss_options=config.loss_options,
        jit_compile=config.jit_compile,
        encoder_optimizer=make_optimizer(config, steps * config.epochs, slow) if slow is not None else None,
    )


def _fingerprint(ranker: Any, config: TrainConfig, splits: Sequence[ListBatches], replicas: int) -> str:
    """Changes with whatever changes what is trained and kept: code, options, towers, replicas, lists, their items."""
    free = {"epochs", "checkpoint_every_steps"} - ({"epochs"} if config.schedule == "cosine" else set())
    options = config.model_dump(mode="json", exclude=free)
    model = ranker.get_config()
    del model["name"], model["fusion"]["name"]  # Keras numbers them within a process
    code = [__version__, *(version(library) for library in _LIBRARIES)]
    parts = [code, model, options, replicas, [batches.lists.query_ids.tolist() for batches in splits]]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for batches in splits:
        for part in batches.state():
            digest.update(part)
    return digest.hexdigest()


def _verbosity(progress: bool) -> int:
    """Keras's bar, or a line an epoch where a bar would fill a log file."""
    return (1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2) if progress else 0


def _check_options(config: TrainConfig) -> None:
    """Before anything is written or removed."""
    make_optimizer(config)
    try:
        get_loss(config.loss, **config.loss_options)
    except ValueError as error:
        raise RecipeError(f"train.loss: {error}") from error


def _check_labels(data: Any) -> None:
    if "train" not in data.splits or not (data.lists("train").labels > 0).any():
        raise ValueError(
            f'no query of split "train" of dataset {data.path} has a positive label: there is nothing to learn'
        )


def _can_validate(data: Any) -> bool:
    """Whether there are validation lists to stop by."""
    there = "valid" in data.splits and len(data.lists("valid")) > 0
    positive = there and bool((data.lists("valid").labels > 0).any())
    if not positive:  # their NDCG would be 0 in every epoch, and the first one the best
        what = 'no query of split "valid"' if there else 'no split "valid"'
        of = f"of dataset {data.path} has a positive label" if there else f"in dataset {data.path}"
        warnings.warn(f"{what} {of}: trained without validation, all epochs, the last one being kept", stacklevel=3)
    return positive


def _distributed(batches: ListBatches, epoch: int = 0, skip: int = 0) -> Any:
    """The batches from a step on; each replica gets whole ones, since a batch's items cannot be cut along its lists."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return batches.dataset(epoch, skip)
    return keras.utils.experimental.DatasetCreator(
        lambda context: batches.dataset(epoch, skip * replicas, multiple_of=replicas).repeat()
    )


def _finish(ranker: Any, history: dict[str, list[float]], run: Path, data: Any) -> None:
    keep_queries(run, data)
    with replace_directory(run / "ranker") as aside:
        ranker.save_ranker(aside)
    write_text(run / "history.json", json.dumps(history, indent=1))
