"""Exporting: a trained ranker and its catalogue to a folder that TensorFlow Serving answers from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tfmmrank.atomic import replace_directory
from tfmmrank.export.description import describe, description_json, write_description
from tfmmrank.export.item_table import ItemTable, current_slots
from tfmmrank.export.item_tokens import encode_catalogue
from tfmmrank.export.op_check import check_ops
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.export.servable import Servable
from tfmmrank.export.signature_defs import correct_signatures
from tfmmrank.export.signatures import Signatures
from tfmmrank.export.versions import choose_version
from tfmmrank.export.warmup import replay_warmup, warmup_requests, write_warmup
from tfmmrank.stack import tf
from tfmmrank.tokens import Tokens

Encode = Callable[[Path], dict[str, Tokens]]


def export(
    ranker: Any,
    data: Any,
    model_dir: str | Path,
    version: int | None = None,
    progress: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``MODEL/VERSION``: a SavedModel with the item table, a warm-up file and a description.

    The folder appears when all is written and checked: every op is one that stock TF Serving knows, and the model,
    loaded as TF Serving loads it, answers the warm-up requests. Killed or failing, it leaves no version behind.

    Args:
        ranker: a trained ``Ranker``.
        data: the ``Prepared`` dataset whose catalogue goes into the model; without one there is no signature ``rank``.
        model_dir: the model's folder; its name is the model's.
        version: default: one more than the highest there.
        progress: whether to show progress bars.
        facts: JSON values to keep in ``assets.extra/tfmmrank.json``, such as the NDCG measured.

    Returns:
        The version's folder.

    Raises:
        ValueError: for a version that exists, a folder of something else, a ranker that is not adapted, computes in
            half precision or reads columns that the dataset lacks, an item id with a line break, or an item of which a
            tower gives numbers beyond float16's range.
        UnknownOpError: when stock TF Serving could not run the model.
        RequestError: when the model does not answer a warm-up request.
    """
    target = Path(model_dir) / str(choose_version(model_dir, version))
    columns = RawColumns.of(ranker)
    ranker.columns_in(data)
    _check_precision(ranker)

    def encode(folder: Path) -> dict[str, Tokens]:
        return encode_catalogue(ranker, data, folder, progress)

    with replace_directory(target) as aside:
        write_version(ranker, data, columns, encode, aside, target, facts or {})
    return target


def write_version(
    ranker: Any,
    data: Any,
    columns: RawColumns,
    encode: Encode,
    directory: Path,
    target: Path,
    facts: Mapping[str, Any],
) -> None:
    """Writes a version into a directory and checks that it answers.

    Args:
        ranker: the ``Ranker``.
        data: the ``Prepared`` dataset.
        columns: what the ranker reads.
        encode: makes the items' tokens, by item tower, with files in the folder that it is given.
        directory: where to write.
        target: the directory's place when all is done.
        facts: JSON values to keep in the description.
    """
    scratch = directory / "scratch"  # on the models' own disk: a temporary folder may be memory
    scratch.mkdir()
    description = describe(ranker, data)
    table = None
    if len(data.catalogue):
        table = ItemTable(data.catalogue.ids, encode(scratch), current_slots(data, columns), scratch)
    signatures = Signatures(ranker, columns, table, description_json(description))
    functions = signatures.build()
    _save(ranker, table, functions, directory)
    shutil.rmtree(scratch)
    names = correct_signatures(directory, signatures.arguments.renamed)
    ops = check_ops(directory)
    write_warmup(warmup_requests(data, columns, names), directory, target.parent.resolve().name)
    write_description(directory, {**description, "signatures": names, "ops": sorted(ops), **facts})
    servable = Servable(directory)
    try:
        replay_warmup(servable)
    finally:
        servable.close()
    if target.exists():  # another export was faster; its version may already be served
        raise ValueError(f"{target}: was written by another process meanwhile; export again")


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
    variables = {id(variable): variable for function in functions.values() for variable in function.graph.variables}
    root.variables_used = list(variables.values())
    root.resources_used = _resources(ranker, functions.values())
    root.table = [table.rows_of_ids] if table is not None else []
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(root, str(directory), signatures=dict(functions), options=options)


def _resources(ranker: Any, functions: Iterable[Any]) -> list[Any]:
    """The lookup tables and their like among the ranker's parts that the functions use."""
    captured = {id(handle) for function in functions for handle, _ in function.graph.captures}
    found: dict[int, Any] = {}
    for part in (*ranker.towers, ranker.fusion, *ranker.layers):
        for child in tf.train.TrackableView(part).descendants():
            if not isinstance(child, tf.Variable) and id(getattr(child, "resource_handle", None)) in captured:
                found[id(child)] = child
    return list(found.values())
