"""Whether stock TensorFlow Serving knows every op of a SavedModel.

TF Serving links core TensorFlow, tensorflow-text's ops and the decision forests' inference kernel
(``tensorflow_serving/model_servers/BUILD``, SUPPORTED_TENSORFLOW_OPS), and has XLA switched off (``main.cc``). What
core TensorFlow has is looked up in the one installed here: a server of an older one may lack an op that is new in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfmmrank.stack import tf

# Registered by the shared libraries of tensorflow-text 2.20, which TF Serving 2.20 links; 2.21 has the same. Left out:
# TFText>RoundRobinTrim, TFText>RoundRobinGenerateMasks and TFText>Utf8Binarize, which the servers 2.12 to 2.19 lack.
TEXT_OPS = frozenset(
    """
    CaseFoldUTF8 ConstrainedSequence FastBertNormalize FastWordpieceTokenizeWithOffsets FindSourceOffsets
    MaxSpanningTree NormalizeUTF8 NormalizeUTF8WithOffsetsMap PhraseTokenize RegexSplitWithOffsets RougeL
    SentenceFragments SentenceFragmentsV2 SentencepieceDetokenizeOp SentencepieceIdToStringOp SentencepieceOp
    SentencepieceStringToIdOp SentencepieceTokenizeOp SentencepieceTokenizeWithOffsetsOp SentencepieceVocabSizeOp
    SplitMergeTokenizeWithOffsets TFText>BoiseTagsToOffsets TFText>ByteSplitByOffsets TFText>ByteSplitWithOffsets
    TFText>FastSentencepieceDetokenize TFText>FastSentencepieceTokenize TFText>FastWordpieceDetokenize
    TFText>NgramsStringJoin TFText>OffsetsToBoiseTags TFText>PhraseDetokenize TFText>WhitespaceTokenizeWithOffsetsV2
    TokenizerFromLogits UnicodeScriptTokenizeWithOffsets WhitespaceTokenizeWithOffsets WordpieceTokenizeWithOffsets
    """.split()  # noqa: SIM905 - forty quoted names would be harder to compare with the source
)
PYTHON_OPS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})

_XLA = "_XlaMustCompile"


class UnknownOpError(ValueError):
    """A model that stock TF Serving could not load or run; the message names op and function."""


def core_ops() -> frozenset[str]:
    """The ops of the installed core TensorFlow: those with a generated wrapper, whatever libraries are loaded."""
    return frozenset(name for name in dir(tf.raw_ops) if not name.startswith("_")) - PYTHON_OPS


def check_ops(directory: str | Path) -> set[str]:
    """Checks the graph and the function library of a SavedModel.

    Args:
        directory: holds ``saved_model.pb``.

    Returns:
        The names of the ops in use.

    Raises:
        UnknownOpError: for an op that stock TF Serving of the installed TensorFlow's version lacks, or a function that
            must be compiled by XLA.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file = Path(directory) / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    used: set[str] = set()
    faults: list[str] = []
    for meta_graph in model.meta_graphs:
        library = meta_graph.graph_def.library.function
        known = core_ops() | TEXT_OPS | {function.signature.name for function in library}
        for where, nodes, attributes in _graphs(meta_graph.graph_def):
            if attributes is not None and _XLA in attributes and attributes[_XLA].b:
                faults.append(f"{where} must be compiled by XLA (jit_compile=True), which TF Serving has switched off")
            for node in nodes:
                used.add(node.op)
                if node.op not in known:
                    faults.append(f'op "{node.op}" (node "{node.name}") in {where}{_why(node.op)}')
                if _XLA in node.attr and node.attr[_XLA].b:
                    faults.append(f'node "{node.name}" in {where} must be compiled by XLA (jit_compile=True)')
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UnknownOpError(f"{file}: stock TensorFlow Serving cannot run {'; '.join(faults[:3])}{more}")
    return used


def _graphs(graph: Any) -> Iterator[tuple[str, Any, Any]]:
    yield "the graph", graph.node, None
    for function in graph.library.function:
        yield f'function "{function.signature.name}"', function.node_def, function.attr


def _why(op: str) -> str:
    if op in PYTHON_OPS:
        return ": it calls Python (tf.py_function, tf.numpy_function); write the tower's preprocess with graph ops"
    if op.startswith("TFText>"):
        return ": tensorflow-text has it, but servers up to 2.19 do not; trim and pack with core ops"
    return ": it belongs neither to core TensorFlow nor to tensorflow-text"
