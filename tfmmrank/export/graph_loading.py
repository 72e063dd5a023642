"""Loads a SavedModel into a TF1 session without stopping the threads beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tfmmrank.stack import tf

T = TypeVar("T")
_TAGS = ["serve"]


class Way(Protocol):
    """How a call is made that keeps a processor busy for long, without Python's lock."""

    def __call__(self, work: Callable[[], T], /) -> T:
        """Does the work, and returns what it returns."""


def at_once(work: Callable[[], T]) -> T:
    """Here and now."""
    return work()


def load_saved_model(session: Any, directory: str | Path, way: Way = at_once) -> Any:
    """Does what ``tf.compat.v1.saved_model.load`` does, in short steps.

    That function imports a graph with all its functions in one call that infers every shape in them and holds Python's
    lock meanwhile: half a second in which a server answers nothing. Here the graph's own nodes come first, when there
    is no function yet to look into, and then the functions one by one, some milliseconds each. What is run is the same;
    only shapes of inner tensors stay unknown to Python, and nobody asks for them.

    Args:
        session: an empty session.
        directory: the SavedModel.
        way: how variables are read and tables are filled.

    Returns:
        The MetaGraphDef, without the functions.

    Raises:
        OSError: when there is no SavedModel, or it is damaged.
    """
    from tensorflow.python.saved_model import loader_impl

    with _blaming(directory, tf.errors.OpError, ValueError, RuntimeError):  # such as: not for serving
        loader = loader_impl.SavedModelLoader(str(directory))
        meta_graph = loader.get_meta_graph_def_from_tags(_TAGS)
        functions = list(meta_graph.graph_def.library.function)
        del meta_graph.graph_def.library.function[:]
        saver, _ = loader.load_graph(session.graph, _TAGS)
        for function in functions:
            _add_function(session.graph, function)
    with _blaming(directory, tf.errors.OpError, ValueError):  # such as: a file cut short, another graph's variables
        way(lambda: loader.restore_variables(session, saver))
        way(lambda: loader.run_init_ops(session, _TAGS))
    return meta_graph


@contextlib.contextmanager
def _blaming(directory: str | Path, *faults: type[Exception]) -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError:  # the machine's fault
        raise
    except faults as error:
        why = str(error).strip().partition("\n")[0]
        raise OSError(f"{directory}: no SavedModel that can be loaded: {why}") from error


def _add_function(graph: Any, function: Any) -> None:
    from tensorflow.python.client import pywrap_tf_session

    imported = pywrap_tf_session.TF_FunctionImportFunctionDef(function.SerializeToString())
    with graph._c_graph.get() as c_graph:
        pywrap_tf_session.TF_GraphCopyFunction(c_graph, imported, None)
