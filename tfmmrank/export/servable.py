"""A SavedModel loaded and run as TensorFlow Serving does: through a TF1 session, with its checks and its words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.export.graph_loading import load_saved_model
from tfmmrank.export.request_error import RequestError
from tfmmrank.stack import load, tf

DEFAULT_SIGNATURE = "serving_default"
_PYTHONS_OWN = "Graph execution error:\n\n"  # what Python's session puts before the runtime's message
_C_NAMES = {"float32": "float", "float64": "double"}


class Servable:
    """One version of a model, ready to run; safe to use from several threads.

    The messages are those of ``servables/tensorflow/predict_util.cc``, so that a client sees no difference. One check
    is added: an input of the wrong number of axes is named, where TF Serving reports whichever op fails first.

    Args:
        directory: a SavedModel.

    Raises:
        OSError: when there is no SavedModel, or it is damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        load("tf_text")  # its import registers the ops that text towers use
        self.directory = Path(directory)
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default(), _without_advice():
            meta_graph = load_saved_model(self._session, self.directory)
        self.signatures: dict[str, Any] = dict(meta_graph.signature_def)
        self._session.graph.finalize()

    def close(self) -> None:
        """Frees the session."""
        self._session.close()

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: its name; empty: ``serving_default``.
            inputs: arrays by input; strings as object arrays of bytes.
            output_filter: outputs wanted; empty: all.
            timeout: seconds the run may take.

        Returns:
            Arrays by output.

        Raises:
            RequestError: for a request that does not fit, or a run that failed.
        """
        definition = self._definition(signature)
        feeds = self._feeds(definition, inputs)
        outputs = _outputs(definition, output_filter)
        options = None
        if timeout is not None:
            options = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(timeout * 1000)))
        try:
            values = self._session.run([definition.outputs[o].name for o in outputs], feeds, options=options)
        except tf.errors.OpError as error:
            raise RequestError(_code(error), error.message.removeprefix(_PYTHONS_OWN)) from error
        return dict(zip(outputs, values, strict=True))

    def check(self, signature: str, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str] = ()) -> list[str]:
        """Whether a request fits a signature, without running it; returns the outputs that it asks for.

        Raises:
            RequestError: as ``run``, for a request that does not fit.
        """
        definition = self._definition(signature)
        self._feeds(definition, inputs)
        return _outputs(definition, output_filter)

    def _definition(self, signature: str) -> Any:
        name = signature or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise RequestError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def _feeds(self, definition: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        _check_names(definition, inputs)
        feeds = {}
        for place, (name, value) in enumerate(sorted(inputs.items())):
            info = definition.inputs[name]
            expected = tf.dtypes.as_dtype(info.dtype)
            # Python's session would cast silently.
            got = tf.string if value.dtype == object else tf.dtypes.as_dtype(value.dtype)
            if got != expected:
                raise RequestError(
                    "INVALID_ARGUMENT",
                    f"Expects arg[{place}] to be {_c_name(expected)} but {_c_name(got)} is provided",
                )
            shape = tf.TensorShape(info.tensor_shape)
            if not shape.is_compatible_with(value.shape):
                axes = ", ".join("?" if size is None else str(size) for size in shape.as_list())
                raise RequestError(
                    "INVALID_ARGUMENT", f'input "{name}" has shape {list(value.shape)}; expected [{axes}]'
                )
            feeds[info.name] = value
        return feeds


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """TensorFlow advises its TF2 loader, whose calls take twice as long."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_names(definition: Any, inputs: Mapping[str, Any]) -> None:
    required, sent = sorted(definition.inputs), sorted(inputs)
    missing, extra = sorted(set(required) - set(sent)), sorted(set(sent) - set(required))
    if len(sent) != len(required):
        raise RequestError(
            "INVALID_ARGUMENT",
            f"input size does not match signature: {len(sent)}!={len(required)} len({{{','.join(sent)}}}) != "
            f"len({{{','.join(required)}}}). Sent extra: {{{','.join(extra)}}}. "
            f"Missing but required: {{{','.join(missing)}}}.",
        )
    for name in extra:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"input tensor alias not found in signature: {name}. "
            f"Inputs expected to be in the set {{{','.join(required)}}}.",
        )


def _outputs(definition: Any, output_filter: Iterable[str]) -> list[str]:
    wanted = list(output_filter)
    for place, name in enumerate(wanted):
        if name not in definition.outputs:
            raise RequestError(
                "INVALID_ARGUMENT",
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {{{','.join(sorted(definition.outputs))}}}.",
            )
        if name in wanted[:place]:
            raise RequestError("INVALID_ARGUMENT", f"duplicate output tensor alias: {name}")
    return wanted or sorted(definition.outputs)


def _c_name(dtype: Any) -> str:
    return _C_NAMES.get(dtype.name, dtype.name)


def _code(error: Any) -> str:
    from tensorflow.core.protobuf import error_codes_pb2

    try:
        return error_codes_pb2.Code.Name(error.error_code)
    except ValueError:
        return "UNKNOWN"
