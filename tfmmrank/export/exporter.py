"""Exporting: a trained ranker and its catalogue to a folder that TensorFlow Serving answers from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfmmrank.atomic import replace_directory
from tfmmrank.export.item_table import ItemTable
from tfmmrank.export.op_check import check_ops
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.export.servable import Servable
from tfmmrank.export.signatures import REGRESS, Signatures
from tfmmrank.export.versions import choose_version
from tfmmrank.export.warmup import replay_warmup, warmup_requests, write_warmup
from tfmmrank.stack import tf

DESCRIPTION_FILE = "assets.extra/tfmmrank.json"
_REGRESS_METHOD = "tensorflow/serving/regress"


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
            half precision or reads columns that the dataset lacks, or an item id with a line break.
        UnknownOpError: when stock TF Serving could not run the model.
        RequestError: when the model does not answer a warm-up request.
    """
    model_dir = Path(model_dir)
    target = model_dir / str(choose_version(model_dir, version))
    columns = RawColumns.of(ranker)
    ranker.columns_in(data)
    _check_precision(ranker)
    has_catalogue = len(data.catalogue) > 0
    with replace_directory(target) as aside, tempfile.TemporaryDirectory() as scratch:
        ids_file = Path(scratch) / "item_ids.txt"
        table = ItemTable(ranker, data, columns, ids_file, progress) if has_catalogue else None
        signatures = Signatures(ranker, columns, table)
        functions = signatures.build()
        _save(ranker, table, functions, aside)
        _correct_signatures(aside, signatures.arguments.renamed)
        ops = check_ops(aside)
        write_warmup(warmup_requests(data, columns, functions), aside, model_dir.resolve().name)
        description = _describe(ranker, data, functions, ops)
        (aside / DESCRIPTION_FILE).write_text(
            json.dumps({**description, **(facts or {})}, ensure_ascii=False, indent=1), "utf-8"
        )
        servable = Servable(aside)
        try:
            replay_warmup(servable)
        finally:
            servable.close()
        if target.exists():  # another export was faster; its version may already be served
            raise ValueError(f"{target}: was written by another process meanwhile; export again")
    return target


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


def _correct_signatures(directory: Path, renamed: Mapping[str, str]) -> None:
    """Gives inputs their true names, and ``regress`` the method name that TF Serving's Regress API asks for."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = directory / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for meta_graph in model.meta_graphs:
        for name, signature in meta_graph.signature_def.items():
            if name == REGRESS:
                signature.method_name = _REGRESS_METHOD
            for argument in set(signature.inputs) & set(renamed):
                signature.inputs[renamed[argument]].CopyFrom(signature.inputs[argument])
                del signature.inputs[argument]
    file.write_bytes(model.SerializeToString(deterministic=True))
    # It holds a checksum of the file as it was; optional, and only read for usage metrics.
    (directory / "fingerprint.pb").unlink(missing_ok=True)


def _describe(ranker: Any, data: Any, functions: Mapping[str, Any], ops: set[str]) -> dict[str, Any]:
    """What a person or a client may want to know of the model."""
    return {
        "ranker": ranker.name,
        "towers": {
            tower.name: {"side": tower.side, "columns": tower.columns, "dim": tower.dim} for tower in ranker.towers
        },
        "fusion": type(ranker.fusion).__name__,
        "columns": {side: dict(getattr(ranker.columns, side)) for side in ("query", "item", "slot")},
        "num_items": len(data.catalogue),
        "parameters": sum(int(variable.shape.num_elements()) for variable in ranker.weights),
        "signatures": sorted(functions),
        "tensorflow": tf.__version__,
        "ops": sorted(ops),
    }
