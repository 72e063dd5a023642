"""The Ranker: towers, fusion, cross tower and score head, composed into one Keras model."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from tfmmrank.columns import RankerColumns, batches_for, columns_read, missing_values
from tfmmrank.cross_tower import CrossTower
from tfmmrank.data.batches import ListBatches
from tfmmrank.fusion import Fusion, fusions
from tfmmrank.matching import Match, MatchFeatures, matches
from tfmmrank.objectives import get_loss, get_metric
from tfmmrank.registry import nearest, options_of
from tfmmrank.stack import keras, tf, tfrs
from tfmmrank.tokens import Tokens
from tfmmrank.towers import Tower, towers

PADDING_SCORE = -1e9  # finite, so that JSON can carry it
_WEIGHTS = "ranker.safetensors"
_MATCH = "/match"  # ends the key of a tower's match tokens, beside those that are fused


@keras.utils.register_keras_serializable("tfmmrank")
class Ranker(tfrs.Model):
    """Scores the items of a list for a query.

    Args:
        towers: towers of the sides query, item and slot; names are unique; at least one item or slot tower.
        fusion: a Fusion, or the name of a registered one.
        dim: width of the fused vector when ``fusion`` is a name.
        cross_layers: number of TFRS ``Cross`` layers (DCN v2) over the fused vector.
        cross_projection: rank of their matrices; None: full.
        deep: widths of the Dense layers after them.
        dropout: rate after each deep layer, in [0, 1).
        context: list context, see ``CrossTower``; None: an item's score does not depend on the others of its list.
        match: what to compare a query and an item by, without training; see ``tfmmrank.matching``.
        modality_dropout: rates in [0, 1) by name of an item or slot tower, at which training hides that modality of an
            item in a list, so that none is leant on and a missing one costs little.
        columns: raw columns and kinds; learnt by ``adapt``.

    Raises:
        ValueError: for towers of equal name, no item or slot tower, a share outside the ranker, a tower that is neither
            fused nor matched, or a match of towers that cannot be compared.

    Example:
        >>> query = TextTower(["query"], side="query", name="query")
        >>> ranker = Ranker([query, TextTower(["title"], share=query, name="title")], fusion="gated")
        >>> ranker.adapt(data)
        >>> ranker.compile("adam", loss="softmax_loss", metrics=["ndcg@10"])
        >>> ranker.fit(data.dataset("train", ranker, shuffle=True), validation_data=data.dataset("valid", ranker))
    """

    def __init__(
        self,
        towers: Sequence[Tower],
        fusion: Fusion | str = "concat",
        dim: int = 64,
        cross_layers: int = 2,
        cross_projection: int | None = None,
        deep: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        context: Mapping[str, Any] | None = None,
        match: Sequence[Match] = (),
        modality_dropout: Mapping[str, float] | None = None,
        columns: RankerColumns | None = None,
        name: str | None = None,
    ) -> None:
        # Nothing is cast on its way in: in mixed precision, the matches still compare what the store has.
        super().__init__(name=name, dtype="float32", autocast=False)
        _check_towers(towers, match)
        _check_modality_dropout(towers, modality_dropout or {})
        self.towers = list(towers)
        self.fusion = fusions[fusion](dim=dim) if isinstance(fusion, str) else fusion
        self.columns = columns
        self._settings = {
            "cross_layers": cross_layers,
            "cross_projection": cross_projection,
            "deep": list(deep),
            "dropout": dropout,
            "context": dict(context) if context is not None else None,
            "modality_dropout": dict(modality_dropout or {}),
        }
        self.cross = CrossTower(cross_layers, cross_projection, deep, dropout, context, name="cross")
        self.matching = MatchFeatures(match, name="matching") if match else None
        self._matched = {name for each in match for name in (each.query, each.item)}
        self._hide = {
            name: keras.layers.Dropout(rate, name=f"hide_{name}") for name, rate in (modality_dropout or {}).items()
        }
        for drop in self._hide.values():
            drop.build(None)  # its random state exists, and is checkpointed, from the start
        self._watch(None)

    # -- preprocessing: raw columns to numbers, on the host -----------------------------------------------------------

    def side(self, side: str) -> list[Tower]:
        """The towers of one side, in order."""
        return [tower for tower in self.towers if tower.side == side]

    def adapt(self, data: Any, progress: bool = True) -> Ranker:
        """Learns vocabularies and normalisers from the training queries and lists, and the catalogue.

        Args:
            data: a ``Prepared`` dataset.
            progress: whether encoding the catalogue, which matches need, shows progress bars.

        Raises:
            ValueError: when a tower reads a column that the dataset lacks.
        """
        self.columns = self.columns_in(data)
        lists = data.lists("train")
        for owner in (tower for tower in self.towers if tower.share is None):
            users = [owner]
            if owner.learns_from_sharers:
                users = [tower for tower in self.towers if tower is owner or tower.share is owner]
            owner.adapt(batches_for(owner, users, data, lists))
        if self.matching is not None:
            self.build_from_columns()
            self.matching.adapt(self._match_values(data, progress))
        return self

    def _match_values(self, data: Any, progress: bool) -> Iterator[np.ndarray]:
        """Raw match features ``[n, M]`` of the training pairs."""
        compare = tf.function(self.match_features, autograph=False)
        for batch, _, _ in ListBatches(data, "train", self, batch_size=16, static=True, progress=progress).epoch(0):
            yield compare(batch).numpy()[batch["slot_mask"]]

    def match_features(self, batch: Mapping[str, Any]) -> Any:
        """Match features of a batch as they come, float32 ``[B, L, M]``; ``matching.names`` names them.

        Raises:
            ValueError: for a ranker without matches.
        """
        if self.matching is None:
            raise ValueError("the ranker has no match; give it some to have match features")
        query, item = self._encode_batch(batch)
        return self.matching.raw(_of_matches(query), _of_matches(item))

    def columns_in(self, data: Any) -> RankerColumns:
        """The columns of a ``Prepared`` dataset that the towers read.

        Raises:
            ValueError: when it lacks one, or has one of another kind or width than the ranker was adapted to.
        """
        return columns_read(self.towers, data, self.columns)

    def _preprocess(self, side: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        features = {}
        for tower in self.side(side):
            for key, value in tower.embed(tower.preprocess({column: raw[column] for column in tower.columns})).items():
                features[f"{side}/{tower.name}/{key}"] = value
        return features

    def preprocess_query(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Raw query columns ``[B]`` to features ``{"query/TOWER/FEATURE": [B, ...]}``."""
        return self._preprocess("query", raw)

    def preprocess_items(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Raw item columns ``[n]`` to features ``{"item/TOWER/FEATURE": [n, ...]}``."""
        return self._preprocess("item", raw)

    def preprocess_slots(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Raw slot columns ``[n]`` or ``[n, width]`` to features ``{"slot/TOWER/FEATURE": [n, ...]}``."""
        return self._preprocess("slot", raw)

    # -- the numeric part: what runs on the accelerator ---------------------------------------------------------------

    def _encode(self, side: str, features: Mapping[str, Any], training: bool) -> dict[str, Tokens]:
        tokens = {}
        for tower in self.side(side):
            prefix = f"{side}/{tower.name}/"
            own: Any = {key[len(prefix) :]: value for key, value in features.items() if key.startswith(prefix)}
            if tower.name in self._matched:
                tokens[tower.name + _MATCH] = tower.match_tokens(own, training)
                if tower.goes_on_from_match_tokens:
                    own = tokens[tower.name + _MATCH]
            if tower.fused:
                tokens[tower.name] = _checked(tower, Tokens(*tower(own, training=training)))
        return tokens

    def encode_query(self, features: Mapping[str, Any], training: bool = False) -> dict[str, Tokens]:
        """Query features to ``{tower: Tokens [B, T, d]}``, and ``{"TOWER/match": Tokens [B, T, w]}`` where matched."""
        return self._encode("query", features, training)

    def encode_items(self, features: Mapping[str, Any], training: bool = False) -> dict[str, Tokens]:
        """Item features to tokens, as ``encode_query``, ``[n, T, d]``; an item's tokens depend on that item alone."""
        return self._encode("item", features, training)

    def fused_tokens(self, tokens: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """Of what ``encode_query`` or ``encode_items`` gave, the tokens that are fused."""
        return {name: part for name, part in tokens.items() if not name.endswith(_MATCH)}

    def encode_slots(self, features: Mapping[str, Any], training: bool = False) -> dict[str, Tokens]:
        """Slot features ``[B, L, ...]`` to ``{tower: Tokens [B, L, T, d]}``."""
        flat: dict[str, Any] = {}
        leading: list[Any] = []
        for key, value in features.items():
            if key.startswith("slot/"):
                shape = tf.shape(value)
                leading = [_dim(value, 0, shape), _dim(value, 1, shape)]
                flat[key] = tf.reshape(value, tf.concat([[-1], shape[2:]], 0))
                flat[key].set_shape([None if None in value.shape[:2] else np.prod(value.shape[:2]), *value.shape[2:]])
        encoded = self._encode("slot", flat, training)
        return {
            name: Tokens(
                tf.reshape(tokens.values, [*leading, *tokens.values.shape[1:]]),
                tf.reshape(tokens.mask, [*leading, tokens.mask.shape[1]]),
            )
            for name, tokens in encoded.items()
        }

    def score(
        self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], slot_mask: Any, training: bool = False
    ) -> Any:
        """Scores ``[B, L]`` from tokens.

        Args:
            query: by query tower, ``[B, T, d]``.
            item: by item and slot tower, ``[B, L, T, d]``, in any order.
            slot_mask: bool ``[B, L]``; false slots score ``PADDING_SCORE``.
            training: whether dropout is on.
        """
        item = {name: Tokens(t.values, t.mask & slot_mask[..., None]) for name, t in item.items()}
        if training:
            item = self._hidden_at_random(item)
        order = [tower for tower in self.towers if tower.fused]
        of_type = self.fusion.compute_dtype  # a tower of one's own may compute in another
        fused_query = {tower.name: _cast(query[tower.name], of_type) for tower in order if tower.side == "query"}
        fused_item = {tower.name: _cast(item[tower.name], of_type) for tower in order if tower.side != "query"}
        fused = self.fusion(fused_query, fused_item, training=training) if fused_item else None
        matched = self.matching(_of_matches(query), _of_matches(item)) if self.matching is not None else None
        scores = self.cross(fused, matched, slot_mask, training=training)
        return tf.where(slot_mask, scores, tf.constant(PADDING_SCORE, scores.dtype))

    def _hidden_at_random(self, item: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """The tokens, with whole modalities of single items masked: of the fusion and of matches together."""
        shown = dict(item)
        for name, drop in self._hide.items():
            first = item[name] if name in item else item[name + _MATCH]
            shown_at = drop(tf.ones_like(first.mask[..., :1], tf.float32), training=True) > 0
            shown = hide(shown, name, shown_at)
        return shown

    def scores_hiding(self, batch: Mapping[str, Any], hidden: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Scores of a batch as if its items lacked one modality, for each in turn; the items are encoded once.

        Args:
            batch: as ``call`` takes it.
            hidden: by modality its item or slot towers, to be hidden together from the fusion and from matches.

        Returns:
            ``{modality: [B, L]}``.

        Raises:
            ValueError: for a name that no item or slot tower has.
        """
        for name in itertools.chain.from_iterable(hidden.values()):
            _check_modality(self.towers, name)
        query, item = self._encode_batch(batch)
        scores = {}
        for modality, names in hidden.items():
            left = functools.reduce(self._without, names, item)
            scores[modality] = self.score(query, left, batch["slot_mask"])
        return scores

    def _without(self, item: Mapping[str, Tokens], name: str) -> dict[str, Tokens]:
        """Item tokens as if what a tower reads were missing."""
        return hide(item, name)

    def call(self, batch: Mapping[str, Any], training: bool = False) -> Any:
        """Scores a batch as ``Prepared.dataset`` gives it: float32 ``[B, L]``, ``PADDING_SCORE`` in padding."""
        query, item = self._encode_batch(batch, training)
        return self.score(query, item, batch["slot_mask"], training)

    def _encode_batch(
        self, batch: Mapping[str, Any], training: bool = False
    ) -> tuple[dict[str, Tokens], dict[str, Tokens]]:
        """A batch's query tokens ``[B, T, d]`` and item tokens ``[B, L, T, d]``, each distinct item encoded once."""
        query = self.encode_query(batch, training)
        distinct = self.encode_items(batch, training)
        item = {
            name: Tokens(tf.gather(tokens.values, batch["item_index"]), tf.gather(tokens.mask, batch["item_index"]))
            for name, tokens in distinct.items()
        }
        item.update(self.encode_slots(batch, training))
        return query, item

    @tf.__internal__.tracking.no_automatic_dependency_tracking
    def _watch(self, task: Any) -> None:
        """Sets the task, untracked: what its metrics counted is no part of the model's weights."""
        self.task = task
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        """The mean loss, then the metrics compiled."""
        return [self.loss_tracker, *(self.task.metrics if self.task is not None else [])]

    # -- Keras ------------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = "softmax_loss",
        metrics: Any = ("ndcg@10",),
        loss_options: Mapping[str, Any] | None = None,
        encoder_optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """As Keras's ``compile``; loss and metrics may be TF-Ranking names (see ``tfmmrank.objectives``).

        The loss is the sum over a batch, of all replicas, divided by its number of lists that have a label. So padded
        lists do not change it, and padded slots only scale or shift it where TF-Ranking's own definition counts them:
        lambda-weighted losses grow with the padded length, ListMLE by a constant.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: TF-Ranking's name for one (not ``ordinal_loss``, which needs a score a grade), or a loss of labels and
                scores ``[B, L]`` with ``reduction=keras.losses.Reduction.SUM``.
            metrics: one or several, by TF-Ranking's names with a cut-off (``ndcg@10``) or as objects; None: none.
            loss_options: options of a loss given by name.
            encoder_optimizer: for the pretrained encoders' trainable weights, which want a smaller learning rate than
                fresh ones; None: ``optimizer``.
            **kwargs: as Keras's, such as ``jit_compile``.

        Raises:
            ValueError: for an unknown name, or a loss that cannot work.
        """
        if isinstance(loss, str):
            loss = get_loss(loss, **(loss_options or {}))
        elif loss_options:
            raise ValueError("loss_options only go with a loss given by name")
        elif getattr(loss, "reduction", None) != keras.losses.Reduction.SUM:
            raise ValueError(
                f"loss is {loss!r}; expected a TF-Ranking name, or a keras.losses.Loss made with "
                "reduction=keras.losses.Reduction.SUM"
            )
        if metrics is None or isinstance(metrics, (str, keras.metrics.Metric)):
            metrics = [] if metrics is None else [metrics]
        self._watch(
            tfrs.tasks.Ranking(
                loss=loss, metrics=[get_metric(metric) if isinstance(metric, str) else metric for metric in metrics]
            )
        )
        self.encoder_optimizer = keras.optimizers.get(encoder_optimizer) if encoder_optimizer is not None else None
        # The task holds the metrics; saying so keeps Keras from warning of weights without weighted metrics.
        super().compile(optimizer=optimizer, **{"weighted_metrics": [], **kwargs})

    def compute_loss(self, inputs: Any, training: bool = False) -> Any:
        """Loss of a ``(features, labels, weights)`` batch; updates the metrics."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        scores = self(features, training=training)
        known = labels >= 0
        scores = tf.where(known, scores, tf.zeros_like(scores))
        loss = self.task(labels, scores, sample_weight=weights, training=training, compute_metrics=False)
        for metric in self.task.metrics:
            # Label weights are the loss's: NDCG is reported without them. Lists without a positive label are skipped.
            counted = known & tf.reduce_any(labels > 0, axis=1, keepdims=True)
            metric.update_state(labels, scores, sample_weight=tf.cast(counted, scores.dtype))
        lists = tf.reduce_sum(tf.cast(tf.reduce_any(known, axis=1), loss.dtype))
        self.loss_tracker.update_state(loss / tf.maximum(lists, 1.0), sample_weight=lists)
        if training and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            # The optimizer sums the replicas' gradients, whose batches may hold unequally many lists.
            lists = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, lists)
        return loss / tf.maximum(lists, 1.0)

    def train_step(self, inputs: Any) -> dict[str, Any]:
        """One step. Unlike TFRS's own it reports the epoch's mean loss, and replicas share the regularisation."""
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True)
            loss += tf.add_n([tf.zeros_like(loss), *self.losses]) / tf.distribute.get_strategy().num_replicas_in_sync
        shares = self._optimizer_shares()
        gradients = tape.gradient(loss, [variables for _, variables in shares])
        for (optimizer, variables), some in zip(shares, gradients, strict=True):
            optimizer.apply_gradients(zip(some, variables, strict=True))
        return {metric.name: metric.result() for metric in self.metrics}

    def _optimizer_shares(self) -> list[tuple[Any, list[Any]]]:
        """The optimizers and the variables that each of them trains."""
        if self.encoder_optimizer is None:
            return [(self.optimizer, self.trainable_variables)]
        slow = {id(weight) for tower in self.towers for weight in tower.pretrained_weights}
        shares: list[tuple[Any, list[Any]]] = [(self.optimizer, []), (self.encoder_optimizer, [])]
        for variable in self.trainable_variables:
            shares[id(variable) in slow][1].append(variable)
        return [share for share in shares if share[1]]

    def build_optimizers(self) -> None:
        """Makes the optimizers' slots, which a checkpoint is restored into; legacy ones make theirs in a step."""
        for optimizer, variables in self._optimizer_shares():
            if hasattr(optimizer, "build"):
                optimizer.build(variables)

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras's, with all variables made first: a step that makes some is traced twice."""
        if self.columns is not None:
            if not self.built:
                self.build_from_columns()
            self.build_optimizers()
        return super().make_train_function(force)

    def test_step(self, inputs: Any) -> dict[str, Any]:
        """One evaluation step; reports the mean loss."""
        self.compute_loss(inputs, training=False)
        return {metric.name: metric.result() for metric in self.metrics}

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Not Keras's: a ranker is saved with what its towers learnt from data."""
        raise NotImplementedError("use save_ranker(directory), or tfmmrank.export.export to serve it")

    def build_from_columns(self) -> Ranker:
        """Creates all weights by scoring one list of missing values."""
        if self.columns is None:
            raise ValueError("the ranker does not know its columns yet; call adapt(data) first")
        raw = {
            side: {name: tf.constant(missing_values(kind, (1,))) for name, kind in getattr(self.columns, side).items()}
            for side in ("query", "item", "slot")
        }
        batch: dict[str, Any] = {**self.preprocess_query(raw["query"]), **self.preprocess_items(raw["item"])}
        batch.update({key: value[None] for key, value in self.preprocess_slots(raw["slot"]).items()})
        batch["item_index"] = tf.zeros([1, 1], tf.int32)
        batch["slot_mask"] = tf.ones([1, 1], tf.bool)
        self(batch)
        return self

    # -- saving -----------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Everything but the weights, as JSON values."""
        return {
            "name": self.name,
            "towers": [{"kind": towers.name_of(type(tower)), **_config(tower)} for tower in self.towers],
            "fusion": {"kind": fusions.name_of(type(self.fusion)), **_config(self.fusion)},
            "match": [
                {"kind": matches.name_of(type(match)), **_config(match)}
                for match in (self.matching.matches if self.matching is not None else [])
            ],
            "columns": asdict(self.columns) if self.columns is not None else None,
            **self._settings,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Ranker:
        """The ranker of ``get_config``, with fresh weights."""
        config = dict(config)
        made: dict[str, Tower] = {}
        for tower_config in sorted(config["towers"], key=lambda part: part["share"] is not None):
            options = dict(tower_config)
            kind, share = options.pop("kind"), options.pop("share")
            made[options["name"]] = towers[kind](**options, share=made[share] if share else None)
        fusion = dict(config["fusion"])
        config["towers"] = [made[part["name"]] for part in config["towers"]]
        config["fusion"] = fusions[fusion.pop("kind")](**fusion)
        config["match"] = [
            matches[part["kind"]](**{k: v for k, v in part.items() if k != "kind"}) for part in config["match"]
        ]
        config["columns"] = RankerColumns(**config["columns"]) if config["columns"] else None
        return cls(**config)

    def save_ranker(self, directory: str | Path) -> None:
        """Writes ``ranker.json`` and the weights into a directory; ``load_ranker`` reads them back."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if not self.built:
            self.build_from_columns()
        _write_weights(self, directory / _WEIGHTS)
        (directory / "ranker.json").write_text(json.dumps(self.get_config(), ensure_ascii=False, indent=1), "utf-8")

    @classmethod
    def load_ranker(cls, directory: str | Path) -> Ranker:
        """Reads what ``save_ranker`` wrote, an ensemble too. Towers and fusions of your own must be registered before.

        Raises:
            FileNotFoundError: when the directory holds no ranker.
        """
        directory = Path(directory)
        if not (directory / "ranker.json").is_file():
            raise FileNotFoundError(f"{directory}: holds no ranker (ranker.json is missing); train one first")
        config = json.loads((directory / "ranker.json").read_text("utf-8"))
        if "members" in config:
            from tfmmrank.ensemble import Ensemble  # which is a Ranker

            cls = Ensemble
        ranker = cls.from_config(config).build_from_columns()
        _read_weights(ranker, directory / _WEIGHTS)
        return ranker


def _dim(value: Any, axis: int, shape: Any) -> Any:
    """A dimension: static where it is known, which XLA and downstream layers need."""
    return value.shape[axis] if value.shape[axis] is not None else shape[axis]


def _checked(tower: Tower, tokens: Tokens) -> Tokens:
    values, mask = tokens.values.shape, tokens.mask.shape
    if values.rank != 3 or mask.rank != 2 or values[-1] != tower.dim:
        raise ValueError(
            f'tower "{tower.name}" gave values of shape {values} and a mask of shape {mask}; expected '
            f"[n, T, {tower.dim}] and [n, T]"
        )
    return tokens


def _config(part: Tower | Fusion | Match) -> dict[str, Any]:
    """A part's configuration; one that forgets an option would come back as another part than was trained."""
    config = part.get_config()
    forgotten = sorted(set(options_of(type(part))) - set(config))
    if forgotten:
        raise ValueError(
            f'{type(part).__name__} "{part.name}": get_config does not return {", ".join(forgotten)}, which __init__ '
            "takes; return every option, or a saved ranker would be made without it"
        )
    return config


def _check_towers(given: Sequence[Tower], match: Sequence[Match]) -> None:
    names = [tower.name for tower in given]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'two towers are named "{name}"; give each its own name')
        if "/" in name:
            raise ValueError(f'tower name "{name}" contains "/"')
    if not any(tower.side != "query" for tower in given):
        raise ValueError("a ranker needs at least one tower of side item or slot")
    widths = {tower.name: tower.dim for tower in given if tower.fused}
    if len(set(widths.values())) > 1:
        raise ValueError(f"the towers' dims differ ({widths}); a fusion compares their tokens: give all one dim")
    for tower in given:
        if tower.share is not None and (tower.share not in given or tower.share.share is not None):
            raise ValueError(
                f'tower "{tower.name}" shares with "{tower.share.name}", which must be a tower of the same ranker '
                "that itself shares with none"
            )
    by_name = {tower.name: tower for tower in given}
    for each in match:
        for name, sides in ((each.query, ("query",)), (each.item, ("item", "slot"))):
            if name not in by_name or by_name[name].side not in sides or by_name[name].match_width is None:
                fit = [t.name for t in given if t.side in sides and t.match_width is not None]
                raise ValueError(
                    f'match "{each.name}": "{name}" is no tower of side {" or ".join(sides)} that can be matched by; '
                    f"those are: {', '.join(fit) or 'none'}"
                )
        try:
            each.bind(by_name[each.query], by_name[each.item])
        except ValueError as error:
            raise ValueError(f'match "{each.name}": {error}') from error
    matched = {name for each in match for name in (each.query, each.item)}
    for tower in given:
        if not tower.fused and tower.name not in matched:
            raise ValueError(f'tower "{tower.name}" is neither fused nor matched: nothing would read it')


def _check_modality_dropout(given: Sequence[Tower], rates: Mapping[str, float]) -> None:
    for name, rate in rates.items():
        _check_modality(given, name, "modality_dropout: ")
        if not 0 <= rate < 1:
            raise ValueError(f"modality_dropout: the rate of {name} is {rate}; expected one in [0, 1)")


def _check_modality(given: Sequence[Tower], name: str, where: str = "") -> None:
    """Raises ValueError for a name that no item or slot tower has."""
    known = [tower.name for tower in given if tower.side != "query"]
    if name not in known:
        raise ValueError(f'{where}no item or slot tower "{name}"{nearest(name, known)}; towers: {", ".join(known)}')


def hide(item: Mapping[str, Tokens], name: str, shown_at: Any = False) -> dict[str, Tokens]:
    """The tokens with one modality masked but where ``shown_at``: those that are fused and those of matches."""
    hidden = {key: Tokens(item[key].values, item[key].mask & shown_at) for key in (name, name + _MATCH) if key in item}
    return {**item, **hidden}


def _cast(tokens: Tokens, dtype: str) -> Tokens:
    return Tokens(tf.cast(tokens.values, dtype), tokens.mask)


def _of_matches(tokens: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """Match tokens by tower."""
    return {name.removesuffix(_MATCH): part for name, part in tokens.items() if name.endswith(_MATCH)}


def _write_weights(ranker: Ranker, file: Path) -> None:
    """All weights, and nothing else: Keras's own file would hold the optimizer's too, and lack layers within tuples."""
    save_file({f"{i:04d} {weight.name}": np.asarray(weight.numpy()) for i, weight in enumerate(ranker.weights)}, file)


def _read_weights(ranker: Ranker, file: Path) -> None:
    """Raises ValueError when the file is not of this ranker."""
    with safe_open(file, "numpy") as saved:
        keys = sorted(saved.keys(), key=lambda key: int(key.split()[0]))
        values = [saved.get_tensor(key) for key in keys]
    shapes = [tuple(value.shape) for value in values], [tuple(weight.shape) for weight in ranker.weights]
    if shapes[0] != shapes[1]:
        differing = next((key for key, *two in zip(keys, *shapes, strict=False) if two[0] != two[1]), "their number")
        raise ValueError(
            f"{file}: holds {len(values)} weights, and ranker.json makes a ranker of {len(ranker.weights)}; they "
            f"differ in {differing}: was a part of it changed since?"
        )
    for weight, value in zip(ranker.weights, values, strict=True):
        weight.assign(value)
