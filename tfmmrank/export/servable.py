"""A SavedModel loaded and run as TensorFlow Serving does: through a TF1 session, with its checks and its words."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmmrank.export.graph_loading import Way, at_once, load_saved_model
from tfmmrank.export.request_error import RequestError
from tfmmrank.stack import load, tf

CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"
DEFAULT_SIGNATURE = "serving_default"
_OURS = "describe"  # a signature of models that tfmmrank exported
_PYTHONS_OWN = "Graph execution error:\n\n"  # what Python's session puts before the runtime's message
_FOREVER = 1e9  # seconds; gRPC says 9e18 where a client set no deadline, of which no int64 holds the milliseconds
_C_NAMES = {"float32": "float", "float64": "double"}


class _Input(NamedTuple):
    """What a signature takes: the tensor's name, its type as numpy's and TensorFlow's, its sizes (None: any)."""

    tensor: str
    array_type: np.dtype
    tensor_type: Any
    shape: list[int | None] | None
    of_lists: bool

    @classmethod
    def of(cls, info: Any) -> _Input:
        shape, dtype = tf.TensorShape(info.tensor_shape), tf.dtypes.as_dtype(info.dtype)
        sizes = None if shape.rank is None else shape.as_list()
        return cls(info.name, np.dtype(dtype.as_numpy_dtype), dtype, sizes, is_of_lists(info))

    def fits(self, shape: tuple[int, ...]) -> bool:
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(own in (None, size) for own, size in zip(self.shape, shape, strict=True))
        )


def is_of_lists(info: Any) -> bool:
    """Whether a TensorInfo is ``[B, L, ...]``; of a query's the second axis, where it has one, has a fixed size."""
    return [axis.size for axis in info.tensor_shape.dim[:2]] == [-1, -1]


