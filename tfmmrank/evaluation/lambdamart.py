"""LambdaMART by LightGBM: what most shops would try first."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.evaluation.choosing import VALID, Trial, measure
from tfmmrank.evaluation.pair_features import PairFeatures
from tfmmrank.evaluation.scoring import split_lists

#: What is searched: ``trials`` settings, the first LightGBM's own, the others drawn from here.
SEARCH: dict[str, list[float]] = {
    "num_leaves": [7, 15, 31, 63],
    "learning_rate": [0.02, 0.05, 0.1],
    "min_data_in_leaf": [5, 20, 50, 100],
    "lambda_l2": [0.0, 1.0, 10.0],
    "feature_fraction": [0.5, 0.8, 1.0],
}
DEFAULTS: dict[str, float] = {
    "num_leaves": 31, "learning_rate": 0.1, "min_data_in_leaf": 20, "lambda_l2": 0.0, "feature_fraction": 1.0,
}  # fmt: skip
_PCA_ROWS = 20_000  # enough to learn the axes from


class LambdaMART:
    """Gradient-boosted trees under LambdaRank's gradients [Burges, 2010], gain 2^grade - 1, by LightGBM.

    Reads the match features, raw columns (categories as LightGBM's categoricals) and, if asked, the frozen encoders'
    vectors of query and item, each reduced by a PCA of those of the training pairs. Settings and number of trees are
    chosen by NDCG@10 on the split ``valid``; any other split is only scored. Two fits with one seed are alike.

    Args:
        features: of the dataset's pairs.
        embeddings: whether to read the vectors.
        components: of each tower's PCA.
        trials: settings tried, LightGBM's own first; see ``SEARCH``.
        rounds: most trees.
        patience: trees without a better validation NDCG after which a trial ends.
        seed: seeds the search and LightGBM.
        threads: of LightGBM; None: as OpenMP has it, ``OMP_NUM_THREADS`` or one a core.
        progress: whether to show a progress bar.

    Attributes:
        chosen: the best trial.
        trials_made: all of them, in order.

    Raises:
        ValueError: when there is nothing to learn from.
        ImportError: when LightGBM is missing.
    """

    def __init__(
        self,
        features: PairFeatures,
        embeddings: bool = False,
        components: int = 64,
        trials: int = 10,
        rounds: int = 1000,
        patience: int = 50,
        seed: int = 0,
        threads: int | None = None,
        progress: bool = False,
    ) -> None:
        self.name = "lambdamart + embeddings" if embeddings else "lambdamart"
        if embeddings and not features.towers:
            raise ValueError(f"{self.name}: the ranker has no tower of a frozen pretrained encoder")
        if not (embeddings or features.match_names or features.columns.names):
            raise ValueError(f"{self.name}: the ranker has no matches and the dataset no numbers to learn from")
        self.features, self.embeddings, self.components = features, embeddings, components
        self.trials, self.rounds, self.patience = trials, rounds, patience
        self.seed, self.threads, self.progress = seed, threads or 0, progress
        self.chosen: Trial | None = None
        self.trials_made: list[Trial] = []
        self._lightgbm = load_lightgbm()
        self._booster: Any = None
        self._axes: dict[str, Any] = {}

    def fit(self, data: Any, split: str = "train") -> LambdaMART:
        """Tries the settings and keeps the best.

        Raises:
            ValueError: for another dataset than the features', or one without validation lists to choose by.
        """
        self.features.check(data)
        valid_ndcg = measure(data, self.name)
        if self.embeddings:
            found = {tower: self._learn_axes(tower, split) for tower in self.features.towers}
            self._axes = {tower: axes for tower, axes in found.items() if axes is not None}
        gains = np.unique(np.concatenate([data.lists(name).labels for name in (split, VALID)]).clip(0))
        train = self._dataset(data, split, gains)
        valid = self._dataset(data, VALID, gains, train)
        self.trials_made, self.chosen = [], None
        with tqdm(self._settings(), desc=self.name, unit=" settings", disable=not self.progress, leave=False) as bar:
            for settings in bar:
                booster = self._train(settings, gains, train, valid, valid_ndcg, bar)
                trial = Trial(settings, booster.best_score[VALID]["ndcg@10"], booster.best_iteration)
                self.trials_made.append(trial)
                if self.chosen is None or trial.valid > self.chosen.valid:
                    self.chosen, self._booster = trial, booster
        return self

    def scores(self, data: Any, split: str) -> list[np.ndarray]:
        """The trees' sums."""
        self.features.check(data)
        if self._booster is None:
            raise ValueError(f"{self.name}: call fit(data) before scores")
        found = self._booster.predict(self._numbers(split), num_threads=self.threads)
        return split_lists(data.lists(split), found.astype(np.float32))

    def _settings(self) -> list[dict[str, float]]:
        from sklearn.model_selection import ParameterSampler

        drawn = ParameterSampler(SEARCH, max(0, self.trials - 1), random_state=self.seed)
        return [DEFAULTS, *({name: setting[name] for name in DEFAULTS} for setting in drawn)]

    def _train(
        self,
        settings: Mapping[str, float],
        gains: np.ndarray,
        train: Any,
        valid: Any,
        valid_ndcg: Callable[[np.ndarray], float],
        bar: Any,
    ) -> Any:
        parameters = {
            "objective": "lambdarank",
            "metric": "none",
            "label_gain": (np.exp2(gains) - 1).tolist(),
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
            **settings,
        }
        return self._lightgbm.train(
            parameters,
            train,
            self.rounds,
            valid_sets=[valid],
            valid_names=[VALID],
            feval=lambda scores, _: ("ndcg@10", valid_ndcg(scores), True),
            callbacks=[
                self._lightgbm.early_stopping(self.patience, verbose=False),
                lambda at: bar.set_postfix_str(f"{at.iteration + 1} trees") if at.iteration % 20 == 0 else None,
            ],
        )

    def _dataset(self, data: Any, split: str, gains: np.ndarray, reference: Any = None) -> Any:
        """A split as LightGBM's; LambdaRank wants whole numbers as labels, so that grades go by their place."""
        lists = data.lists(split)
        categorical = np.flatnonzero(self.features.columns.categorical) + len(self.features.match_names)
        return self._lightgbm.Dataset(
            self._numbers(split),
            np.searchsorted(gains, lists.labels.clip(0)),
            reference=reference,
            weight=lists.weights if (lists.weights != 1).any() else None,
            group=np.diff(lists.offsets),
            categorical_feature=categorical.tolist(),
            params={
                "feature_pre_filter": False,  # which would go by the first trial's min_data_in_leaf
                "num_threads": self.threads,
                "verbosity": -1,
            },
        )

    def _numbers(self, split: str) -> np.ndarray:
        """Everything that is read of a split's pairs, float32 ``[R, F]``."""
        parts = [self.features.of_matches(split), self.features.of_columns(split)]
        for tower, axes in self._axes.items():
            vectors = self.features.vectors(tower, split)
            reduced = np.full((len(vectors.values), axes.n_components_), np.nan, np.float32)
            for start in range(0, len(reduced), _PCA_ROWS):
                some = start + np.flatnonzero(vectors.present[start : start + _PCA_ROWS])
                if len(some):
                    reduced[some] = axes.transform(vectors.values[some].astype(np.float32))
            parts.append(reduced[vectors.places])
        return np.concatenate(parts, 1)

    def _learn_axes(self, tower: str, split: str) -> Any:
        """The PCA of a tower's vectors of a split's pairs, each distinct one once; None where there are too few."""
        from sklearn.decomposition import PCA

        vectors = self.features.vectors(tower, split)
        seen = np.unique(vectors.places)
        seen = seen[vectors.present[seen]]
        if len(seen) > _PCA_ROWS:
            seen = np.random.default_rng(self.seed).choice(seen, _PCA_ROWS, replace=False)
        values = vectors.values[seen].astype(np.float32)
        if len(values) < 2:
            return None
        return PCA(min(self.components, *values.shape), svd_solver="covariance_eigh").fit(values)


def load_lightgbm() -> Any:
    """The package. Raises ImportError when it is missing, or cannot be loaded."""
    try:
        return importlib.import_module("lightgbm")
    except (ImportError, OSError) as error:  # OSError: without the library of OpenMP
        raise ImportError(f'LambdaMART needs LightGBM: pip install "tfmmrank[lightgbm]" ({error})') from error
