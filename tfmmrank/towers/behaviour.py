"""The behaviour tower: numbers and categories, such as prices, brands and past clicks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers import normalise
from tfmmrank.towers.base import Tower, towers

MISSING_ID, UNKNOWN_ID = 0, 1

_SHARED = (
    "normalize", "bins", "max_categories", "hash_buckets", "embedding_dim", "hidden", "dropout", "widths",
)  # fmt: skip


@dataclass(frozen=True)
class Learnt:
    """What ``adapt`` learnt: the normaliser of all numbers, and by column the categories, most frequent first."""

    numbers: dict[str, Any]
    categories: dict[str, list[str]]


@towers.register("behaviour")
@keras.utils.register_keras_serializable("tfmmrank")
class BehaviourTower(Tower):
    """Numbers and categories to one token.

    Numbers are brought onto one scale with what ``adapt`` learnt; whether each is there is told to the network.
    Categories are embedded. Then dense layers. A row of which nothing is there is masked.

    Args:
        columns: all columns; may be empty when ``numeric`` and ``categorical`` name them.
        side: ``query``, ``item`` or ``slot``.
        dim: width of the token.
        share: a behaviour tower whose normalisers, categories and weights this one uses: its columns are matched with
            that tower's by place, and all other options are that tower's.
        numeric: number columns; None: those of ``columns`` that ``categorical`` does not name.
        categorical: string columns.
        normalize: ``quantile`` (rank among the values seen, from -1 to 1), ``log`` (sign(x) log(1 + |x|), standardised)
            or ``standard``.
        bins: of ``quantile``: spreads each number over so many, of which the k-th grows from -1 to 1 while the value
            goes through the k-th of as many equal quantiles. Dense layers then see thresholds as trees do (piecewise
            linear encoding [Gorishniy et al., 2022]). None: one number each.
        max_categories: most frequent values kept of each categorical column; others share one embedding.
        hash_buckets: hash categories into so many buckets instead of learning a vocabulary.
        embedding_dim: width of a category's embedding.
        hidden: widths of the dense layers before the projection.
        dropout: rate after each of them, in [0, 1).
        widths: numbers in a column, where not 1; learnt by ``adapt``.
        learnt: what ``adapt`` learnt; give it to skip that.
        name: the modality's name.

    Raises:
        ValueError: for an unknown normaliser, columns named twice or nowhere, or options out of range.

    Example:
        >>> tower = BehaviourTower(["price", "brand"], categorical=["brand"], dim=16, name="facts")
        >>> raw = {"price": np.array([9.5, np.nan], np.float32), "brand": np.array([b"acme", b""], object)}
        >>> tower.adapt([raw])
        >>> tower(tower.preprocess(raw)).mask.numpy().tolist()
        [[True], [False]]
    """

    shared_options = ("numeric", "categorical", *_SHARED)  # columns by place

    def __init__(
        self,
        columns: Iterable[str] = (),
        side: str = "item",
        dim: int = 64,
        share: BehaviourTower | None = None,
        numeric: Sequence[str] | None = None,
        categorical: Sequence[str] = (),
        normalize: str = "quantile",
        bins: int | None = None,
        max_categories: int = 5000,
        hash_buckets: int | None = None,
        embedding_dim: int = 16,
        hidden: Sequence[int] = (64,),
        dropout: float = 0.1,
        widths: Mapping[str, int] | None = None,
        learnt: Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        columns = [columns] if isinstance(columns, str) else list(columns)
        super().__init__(
            columns or [*(numeric or ()), *categorical], side=side, dim=dim, share=share, name=name, **kwargs
        )
        self.categorical = list(categorical)
        self.numeric = [c for c in self.columns if c not in categorical] if numeric is None else list(numeric)
        self.normalize, self.bins = normalize, bins
        self.max_categories, self.hash_buckets = max_categories, hash_buckets
        self.embedding_dim, self.hidden, self.dropout = embedding_dim, list(hidden), dropout
        self.widths = {column: (widths or {}).get(column, 1) for column in self.numeric}
        self.learnt: Learnt | None = None
        self._check()
        if share is not None:
            self._join(share)
        elif learnt is not None:
            self._know(Learnt(**learnt))

    def _check(self) -> None:
        where = f'BehaviourTower "{self.name}"'
        if self.normalize not in normalise.METHODS:
            raise ValueError(f'{where}: normalize is "{self.normalize}"; expected {", ".join(normalise.METHODS)}')
        for column in dict.fromkeys([*self.columns, *self.numeric, *self.categorical]):
            if [*self.numeric, *self.categorical].count(column) != 1 or self.columns.count(column) != 1:
                raise ValueError(f'{where}: column "{column}" must stand once, in either numeric or categorical')
        if self.bins is not None and self.normalize != "quantile":
            raise ValueError(f'{where}: bins are of normalize "quantile", not of "{self.normalize}"')
        for key in ("bins", "max_categories", "hash_buckets", "embedding_dim"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"{where}: {key} is {getattr(self, key)}; expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{where}: dropout is {self.dropout}; expected a rate in [0, 1)")

    def _join(self, owner: BehaviourTower) -> None:
        where = f'BehaviourTower "{self.name}"'
        if self.dim != owner.dim:
            raise ValueError(f'{where}: dim is {self.dim}, but "{owner.name}", which it shares, has {owner.dim}')
        if len(self.columns) != len(owner.columns):
            raise ValueError(
                f'{where}: has {len(self.columns)} columns; expected {len(owner.columns)}, as "{owner.name}" has, '
                "which it shares"
            )
        mine = dict(zip(owner.columns, self.columns, strict=True))
        self.numeric = [mine[column] for column in owner.numeric]
        self.categorical = [mine[column] for column in owner.categorical]
        for key in _SHARED:
            setattr(self, key, getattr(owner, key))

    @property
    def owner(self) -> BehaviourTower:
        """The tower that holds what was learnt and the weights: this one, or the one it shares with."""
        return self.share if self.share is not None else self

    # -- learning from data -------------------------------------------------------------------------------------------

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Learns normalisers and categories from raw batches ``{column: array [n] or [n, width]}``, read once.

        Raises:
            ValueError: when the tower shares or is built, no row comes, or a column is of the wrong kind or width.
        """
        if self.share is not None:
            raise ValueError(f'BehaviourTower "{self.name}" shares with "{self.share.name}"; adapt that one')
        if self.built:
            raise ValueError(f'BehaviourTower "{self.name}" already has weights for what it learnt; adapt a new tower')
        samples: dict[str, list[normalise.Sample]] = {}
        counts: dict[str, Counter[bytes]] = {column: Counter() for column in self.categorical}
        rows = 0
        for batch in batches:
            for column in self.numeric:
                values = self._numbers(column, batch[column])
                if column not in samples:
                    samples[column] = [normalise.Sample() for _ in range(values.shape[1])]
                elif len(samples[column]) != values.shape[1]:
                    raise ValueError(
                        f'BehaviourTower "{self.name}": column "{column}" is {values.shape[1]} wide; '
                        f"it was {len(samples[column])} before"
                    )
                for sample, feature in zip(samples[column], values.T, strict=True):
                    sample.add(feature[np.isfinite(feature)])
            for column in self.categorical:
                counts[column].update(self._strings(column, batch[column]))
            rows += len(batch[self.columns[0]])
        if not rows:
            raise ValueError(f'BehaviourTower "{self.name}": no row of {", ".join(self.columns)} to learn from')
        self.widths = {column: len(samples[column]) for column in self.numeric}
        learnt = normalise.learn(self.normalize, [s.values() for column in self.numeric for s in samples[column]])
        self._know(Learnt(learnt, {} if self.hash_buckets else self._most_frequent(counts)))

    def _numbers(self, column: str, values: Any) -> np.ndarray:
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            raise ValueError(
                f'BehaviourTower "{self.name}": column "{column}" holds strings, not numbers; name it in categorical'
            )
        return values.reshape(len(values), -1)

    def _strings(self, column: str, values: Any) -> list[bytes]:
        values = np.asarray(values)
        if values.dtype.kind in "fiub" or values.ndim != 1:
            raise ValueError(
                f'BehaviourTower "{self.name}": column "{column}" holds numbers, not strings; name it in numeric'
            )
        return [value.encode() if isinstance(value, str) else value for value in values.tolist() if value]

    def _most_frequent(self, counts: Mapping[str, Counter[bytes]]) -> dict[str, list[str]]:
        return {
            column: [
                value.decode("utf-8")
                for value, _ in sorted(counter.items(), key=lambda entry: (-entry[1], entry[0]))[: self.max_categories]
            ]
            for column, counter in counts.items()
        }

    def _know(self, learnt: Learnt) -> None:
        self.learnt = learnt
        self._tables = {}
        # Tables must not belong to whatever graph is being traced.
        with tf.init_scope():
            for column, values in learnt.categories.items():
                initializer = tf.lookup.KeyValueTensorInitializer(
                    tf.constant(values, tf.string, shape=[len(values)]),
                    tf.range(UNKNOWN_ID + 1, UNKNOWN_ID + 1 + len(values), dtype=tf.int32),
                )
                self._tables[column] = tf.lookup.StaticHashTable(initializer, UNKNOWN_ID)

    # -- host ---------------------------------------------------------------------------------------------------------

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Raw columns to what the network reads; a part without columns is left out.

        Returns:
            ``numeric``: float32 ``[n, F]``, normalised, 0 where missing. ``present``: float32 ``[n, F]``, 1 or 0.
            ``categories``: int32 ``[n, C]``; 0 missing, 1 unknown (or, hashed, 1 and up the buckets).

        Raises:
            ValueError: before ``adapt``.
        """
        owner = self.owner
        if owner.learnt is None:
            raise ValueError(f'BehaviourTower "{owner.name}" has learnt nothing yet; call adapt first')
        features = {}
        if self.numeric:
            values = tf.concat(
                [
                    tf.reshape(tf.cast(raw[column], tf.float32), [-1, owner.widths[theirs]])
                    for column, theirs in zip(self.numeric, owner.numeric, strict=True)
                ],
                axis=1,
            )
            there = tf.math.is_finite(values)
            values = normalise.apply(owner.normalize, owner.learnt.numbers, tf.where(there, values, 0.0))
            features["numeric"] = tf.where(there, values, 0.0)
            features["present"] = tf.cast(there, tf.float32)
        if self.categorical:
            columns = zip(self.categorical, owner.categorical, strict=True)
            features["categories"] = tf.stack(
                [owner._category_ids(theirs, raw[column]) for column, theirs in columns], 1
            )
        return features

    def _category_ids(self, column: str, values: Any) -> Any:
        values = tf.convert_to_tensor(values, tf.string)
        if self.hash_buckets:
            ids = tf.cast(tf.strings.to_hash_bucket_fast(values, self.hash_buckets), tf.int32) + MISSING_ID + 1
        else:
            ids = self._tables[column].lookup(values)
        return tf.where(tf.equal(values, ""), MISSING_ID, ids)

    # -- accelerator --------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Makes the embeddings, for the categories learnt, and the dense layers."""
        if self.share is not None:
            if not self.share.built:
                self.share.build(input_shape)
        elif not self.built:
            if self.learnt is None:
                raise ValueError(f'BehaviourTower "{self.name}" has learnt nothing yet; call adapt first')
            sizes = [
                self.hash_buckets + 1 if self.hash_buckets else len(self.learnt.categories[column]) + UNKNOWN_ID + 1
                for column in self.categorical
            ]
            self.embeddings = [
                keras.layers.Embedding(size, self.embedding_dim, name=f"embedding_{i}") for i, size in enumerate(sizes)
            ]
            self.dense = [keras.layers.Dense(width, "gelu", name=f"dense_{i}") for i, width in enumerate(self.hidden)]
            self.drop = keras.layers.Dropout(self.dropout, name="drop")
            self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
            self.project = keras.layers.Dense(self.dim, name="project")
        super().build(input_shape)

    def call(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """What ``preprocess`` gives to one token: values ``[n, 1, dim]``, mask ``[n, 1]``."""
        return self.owner._encode(features, training)

    def _encode(self, features: Mapping[str, Any], training: bool) -> Tokens:
        parts, there = [], []
        if self.numeric:
            present = tf.cast(features["present"], self.compute_dtype)
            spread = [tf.cast(values, self.compute_dtype) * present for values in self._spread(features["numeric"])]
            parts += [*spread, 1.0 - present]
            there.append(tf.reduce_any(present > 0, axis=1))
        if self.categorical:
            ids = features["categories"]
            parts += [embedding(ids[:, i]) for i, embedding in enumerate(self.embeddings)]
            there.append(tf.reduce_any(ids != MISSING_ID, axis=1))
        hidden = tf.concat(parts, axis=1)
        for dense in self.dense:
            hidden = self.drop(dense(hidden), training=training)
        mask = tf.reduce_any(tf.stack(there), axis=0)[:, None]
        values = self.project(self.norm(hidden))[:, None]
        return Tokens(tf.where(mask[..., None], values, tf.zeros_like(values)), mask)

    def _spread(self, numbers: Any) -> list[Any]:
        """Normalised numbers ``[n, F]`` over their bins, a part ``[n, F]`` each."""
        if self.bins is None:
            return [numbers]
        through = (numbers + 1.0) / 2.0 * self.bins  # how many bins the value has gone through
        return [tf.clip_by_value(through - k, 0.0, 1.0) * 2.0 - 1.0 for k in range(self.bins)]

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``, with what ``adapt`` learnt (of the owner only, when shared)."""
        return {
            **super().get_config(),
            "numeric": self.numeric,
            "categorical": self.categorical,
            "normalize": self.normalize,
            "bins": self.bins,
            "max_categories": self.max_categories,
            "hash_buckets": self.hash_buckets,
            "embedding_dim": self.embedding_dim,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "widths": dict(self.widths),
            "learnt": asdict(self.learnt) if self.share is None and self.learnt is not None else None,
        }
