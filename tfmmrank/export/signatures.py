"""The signatures of an exported model: raw values in, scores or vectors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tfmmrank.export.item_table import ItemTable
from tfmmrank.export.raw_inputs import Arguments, Column, RawColumns
from tfmmrank.stack import tf, tfr
from tfmmrank.tokens import Tokens

# What `rank` scores an item that the table lacks: below any that it has, above padding, and finite, as JSON needs.
UNKNOWN_SCORE = -1e8
PAIRS = "regress"  # exported once; `classify` is a second name for its graph


class Signatures:
    """Builds the concrete functions that a SavedModel exposes; docs/architecture.md tells their inputs and outputs.

    Args:
        ranker: a trained ``Ranker``.
        columns: its columns.
        table: the item table; None where there is no catalogue, and then there is no ``rank``.
        description: what ``describe`` answers.
        while_traced: a context in which the ranker's layers are traced; entered in each function that runs some.
    """

    def __init__(
        self,
        ranker: Any,
        columns: RawColumns,
        table: ItemTable | None,
        description: str,
        while_traced: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.ranker, self.columns, self.table, self.description = ranker, columns, table, description
        self._while_traced = while_traced
        self.arguments = Arguments((*columns.query, *columns.places))
        query, items = _specs(columns.query, 1), _specs(columns.item, 1)
        lists = {**query, **_specs(columns.places, 2)}
        self._query_encoder = self._shared(self._encode_query, query)
        self._item_encoder = self._shared(self._encode_items, items)
        self._list_scorer = self._shared(self._score_lists, lists, tf.TensorSpec([None, None], tf.bool))

    def build(self) -> dict[str, Any]:
        """Concrete functions by signature."""
        columns = self.columns
        query = _specs(columns.query, 1)
        ids = {"item_ids": tf.TensorSpec([None, None], tf.string)}
        size = {"num_items": tf.TensorSpec([None], tf.int32)}
        functions = {}
        if self.table is not None:
            functions["rank"] = self._function(self.rank, {**query, **ids, **size})
        if columns.places:
            places = _specs(columns.places, 2)
            functions["rank_features"] = self._function(self.rank_features, {**query, **places, **size})
            serialized = tf.TensorSpec([None], tf.string)
            functions["predict_elwc"] = self._function(self.predict_elwc, {"input_ranking_data": serialized})
            functions[PAIRS] = self._function(self.score_pairs, {"inputs": serialized})
        for side in ("query", "item"):
            if self._embeds(side):
                name = "embed_query" if side == "query" else "embed_items"
                functions[name] = self._function(getattr(self, name), _specs(getattr(columns, side), 1))
        functions["describe"] = self._function(self.describe, {"ask": tf.TensorSpec([None], tf.string)})
        return functions

    def _function(self, body: Callable[[Mapping[str, Any]], dict[str, Any]], specs: Mapping[str, Any]) -> Any:
        def traced(**arguments: Any) -> dict[str, Any]:
            return body(self.arguments.inputs(arguments))

        return tf.function(traced, autograph=False).get_concrete_function(**self.arguments.specs(specs))

    def _shared(self, body: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        """A function that several signatures call, traced once.

        A server goes over all functions of a SavedModel for each signature that it optimises, so their sum is felt
        when a version is loaded.
        """

        def traced(*arguments: Any) -> Any:
            with self._while_traced():
                return body(*arguments)

        return tf.function(traced, input_signature=specs, autograph=False)  # type: ignore[no-any-return]

    def _embeds(self, side: str) -> bool:
        """Towers of one side share a vector space only when they are of one width."""
        return len({tower.dim for tower in self.ranker.side(side) if tower.fused}) == 1

    # -- ranking ------------------------------------------------------------------------------------------------------

    def rank(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """By id: query columns ``[B]``, ``item_ids [B, L]``, ``num_items [B]`` to ``scores``, ``known`` ``[B, L]``.

        An id that the table lacks takes no part in its list: ``known`` is false, the score ``UNKNOWN_SCORE``, and the
        other items score as if it were not there, under list context too. A list whose ``num_items`` is out of range
        is one of such ids alone.
        """
        assert self.table is not None
        shape = tf.shape(inputs["item_ids"])
        inputs = _checked(inputs, self._checks(inputs, shape))
        rows = self.table.rows(inputs["item_ids"])
        asked, wrong = _slot_masks(inputs["num_items"], shape)
        known = (rows >= 0) & asked & ~wrong
        with self._while_traced():
            items = {**self.table.tokens(rows), **self._slot_tokens(self.table.slots(rows), shape)}
            scores = _as_scores(self.ranker.score(self._query_tokens(inputs), items, known))
        return {"scores": tf.where(asked & ~known, UNKNOWN_SCORE, scores), "known": known}

    def rank_features(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """From raw values: query columns ``[B]``, item and slot columns ``[B, L]``, ``num_items`` to ``scores``.

        A list whose ``num_items`` is out of range scores ``UNKNOWN_SCORE``.
        """
        shape = tf.shape(inputs[self.columns.places[0].name])[:2]
        inputs = _checked(inputs, self._checks(inputs, shape))
        asked, wrong = _slot_masks(inputs["num_items"], shape)
        return {"scores": tf.where(wrong, UNKNOWN_SCORE, self._score_raw(inputs, asked & ~wrong))}

    def predict_elwc(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Serialized ExampleListWithContext ``[B]`` to ``scores [B, L]``.

        The context holds query columns, the examples item and slot columns, by name, as bytes or floats; a feature
        left out is missing. L is the longest list's length.
        """
        message = "input input_ranking_data must hold at least one ExampleListWithContext"
        inputs = _checked(inputs, [tf.debugging.assert_positive(tf.size(inputs["input_ranking_data"]), message)])
        parsed = tfr.data.parse_from_example_list(
            inputs["input_ranking_data"],
            context_feature_spec={column.name: column.feature for column in self.columns.query} or None,
            example_feature_spec={column.name: _with_axis(column) for column in self.columns.places},
            mask_feature_name="list mask",
        )
        mask = parsed["list mask"]
        shape = tf.shape(mask)
        places = {column.name: _unflatten(column.flat(parsed[column.name]), shape) for column in self.columns.places}
        return {"scores": self._score_raw({**parsed, **places}, mask)}

    def score_pairs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Serialized tf.Example ``[N]``, each a query with one item, to one score each, said twice.

        ``outputs [N]`` is for TF Serving's Regress API, ``scores [N, 1]`` for its Classify API. One graph, because its
        MultiInference asks that both read the same input tensor.
        """
        columns = (*self.columns.query, *self.columns.places)
        parsed = tf.io.parse_example(inputs["inputs"], {column.name: column.feature for column in columns})
        lists = {**parsed, **{column.name: parsed[column.name][:, None] for column in self.columns.places}}
        scores = self._score_raw(lists, tf.fill([tf.size(inputs["inputs"]), 1], True))
        return {"outputs": scores[:, 0], "scores": scores}

    def _score_raw(self, raw: Mapping[str, Any], mask: Any) -> Any:
        """Scores ``[B, L]`` of raw values: query columns ``[B]``, item and slot columns ``[B, L]``."""
        return self._list_scorer(_of(raw, (*self.columns.query, *self.columns.places)), mask)

    def _score_lists(self, raw: Mapping[str, Any], mask: Any) -> Any:
        shape = tf.shape(mask)
        items: dict[str, Tokens] = {}
        if self.columns.item:
            flat = {column.name: column.flat(raw[column.name]) for column in self.columns.item}
            for name, tokens in self._item_encoder(flat).items():
                items[name] = Tokens(_unflatten(tokens.values, shape), _unflatten(tokens.mask, shape))
        items.update(self._slot_tokens(raw, shape))
        return _as_scores(self.ranker.score(self._query_tokens(raw), items, mask))

    def _encode_items(self, raw: Mapping[str, Any]) -> dict[str, Tokens]:
        """Tokens of raw items ``[n]``. None at all stand in for by one of which nothing is known: layers need a row."""
        count = tf.shape(raw[self.columns.item[0].name])[0]
        extra = tf.cast(tf.equal(count, 0), tf.int32)
        padded = {}
        for column in self.columns.item:
            padded[column.name] = tf.concat([raw[column.name], tf.fill([extra], column.missing)], 0)
            padded[column.name].set_shape([None])
        tokens = self.ranker.encode_items(self.ranker.preprocess_items(padded), training=False)
        return {name: Tokens(t.values[:count], t.mask[:count]) for name, t in tokens.items()}

    def _query_tokens(self, raw: Mapping[str, Any]) -> dict[str, Tokens]:
        if not self.columns.query:
            return {}
        return self._query_encoder(_of(raw, self.columns.query))  # type: ignore[no-any-return]

    def _encode_query(self, raw: Mapping[str, Any]) -> dict[str, Tokens]:
        return self.ranker.encode_query(self.ranker.preprocess_query(raw), training=False)  # type: ignore[no-any-return]

    def _slot_tokens(self, raw: Mapping[str, Any], shape: Any) -> dict[str, Tokens]:
        if not self.columns.slot:
            return {}
        features = self.ranker.preprocess_slots({c.name: c.flat(raw[c.name]) for c in self.columns.slot})
        return self.ranker.encode_slots({k: _unflatten(v, shape) for k, v in features.items()}, training=False)

    def _checks(self, inputs: Mapping[str, Any], shape: Any) -> list[Any]:
        """Inputs of unequal B or L would be broadcast into scores that look right.

        A server may run lists of several requests as one, and all fail where one check does. So a number of items out
        of range fails only where it is every list's; else its own list alone is answered as unknown.
        """
        checks = []
        if "num_items" in inputs:
            wrong = _out_of_range(inputs["num_items"], shape)
            message = "input num_items must be from 0 to the lists' padded length"
            checks.append(tf.debugging.assert_equal(tf.reduce_all(wrong) & (tf.size(wrong) > 0), False, message))
        for name, value in inputs.items():
            per_place = name in ("item_ids", *(column.name for column in self.columns.places))
            axes = 2 if per_place else 1
            what = "[B, L]" if per_place else "[B]"
            message = f"input {name} must have the leading axes {what} of the other inputs"
            checks.append(tf.debugging.assert_equal(tf.shape(value)[:axes], shape[:axes], message))
        return checks

    # -- vectors ------------------------------------------------------------------------------------------------------

    def embed_query(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Query columns ``[B]`` to ``embedding [B, d]``, of length 1 (0 where all is missing)."""
        inputs = _checked(inputs, _same_length(inputs))
        return {"embedding": _pooled(self.ranker.fused_tokens(self._query_tokens(inputs)))}

    def embed_items(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Item columns ``[N]`` to ``embedding [N, d]``, of length 1 (0 where all is missing)."""
        inputs = _checked(inputs, _same_length(inputs))
        return {"embedding": _pooled(self.ranker.fused_tokens(self._item_encoder(_of(inputs, self.columns.item))))}

    # -- the model itself ---------------------------------------------------------------------------------------------

    def describe(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """``ask``, any strings ``[N]``, to ``description [N]``: what the model reads and knows, in JSON, N times.

        A batching TensorFlow Serving refuses a signature without inputs, and REST has no way to ask one.
        """
        return {"description": tf.fill(tf.shape(inputs["ask"]), self.description)}


def _specs(columns: tuple[Column, ...], axes: int) -> dict[str, Any]:
    return {column.name: column.spec(axes) for column in columns}


def _of(inputs: Mapping[str, Any], columns: tuple[Column, ...]) -> dict[str, Any]:
    return {column.name: inputs[column.name] for column in columns}


def _checked(inputs: Mapping[str, Any], checks: list[Any]) -> dict[str, Any]:
    """The inputs, of which nothing is computed before the checks are: else another op's error may come first."""
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in inputs.items()}


