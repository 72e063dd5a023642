"""What searches are tested with: recipes with ranges, and trainings that take no time."""

import pytest

pytest.importorskip("optuna", reason='tuning needs the extra: pip install "tfmmrank[tune]"')

from tests.training.test_fit import MODEL

RANGES = {
    "train.learning_rate": {"low": 1e-4, "high": 1.0, "log": True},
    "train.batch_size": {"low": 2, "high": 8, "step": 2},
    "model.fusion": {"choices": ["sum", {"kind": "mean"}, {"kind": "gated"}]},
}


def recipe_of(tune=RANGES, model=MODEL, **train):
    from tfmmrank.schema import Recipe

    labels = {"kind": "elwc", "files": {"train": ["unused"]}, "features": {}}
    options = {"epochs": 4, "batch_size": 4, "patience": 0, "learning_rate": 0.001, **train}
    return Recipe.from_dict({"data": {"labels": labels}, "model": model, "train": options, "tune": tune})


class Lists:
    """A dataset that has lists and nothing else."""

    path, build, splits = "data", "one", ("train", "valid")

    def lists(self, split):
        return [1]


class Killed(BaseException):
    """What no handler in between catches."""


class Training:
    """Stands for ``train_trial``: the value of an epoch is a formula; what a training leaves, it leaves.

    Args:
        value: of a recipe and an epoch; what it raises, the training raises.
    """

    def __init__(self, value):
        self.value, self.recipes = value, []

    def __call__(self, recipe, data, run, strategy, told):
        self.recipes.append(recipe)
        for name in ("checkpoints", "ranker", "tensorboard"):
            (run / name).mkdir()
            (run / name / "some").write_text("bytes")
        values = []
        for epoch in range(recipe.train.epochs):
            values.append(self.value(recipe, epoch))
            told(epoch, values[-1], epoch + 1 == recipe.train.epochs)
        return values


def near(recipe, epoch=0):
    """Best at a learning rate of 0.1 with the fusion gated; better every epoch."""
    import math

    off = abs(math.log10(recipe.train.learning_rate) + 1) / 4 + (recipe.model.fusion.kind != "gated") * 0.2
    return 0.9 - off + 0.01 * epoch
