"""SignatureDefs of a saved model, brought to what TensorFlow Serving's APIs ask for.

``tf.saved_model.save`` names inputs as Python names arguments, gives every signature the method name of Predict, and
every function inputs of its own. What it wrote is corrected in place; the graph stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmmrank.export.servable import CLASSIFY_METHOD, DEFAULT_SIGNATURE, REGRESS_METHOD
from tfmmrank.export.signatures import PAIRS

REGRESS, CLASSIFY = "regress", "classify"
_DEFAULTS = ("rank", "rank_features")
_METHODS = {REGRESS: REGRESS_METHOD, CLASSIFY: CLASSIFY_METHOD}
_OUTPUTS = {REGRESS: "outputs", CLASSIFY: "scores"}  # by the names that those APIs look for


def correct_signatures(directory: Path, renamed: Mapping[str, str]) -> list[str]:
    """Gives inputs their true names, and signatures their second ones.

    ``serving_default`` is ``rank``, or else ``rank_features``; ``regress`` and ``classify`` are of the one signature
    that holds both. They share its tensors: a session that has run one is warm for the other.

    Args:
        directory: a SavedModel.
        renamed: true names by argument, where they differ.

    Returns:
        The names of the signatures, sorted.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file = directory / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for meta_graph in model.meta_graphs:
        for signature in meta_graph.signature_def.values():
            for argument in set(signature.inputs) & set(renamed):
                signature.inputs[renamed[argument]].CopyFrom(signature.inputs[argument])
                del signature.inputs[argument]
        if PAIRS in meta_graph.signature_def:
            _split_pairs(meta_graph.signature_def)
        _add_default(meta_graph)
    file.write_bytes(model.SerializeToString(deterministic=True))
    # It holds a checksum of the file as it was; optional, and only read for usage metrics.
    (directory / "fingerprint.pb").unlink(missing_ok=True)
    return sorted(name for name in model.meta_graphs[0].signature_def if not name.startswith("__"))


def _add_default(meta_graph: Any) -> None:
    """Also among the functions that ``tf.saved_model.load`` gives."""
    name = next(name for name in _DEFAULTS if name in meta_graph.signature_def)
    meta_graph.signature_def[DEFAULT_SIGNATURE].CopyFrom(meta_graph.signature_def[name])
    nodes = meta_graph.object_graph_def.nodes
    functions = nodes[next(child.node_id for child in nodes[0].children if child.local_name == "signatures")].children
    function = next(child.node_id for child in functions if child.local_name == name)
    functions.add(node_id=function, local_name=DEFAULT_SIGNATURE)


def _split_pairs(signatures: Any) -> None:
    """One output each, of the same input tensor."""
    pairs = type(signatures[PAIRS]).FromString(signatures[PAIRS].SerializeToString())
    for name, output in _OUTPUTS.items():
        signatures[name].CopyFrom(pairs)
        signatures[name].method_name = _METHODS[name]
        for other in set(pairs.outputs) - {output}:
            del signatures[name].outputs[other]