def _same_length(inputs: Mapping[str, Any]) -> list[Any]:
    sizes = {name: tf.size(value) for name, value in inputs.items()}
    first = next(iter(sizes.values()))
    return [
        tf.debugging.assert_equal(size, first, f"input {name} must be as long as the other inputs")
        for name, size in sizes.items()
    ]


def _out_of_range(num_items: Any, shape: Any) -> Any:
    """Bool ``[B]``: numbers of items that no list of ``shape`` (B, L) has."""
    return (num_items < 0) | (num_items > shape[1])


def _slot_masks(num_items: Any, shape: Any) -> tuple[Any, Any]:
    """Bool ``[B, L]``: the places asked of, and ``[B, 1]``: the lists of which that cannot be told, all asked of."""
    wrong = _out_of_range(num_items, shape)[:, None]
    return (tf.range(shape[1])[None, :] < num_items[:, None]) | wrong, wrong


def _as_scores(scores: Any) -> Any:
    return tf.cast(scores, tf.float32)


def _unflatten(value: Any, shape: Any) -> Any:
    """``[B * L, ...]`` to ``[B, L, ...]``."""
    return tf.ensure_shape(
        tf.reshape(value, tf.concat([shape, tf.shape(value)[1:]], 0)), [None, None, *value.shape[1:]]
    )


def _with_axis(column: Column) -> Any:
    """TF-Ranking's list parser wants at least one axis in an example's feature."""
    return tf.io.FixedLenFeature([column.width], column.dtype, [column.missing] * column.width)


def _pooled(tokens: Mapping[str, Tokens]) -> Any:
    """Mean over a tower's tokens that are there, then over the towers that have any, brought to length 1."""
    total, towers = 0.0, 0.0
    for part in tokens.values():
        weights = tf.cast(part.mask, tf.float32)[..., None]
        values = tf.where(part.mask[..., None], tf.cast(part.values, tf.float32), 0.0)
        total += tf.reduce_sum(values, -2) / tf.maximum(tf.reduce_sum(weights, -2), 1.0)
        towers += tf.reduce_max(weights, -2)
    return tf.math.l2_normalize(total / tf.maximum(towers, 1.0), -1)
