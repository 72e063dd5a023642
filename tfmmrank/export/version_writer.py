"""Writing a version: SavedModel, warm-up requests, description and statistics; checked before it appears."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tfmmrank.atomic import replace_directory
from tfmmrank.export.description import check_facts, describe, description_json, facts_of, write_description
from tfmmrank.export.item_table import ItemTable, current_slots
from tfmmrank.export.item_tokens import Items, write_digests
from tfmmrank.export.op_check import check_ops
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.export.servable import Servable
from tfmmrank.export.signature_defs import correct_signatures
from tfmmrank.export.signatures import Signatures
from tfmmrank.export.small_weights import SmallWeights
from tfmmrank.export.statistics import copy_statistics, training_statistics, write_statistics
from tfmmrank.export.versions import choose_version
from tfmmrank.export.warmup import replay_warmup, warmup_requests, write_warmup
from tfmmrank.stack import tf

_SCRATCH = "scratch"  # on the models' own disk: a temporary folder may be memory


class VersionWriter:
    """Writes a ranker with a dataset's catalogue.

    Args:
        ranker: a trained ``Ranker``.
        data: a ``Prepared`` dataset.
        weights: see ``export``.

    Attributes:
        columns: what the ranker reads.

    Raises:
        ValueError: for a ranker that is not adapted, computes in half precision, or reads columns that the dataset
            lacks.
    """

    def __init__(self, ranker: Any, data: Any, weights: str) -> None:
        self.ranker, self.data, self.weights = ranker, data, weights
        self.columns = RawColumns.of(ranker)
        ranker.columns_in(data)
        _check_precision(ranker)
        self._small = SmallWeights(ranker, weights)

    def write(
        self,
        model_dir: str | Path,
        version: int | None,
        encode: Callable[[Path], Items],
        facts: Mapping[str, Any],
        previous: Path | None = None,
    ) -> Path:
        """Writes a version; see ``export``.

        Args:
            model_dir: the model's folder.
            version: default: one more than the highest there.
            encode: gives the items, of files in the folder that it is given; not called without a catalogue.
            facts: JSON values for the description.
            previous: an earlier version of the same ranker: what is known of its training is kept.

        Returns:
            The version's folder.
        """
        target = Path(model_dir) / str(choose_version(model_dir, version))
        with replace_directory(target, replace=False) as aside:  # a version that is there may be served
            description = describe(self.ranker, self.data, self.weights)
            check_facts(facts, description)
            renamed = self._save(aside, encode, description)
            names = correct_signatures(aside, renamed)
            ops = check_ops(aside)
            write_warmup(warmup_requests(self.data, self.columns, names), aside, target.parent.resolve().name)
            if previous is not None:
                facts = {**facts_of(previous), **facts}
            write_description(aside, {**description, "signatures": names, "ops": sorted(ops)}, facts)
            self._try(aside, previous)
        return target

    def _save(self, directory: Path, encode: Callable[[Path], Items], description: dict[str, Any]) -> Mapping[str, str]:
        """Writes the SavedModel; returns the inputs' true names by argument."""
        scratch = directory / _SCRATCH
        scratch.mkdir()
        table = None
        if len(self.data.catalogue):
            slots = current_slots(self.data, self.columns)
            items = encode(scratch)
            write_digests(items.digests, directory)
            table = ItemTable(self.data.catalogue.ids, items.tokens, slots, scratch)
            description["item_tokens"] = {name: tokens.dtype for name, tokens in items.tokens.items()}
        signatures = Signatures(self.ranker, self.columns, table, description_json(description), self._small.in_place)
        _save(self.ranker, table, signatures.build(), directory)
        shutil.rmtree(scratch)
        return signatures.arguments.renamed

    def _try(self, directory: Path, previous: Path | None) -> None:
        """Loads it as TF Serving does, and asks it."""
        servable = Servable(directory)
        try:
            replay_warmup(servable)
            if previous is None:
                write_statistics(directory, training_statistics(self.data, self.columns, servable))
            else:
                copy_statistics(previous, directory)
        finally:
            servable.close()


def _check_precision(ranker: Any) -> None:
    for layer in ranker._flatten_layers(include_self=False):
        if layer.compute_dtype in ("bfloat16", "float16"):
            raise ValueError(
                f'layer "{layer.name}" computes in {layer.compute_dtype}, and a ranker is served in float32: save it '
                "(save_ranker), and export what load_ranker gives where Keras's global policy is float32"
            )


def _save(ranker: Any, table: ItemTable | None, functions: Mapping[str, Any], directory: Path) -> None:
    """Writes the SavedModel of what the functions use, and nothing of Keras's training machinery."""
    root = tf.Module()
    variables = _variables(functions.values())
    if table is not None:
        root.rows_of_ids = table.rows_of_ids
        # An update finds the tokens by these names.
        root.table_values = [tokens.values for tokens in table.variables.values()]
        root.table_masks = [tokens.mask for tokens in table.variables.values()]
        for variable in (*root.table_values, *root.table_masks):
            variables.pop(id(variable), None)
    root.variables_used = list(variables.values())
    root.resources_used = _resources(ranker, functions.values())
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(root, str(directory), signatures=dict(functions), options=options)


def _variables(functions: Iterable[Any]) -> dict[int, Any]:
    """The variables that the functions use, in the order in which they do: two exports name theirs alike."""
    found: dict[int, Any] = {}
    for function in functions:
        owners = {id(variable.handle): variable for variable in function.graph.variables}
        for handle, _ in function.graph.captures:
            if id(handle) in owners:
                found[id(owners[id(handle)])] = owners[id(handle)]
    return found


def _resources(ranker: Any, functions: Iterable[Any]) -> list[Any]:
    """The lookup tables and their like among the ranker's parts that the functions use."""
    captured = {id(handle) for function in functions for handle, _ in function.graph.captures}
    found: dict[int, Any] = {}
    for part in (*ranker.towers, ranker.fusion, *ranker.layers):
        for child in tf.train.TrackableView(part).descendants():
            if not isinstance(child, tf.Variable) and id(getattr(child, "resource_handle", None)) in captured:
                found[id(child)] = child
    return list(found.values())
