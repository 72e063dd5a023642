"""A plain TF-Ranking network on frozen features: what TF-Ranking's own examples make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank import stack
from tfmmrank.evaluation.choosing import VALID, Trial, measure
from tfmmrank.evaluation.dnn_inputs import Inputs, Scale
from tfmmrank.evaluation.pair_features import PairFeatures
from tfmmrank.evaluation.scoring import split_lists

#: What is tried: the best on the validation lists is kept.
SETTINGS: tuple[dict[str, float], ...] = (
    {"learning_rate": 0.001, "dropout": 0.5},
    {"learning_rate": 0.001, "dropout": 0.1},
    {"learning_rate": 0.0001, "dropout": 0.5},
    {"learning_rate": 0.0001, "dropout": 0.1},
)
_MOMENTUM = 0.9  # TF-Ranking's 0.999 would take thousands of steps to know the data's means; small sets make hundreds


class DNN:
    """Dense layers with batch normalisation over everything known of a pair, by TF-Ranking's ApproxNDCG loss.

    TF-Ranking's layers ``FlattenList``, ``create_tower`` and ``RestoreList``, as its pipelines put them together, and
    nothing of this package's rankers: no interaction of query and item but what the match features hold and the layers
    find. Inputs are the frozen encoders' vectors of query and item as they are, the match features and the raw
    columns; those last as sign(x) log(1 + |x|), standardised on the training pairs, 0 where missing, and the most
    frequent categories as indicators. Epochs and settings are chosen by NDCG@10 on the split ``valid``.

    Args:
        features: of the dataset's pairs.
        hidden: widths of the layers.
        settings: learning rates (of Adam) and dropouts to try.
        epochs: most.
        patience: epochs without a better validation NDCG after which a trial ends.
        batch_size: lists a step.
        list_size: slots of a training list; a longer one is sampled anew every epoch.
        seed: seeds weights, order and dropout.
        progress: whether to show a progress bar.

    Attributes:
        chosen: the best trial.
        trials_made: all of them, in order.

    Raises:
        ValueError: when there is nothing to learn from.
    """

    name = "dnn"

    def __init__(
        self,
        features: PairFeatures,
        hidden: Sequence[int] = (256, 128, 64),
        settings: Sequence[dict[str, float]] = SETTINGS,
        epochs: int = 100,
        patience: int = 10,
        batch_size: int = 32,
        list_size: int = 200,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        if not (features.towers or features.match_names or features.columns.names):
            raise ValueError("dnn: the ranker has no frozen encoders or matches and the dataset no numbers")
        self.features, self.hidden, self.settings = features, list(hidden), list(settings)
        self.epochs, self.patience, self.batch_size, self.list_size = epochs, patience, batch_size, list_size
        self.seed, self.progress = seed, progress
        self.chosen: Trial | None = None
        self.trials_made: list[Trial] = []
        self._network: Any = None
        self._scale = Scale()

    def fit(self, data: Any, split: str = "train") -> DNN:
        """Tries the settings and keeps the best.

        Raises:
            ValueError: for another dataset than the features', or one without validation lists to choose by.
        """
        self.features.check(data)
        valid_ndcg = measure(data, self.name)
        self._scale = Scale().learn(self._numbers(split), self._categorical)
        train, valid = self._inputs(data, split), self._inputs(data, VALID)
        self.trials_made, self.chosen = [], None
        with tqdm(self.settings, desc=self.name, unit=" settings", disable=not self.progress, leave=False) as bar:
            for settings in bar:
                trial, network = self._try(settings, train, valid, valid_ndcg, bar)
                self.trials_made.append(trial)
                if self.chosen is None or trial.valid > self.chosen.valid:
                    self.chosen, self._network = trial, network
        return self

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """The network's scores."""
        self.features.check(data)
        if self._network is None:
            raise ValueError("dnn: call fit(data) before scores")
        return split_lists(data.lists(split), self._inputs(data, split).score(self._network))

    def _try(self, settings: dict[str, float], train: Inputs, valid: Inputs, valid_ndcg: Any, bar: Any) -> Any:
        from tfmmrank.training import seed_everything

        seed_everything(self.seed)
        network = _make_network(train, self.hidden, settings["dropout"])
        network.compile(stack.keras.optimizers.Adam(settings["learning_rate"]), stack.tfr.keras.losses.ApproxNDCGLoss())
        best, best_epoch, weights = -1.0, 0, None
        for epoch in range(self.epochs):
            network.fit(train.epoch(self.batch_size, self.list_size, self.seed, epoch), verbose=0)
            found = valid_ndcg(valid.score(network))
            if found > best:
                best, best_epoch, weights = found, epoch + 1, network.get_weights()
            bar.set_postfix_str(f"epoch {epoch + 1}")
            if epoch + 1 - best_epoch >= self.patience:
                break
        network.set_weights(weights)
        return Trial(settings, best, best_epoch), network

    @property
    def _categorical(self) -> np.ndarray:
        return np.concatenate([np.zeros(len(self.features.match_names), bool), self.features.columns.categorical])

    def _numbers(self, split: str) -> np.ndarray:
        return np.concatenate([self.features.of_matches(split), self.features.of_columns(split)], 1)

    def _inputs(self, data: Any, split: str) -> Inputs:
        vectors = {name: self.features.vectors(name, split) for name in self.features.towers}
        return Inputs(data.lists(split), self._scale.apply(self._numbers(split)), vectors)


def _make_network(inputs: Inputs, hidden: list[int], dropout: float) -> Any:
    """Scores ``[B, L]`` of inputs ``{name: [B, L, w]}`` and a mask ``[B, L]``."""
    keras, layers = stack.keras, stack.tfr.keras.layers
    mask = keras.Input((None,), dtype="bool", name="mask")
    given = {name: keras.Input((None, width), name=name) for name, width in inputs.widths.items()}
    _, flat = layers.FlattenList()(({}, given, mask))
    tower = layers.create_tower(
        hidden, 1, activation="relu", input_batch_norm=True, batch_norm_moment=_MOMENTUM, dropout=dropout
    )
    scores = tower(keras.layers.Concatenate()(list(flat.values())) if len(flat) > 1 else next(iter(flat.values())))
    return keras.Model({**given, "mask": mask}, layers.RestoreList()((scores, mask)))