class Servable:
    """One version of a model, ready to run; safe to use from several threads.

    The messages are those of ``servables/tensorflow/predict_util.cc``, so that a client sees no difference. Checks are
    added: an input of the wrong number of axes is named, where TF Serving reports whichever op fails first; one of
    other lists than the rest too; and a number of items out of range, which the graph refuses only where it is every
    list's, since lists may be batched.

    Requests run through ``Session.run``: a callable of the session's was measured to be no faster, and one of a fixed
    timeout compiles the graph anew.

    Args:
        directory: a SavedModel.
        way: how the calls of a load are made that take long.

    Attributes:
        directory: as given.
        signatures: SignatureDef by name.
        fingerprint: a digest of the SavedModel: equal for a copy, another one when anything in it is.

    Raises:
        OSError: when there is no SavedModel, or it is damaged.
    """

    def __init__(self, directory: str | Path, way: Way = at_once) -> None:
        load("tf_text")  # its import registers the ops that text towers use
        self.directory = Path(directory)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=_config())
        with self._session.graph.as_default(), _without_advice():
            meta_graph = load_saved_model(self._session, self.directory, way)
        self.signatures: dict[str, Any] = dict(meta_graph.signature_def)
        self._session.graph.finalize()
        self._inputs = {
            name: {key: _Input.of(info) for key, info in signature.inputs.items()}
            for name, signature in self.signatures.items()
        }
        self._fetches = _fetches(self.signatures)
        self.fingerprint = _fingerprint(self.directory)

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
            timeout: seconds the run may take; None, or some decades: any time.

        Returns:
            Arrays by output.

        Raises:
            RequestError: for a request that does not fit, or a run that failed.
        """
        definition = self._definition(signature)
        feeds = self._feeds(signature, inputs)
        outputs = _outputs(definition, output_filter)
        options = None
        if timeout is not None and timeout < _FOREVER:
            options = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(timeout * 1000)))
        fetches = self._fetches[signature or DEFAULT_SIGNATURE]
        try:
            values = dict(zip(fetches, self._session.run(fetches, feeds, options=options), strict=True))
        except tf.errors.OpError as error:
            raise RequestError(_code(error), error.message.removeprefix(_PYTHONS_OWN)) from error
        return {name: _array(values[definition.outputs[name].name]) for name in outputs}

    def check(self, signature: str, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str] = ()) -> list[str]:
        """Whether a request fits a signature, without running it; returns the outputs that it asks for.

        Raises:
            RequestError: as ``run``, for a request that does not fit.
        """
        definition = self._definition(signature)
        self._feeds(signature, inputs)
        return _outputs(definition, output_filter)

    def _definition(self, signature: str) -> Any:
        name = signature or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise RequestError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def _feeds(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        specs = self._inputs[signature or DEFAULT_SIGNATURE]
        _check_names(self._definition(signature), inputs)
        feeds = _feeds(specs, inputs)
        if "num_items" in inputs and _OURS in self.signatures:
            _check_lists(specs, inputs)
        return feeds


def _feeds(specs: Mapping[str, _Input], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    feeds = {}
    for place, (name, value) in enumerate(sorted(inputs.items())):
        spec = specs[name]
        if value.dtype != spec.array_type:
            _check_type(place, value, spec)
        if not spec.fits(value.shape):
            axes = ", ".join("?" if size is None else str(size) for size in spec.shape or ())
            raise RequestError("INVALID_ARGUMENT", f'input "{name}" has shape {list(value.shape)}; expected [{axes}]')
        feeds[spec.tensor] = value
    return feeds


def _config() -> Any:
    """Leaves out of the optimisation of a graph what makes a load a half longer and answers no faster."""
    config = tf.compat.v1.ConfigProto()
    options = config.graph_options.rewrite_options
    options.meta_optimizer_iterations = type(options).ONE
    options.disable_tfg_optimizer = True  # goes over all functions of the SavedModel for each signature
    options.memory_optimization = type(options).NO_MEM_OPT
    options.layout_optimizer = options.loop_optimization = type(options).OFF
    return config


def _fetches(signatures: Mapping[str, Any]) -> dict[str, list[str]]:
    """Tensors to run by signature: all its outputs, whichever are asked for; Classify's and Regress' of one input too.

    The session optimises the graph for each set of tensors that it is asked for, which takes as long as a hundred
    requests.
    """
    shared: dict[Any, dict[str, None]] = {}
    groups = {}
    for name, each in signatures.items():
        examples = each.method_name in (CLASSIFY_METHOD, REGRESS_METHOD)
        groups[name] = frozenset(info.name for info in each.inputs.values()) if examples else name
        shared.setdefault(groups[name], {}).update(dict.fromkeys(info.name for info in each.outputs.values()))
    return {name: list(shared[groups[name]]) for name in signatures}


def _check_lists(specs: Mapping[str, _Input], inputs: Mapping[str, np.ndarray]) -> None:
    first = min(name for name in inputs if specs[name].of_lists)
    axes = inputs[first].shape[:2]
    for name, value in inputs.items():
        expected = axes if specs[name].of_lists else axes[:1]
        if value.shape[: len(expected)] != expected:
            sizes = ", ".join([*map(str, expected), *(["..."] if value.ndim > len(expected) else [])])
            message = f"input {name} has shape {list(value.shape)}; expected [{sizes}], to go with input {first}"
            raise RequestError("INVALID_ARGUMENT", message)
    longest = axes[1]
    for place, size in enumerate(inputs["num_items"].tolist()):
        if not 0 <= size <= longest:
            message = f"input num_items is {size} for list {place}; expected 0 to {longest}, the lists' padded length"
            raise RequestError("INVALID_ARGUMENT", message)


def _check_type(place: int, value: np.ndarray, spec: _Input) -> None:
    """Python's session would cast silently."""
    got = tf.string if value.dtype == object else tf.dtypes.as_dtype(value.dtype)
    if got != spec.tensor_type:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"Expects arg[{place}] to be {_c_name(spec.tensor_type)} but {_c_name(got)} is provided",
        )


def _fingerprint(directory: Path) -> str:
    """Of the graph, the assets and the variables' index, which holds a checksum of every variable's values."""
    digest = hashlib.sha256()
    files = [directory / "saved_model.pb", directory / "variables" / "variables.index"]
    for file in (*files, *sorted((directory / "assets").glob("*"))):
        if file.is_file():
            digest.update(f"{file.name} {file.stat().st_size}".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


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


def _array(value: Any) -> np.ndarray:
    """What a session gives; a scalar string comes as bytes."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _c_name(dtype: Any) -> str:
    return _C_NAMES.get(dtype.name, dtype.name)


def _code(error: Any) -> str:
    from tensorflow.core.protobuf import error_codes_pb2

    try:
        return error_codes_pb2.Code.Name(error.error_code)
    except ValueError:
        return "UNKNOWN"
