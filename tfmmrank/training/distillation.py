"""Distillation: a student's query encoder learns to give what its teacher's gives, from texts alone.

Hinton et al., https://arxiv.org/abs/1503.02531; that tokens are matched beside scores, as in TinyBERT (Jiao et al.,
https://arxiv.org/abs/1909.10351): a shop's training queries are few, its titles are not, and no text needs a judgement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data.batches import ListBatches
from tfmmrank.objectives import get_loss
from tfmmrank.ranker import Ranker
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.training.build import seed_everything
from tfmmrank.training.student import bert_query_towers, make_student

_TEXTS = 20_000  # titles that stand in for queries
_LISTS = 8  # lists a step
_BATCH = 64  # texts a step


def distill(
    teacher: Ranker,
    data: Any,
    blocks: int = 2,
    epochs: int = 10,
    learning_rate: float = 1e-4,
    texts: Sequence[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> tuple[Ranker, dict[str, list[float]]]:
    """Makes a ranker whose query encoder has fewer blocks, and teaches it what the teacher's gives.

    A step lowers two things: how far the student's query tokens are from the teacher's, relative to their size, on
    texts (training queries, titles of the catalogue, and those given); and the cross-entropy of the teacher's softmax
    over a training list's scores with the student's. Nothing else than the query encoder and its projection changes,
    and no label is read. The epoch is kept whose scores of the validation lists are nearest to the teacher's.

    Args:
        teacher: a trained ranker with a BERT on the query's side.
        data: the ``Prepared`` dataset that it was trained on.
        blocks: Transformer blocks of the student's encoder.
        epochs: passes over the texts.
        learning_rate: of Adam, falling to zero by a cosine.
        texts: more texts like queries, such as those of a search log.
        seed: of sampling and order; dropout is off.
        progress: whether to show progress bars.

    Returns:
        The student, an ordinary ``Ranker``; and its history: ``tokens`` (mean squared distance relative to the
        teacher's tokens' mean square), ``scores`` (cross-entropy above the teacher's own entropy) and ``val_scores``
        (the same on validation lists), a value an epoch.

    Raises:
        ValueError: see ``make_student``; also for a dataset without a split ``train`` or ``valid``.
    """
    for split in ("train", "valid"):
        if split not in data.splits:
            raise ValueError(f'dataset {data.path} has no split "{split}"; distillation needs it, without labels')
    seed_everything(seed)
    student = make_student(teacher, blocks)
    lesson = _Lesson(teacher, student, data, [*texts, *_titles(teacher, data, seed)], seed, progress)
    steps = epochs * lesson.steps
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))
    history: dict[str, list[float]] = {"tokens": [], "scores": [], "val_scores": []}
    best, kept = np.inf, student.get_weights()
    step = lesson.step(optimizer)
    with tqdm(total=steps, desc="distill", unit="step", disable=not progress, leave=False) as bar:
        for epoch in range(epochs):
            losses = []
            for batch in lesson.epoch(epoch):
                losses.append([float(value) for value in step(*batch)])
                bar.update()
            tokens, scores = np.mean(losses, axis=0)
            found = {"tokens": tokens, "scores": scores, "val_scores": lesson.validate()}
            for name, value in found.items():
                history[name].append(float(value))
            bar.set_postfix({name: f"{value:.4f}" for name, value in found.items()})
            if found["val_scores"] < best:
                best, kept = found["val_scores"], student.get_weights()
    student.set_weights(kept)
    return student, history


def _titles(teacher: Ranker, data: Any, seed: int) -> list[str]:
    """Texts of items that the teacher reads with the query's encoder, some at random."""
    encoders = {id(tower.encoder) for tower in bert_query_towers(teacher)}
    columns = {
        column
        for tower in teacher.side("item")
        if id(getattr(tower, "encoder", None)) in encoders
        for column in tower.columns
    }
    if not columns:
        return []
    rows = np.random.default_rng(seed).permutation(len(data.catalogue))[:_TEXTS]
    found = data.catalogue.rows(np.sort(rows), sorted(columns))
    return [text.decode("utf-8", "replace") for values in found.values() for text in values if text][:_TEXTS]


class _Lesson:
    """What a student is taught: texts and lists, with what the teacher says of them."""

    def __init__(
        self, teacher: Ranker, student: Ranker, data: Any, texts: Sequence[str], seed: int, progress: bool
    ) -> None:
        self.teacher, self.student, self.seed = teacher, student, seed
        names = [tower.name for tower in bert_query_towers(teacher)]
        self.pairs = [(old, new) for old, new in zip(teacher.towers, student.towers, strict=True) if old.name in names]
        self.weights = list({id(w): w for _, new in self.pairs for w in new.trainable_weights}.values())
        self.texts = self._inputs(data, texts)
        count = len(next(iter(self.texts.values())))
        self.count, self.steps = count, max(1, count // _BATCH)
        options: dict[str, Any] = {"batch_size": _LISTS, "static": True, "seed": seed, "progress": progress}
        self._lists = {
            split: [
                ListBatches(data, split, ranker, shuffle=split == "train", **options) for ranker in (teacher, student)
            ]
            for split in ("train", "valid")
        }
        self._loss = get_loss("softmax_loss")
        self._measure = tf.function(self._distance_of_scores, autograph=False, reduce_retracing=True)

    def _lists_at(self, split: str, epoch: int, number: int) -> tuple[Any, Any]:
        """The same lists as the teacher and as the student read them."""
        old, new = (batches.at(epoch, number)[0] for batches in self._lists[split])
        return _constants(old), _constants(new)

    def _inputs(self, data: Any, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Raw query columns of the training queries, and of the texts as queries."""
        queries = data.lists("train").queries
        columns = {column for old, _ in self.pairs for column in old.columns}
        more = np.array([text.encode("utf-8") for text in texts], object)
        return {
            column: np.concatenate([queries[column], more if column == "query" else np.full(len(more), b"", object)])
            for column in sorted(columns)
        }

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any, Any]]:
        """Texts with lists, for both rankers."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        lists = len(self._lists["train"][0])
        for number in range(self.steps):
            rows = np.resize(order[number * _BATCH : (number + 1) * _BATCH], _BATCH)
            texts = {column: tf.constant(values[rows]) for column, values in self.texts.items()}
            yield texts, *self._lists_at("train", *divmod(epoch * self.steps + number, lists))

    def step(self, optimizer: Any) -> Any:
        """The function of one step: (texts, the teacher's batch, the student's) to the two losses."""

        def run(texts: Any, old: Any, new: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                tokens = self._distance_of_tokens(texts)
                scores = self._distance_of_scores(old, new)
                loss = tokens + scores
            optimizer.apply_gradients(zip(tape.gradient(loss, self.weights), self.weights, strict=True))
            return tokens, scores

        return tf.function(run, autograph=False, reduce_retracing=True)

    def validate(self) -> float:
        """The mean distance of the validation lists' scores."""
        found, lists = [], []
        for number in range(len(self._lists["valid"][0])):
            old, new = self._lists_at("valid", 0, number)
            found.append(float(self._measure(old, new)))
            lists.append(old["slot_mask"].numpy().any(1).sum())
        return float(np.average(found, weights=lists))

    def _distance_of_tokens(self, texts: Any) -> Any:
        total = 0.0
        for old, new in self.pairs:
            wanted, given = (_tokens(tower, texts) for tower in (old, new))
            for one, other in zip(wanted, given, strict=True):
                there = tf.cast(one.mask[..., None], tf.float32)
                square = tf.reduce_sum(there * tf.square(tf.stop_gradient(one.values)))
                total += tf.reduce_sum(there * tf.square(other.values - tf.stop_gradient(one.values))) / (square + 1e-9)
        return total

    def _distance_of_scores(self, old: Any, new: Any) -> Any:
        """Cross-entropy of softmaxes less the teacher's entropy: 0 where the scores are alike, a list."""
        mask = old["slot_mask"]
        wanted = tf.stop_gradient(tf.nn.softmax(tf.where(mask, self.teacher(old), -1e9)))
        given = tf.where(mask, self.student(new), 0.0)
        labels = tf.where(mask, wanted, -1.0)
        entropy = -tf.reduce_sum(tf.where(mask, tf.math.xlogy(wanted, wanted), 0.0))
        lists = tf.reduce_sum(tf.cast(tf.reduce_any(mask, 1), tf.float32))
        return (self._loss(labels, given) - entropy) / tf.maximum(lists, 1.0)


def _tokens(tower: Any, texts: Any) -> tuple[Tokens, ...]:
    """What a tower gives of texts: the encoder's own tokens, which matches compare, and the projected ones."""
    own = tower.match_tokens(tower.embed(tower.preprocess({column: texts[column] for column in tower.columns})))
    return (own, tower(own)) if tower.fused else (own,)


def _constants(features: Any) -> Any:
    return {name: tf.constant(array) for name, array in features.items()}
