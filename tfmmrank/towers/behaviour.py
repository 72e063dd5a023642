"""The behaviour tower: numbers and categories, such as price, brand, past clicks, or a LETOR file's features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower, towers
from tfmmrank.towers.normalize import NORMALIZERS, learn_normalizer, normalize


@dataclass(frozen=True)
class Learnt:
    """What ``adapt`` learnt: by column, a normaliser for each component, or the known categories."""

    numeric: dict[str, list[dict[str, Any]]]
    categories: dict[str, list[str]]


@towers.register("behaviour")
class BehaviourTower(Tower):
    """Numbers and categories to one token.

    ``adapt`` learns a normaliser for every number and a vocabulary for every category.

    Args:
        columns: the columns; numeric unless named in ``categorical``. A slot column may be wide.
        side: ``item``, ``slot`` or ``query``.
        dim: width of the token.
        share: a behaviour tower whose normalisers, vocabularies and weights this one uses.
        categorical: which of the columns are categories.
        normalize: ``quantile`` (piecewise linear to [−1, 1]), ``log`` (signed log1p, then standardised), ``standard``.
        hash_buckets: hash categories into so many buckets instead of learning a vocabulary; None: learn.
        max_categories: the most frequent values that get an embedding of their own.
        embedding_dim: width of a category's embedding.
        hidden: widths of the Dense layers.
        dropout: rate in [0, 1).
        learnt: what ``adapt`` learnt, when already known.

    Output: ``Tokens`` with values ``[n, 1, dim]``; a row in which every column is missing is masked out.

    Example:
        >>> tower = BehaviourTower(["price", "brand"], categorical=["brand"], name="attributes")
        >>> tower.adapt([{"price": np.array([9.5, 20.0]), "brand": np.array([b"Acme", b"Zenit"])}])
        >>> tower(tower.preprocess({"price": tf.constant([10.0]), "brand": tf.constant(["Acme"])})).values.shape
        TensorShape([1, 1, 64])
    """

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: Tower | None = None,
        categorical: Iterable[str] = (),
        normalize: str = "quantile",
        hash_buckets: int | None = None,
        max_categories: int = 5000,
        embedding_dim: int = 16,
        hidden: Iterable[int] = (64,),
        dropout: float = 0.1,
        learnt: Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, side, dim, share, name, **kwargs)
        self.categorical = list(categorical)
        for column in self.categorical:
            if column not in self.columns:
                raise ValueError(f'BehaviourTower "{self.name}": categorical names "{column}", which is not in columns')
        if normalize not in NORMALIZERS:
            raise ValueError(
                f'BehaviourTower "{self.name}": normalize is "{normalize}"; expected one of {", ".join(NORMALIZERS)}'
            )
        self.numeric = [column for column in self.columns if column not in self.categorical]
        self.normalize, self.hash_buckets, self.max_categories = normalize, hash_buckets, max_categories
        self.embedding_dim, self.hidden, self.dropout = embedding_dim, list(hidden), dropout
        self.learnt: Learnt | None = None
        if share is None:
            self._dense = [keras.layers.Dense(width, "gelu", name=f"dense_{i}") for i, width in enumerate(self.hidden)]
            self._project = keras.layers.Dense(dim, name="project")
            self._norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
            self._drop = keras.layers.Dropout(dropout)
            if learnt is not None:
                self._set_learnt(Learnt(**learnt))

    @property
    def owner(self) -> BehaviourTower:
        """The tower that holds what was learnt."""
        return self.share if isinstance(self.share, BehaviourTower) else self

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Learns normalisers (ignoring NaN) and vocabularies (ignoring empty values)."""
        samples: dict[str, list[np.ndarray]] = {column: [] for column in self.numeric}
        counts: dict[str, Counter[bytes]] = {column: Counter() for column in self.categorical}
        for batch in batches:
            for column in self.numeric:
                values = np.asarray(batch[column], np.float32)
                samples[column].append(values.reshape(len(values), -1))
            for column in self.categorical:
                counts[column].update(value for value in batch[column] if value)
        learnt = Learnt({}, {})
        for column, parts in samples.items():
            table = np.concatenate(parts) if parts else np.full((1, 1), np.nan, np.float32)
            learnt.numeric[column] = [learn_normalizer(values, self.normalize) for values in table.T]
        for column, counter in counts.items():
            common = [] if self.hash_buckets else sorted(counter.most_common(self.max_categories), key=lambda p: (-p[1], p[0]))
            learnt.categories[column] = [value.decode() if isinstance(value, bytes) else value for value, _ in common]
        self._set_learnt(learnt)

    def _set_learnt(self, learnt: Learnt) -> None:
        self.learnt = learnt
        self._tables, self._embeddings = {}, []
        for column in self.categorical:
            if self.hash_buckets:
                size = self.hash_buckets
            else:
                size = len(learnt.categories[column])
                keys = tf.constant(learnt.categories[column] or [""], tf.string)
                # 0: missing, 1: not in the vocabulary, from 2: known
                self._tables[column] = tf.lookup.StaticHashTable(
                    tf.lookup.KeyValueTensorInitializer(keys, tf.range(2, 2 + len(keys), dtype=tf.int32)), 1
                )
            self._embeddings.append(keras.layers.Embedding(size + 2, self.embedding_dim, name=f"embed_{column}"))

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers ``[n]`` or ``[n, width]`` and strings ``[n]`` to numeric features.

        Returns:
            ``numeric`` float32 ``[n, F]`` (0 where missing), ``present`` float32 ``[n, F]``, ``categories`` int32
            ``[n, C]`` (0 where missing, 1 where unknown).
        """
        owner = self.owner
        if owner.learnt is None:
            raise ValueError(f'BehaviourTower "{owner.name}" has not learnt its normalisers yet; call adapt first')
        names = dict(zip(owner.columns, self.columns, strict=True))
        rows = tf.shape(raw[self.columns[0]])[0]
        numbers, present, categories = [tf.zeros([rows, 0])], [tf.zeros([rows, 0])], [tf.zeros([rows, 0], tf.int32)]
        for column in owner.numeric:
            width = len(owner.learnt.numeric[column])
            values = tf.reshape(tf.cast(raw[names[column]], tf.float32), [-1, width])
            there = tf.math.is_finite(values)
            scaled = [
                normalize(tf.where(there[:, i], values[:, i], 0.0), learnt)
                for i, learnt in enumerate(owner.learnt.numeric[column])
            ]
            numbers.append(tf.where(there, tf.stack(scaled, 1), 0.0))
            present.append(tf.cast(there, tf.float32))
        for column in owner.categorical:
            value = raw[names[column]]
            if owner.hash_buckets:
                index = 2 + tf.cast(tf.strings.to_hash_bucket_fast(value, owner.hash_buckets), tf.int32)
            else:
                index = owner._tables[column].lookup(value)
            categories.append(tf.where(tf.equal(value, ""), 0, index)[:, None])
        return {"numeric": tf.concat(numbers, 1), "present": tf.concat(present, 1), "categories": tf.concat(categories, 1)}

    def call(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """Features to one token a row."""
        return self.owner.encode(features, training)

    def encode(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """The shared part."""
        categories = features["categories"]
        parts = [features["numeric"], features["present"]]
        parts += [embed(categories[:, i]) for i, embed in enumerate(self._embeddings)]
        hidden = tf.concat([tf.cast(part, self.compute_dtype) for part in parts], 1)
        for dense in self._dense:
            hidden = self._drop(dense(hidden), training=training)
        there = tf.reduce_any(features["present"] > 0, axis=1) | tf.reduce_any(categories > 0, axis=1)
        return Tokens(self._norm(self._project(hidden))[:, None], there[:, None])

    def get_config(self) -> dict[str, Any]:
        """Settings and what was learnt."""
        keys = ("categorical", "normalize", "hash_buckets", "max_categories", "embedding_dim", "hidden", "dropout")
        learnt = asdict(self.learnt) if self.learnt is not None else None
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}, "learnt": learnt}
