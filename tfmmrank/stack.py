"""The one place that knows about Keras generations.

TensorFlow Recommenders, TF-Ranking and TF Hub are Keras 2 libraries; TensorFlow 2.16 and newer load Keras 3 unless
``TF_USE_LEGACY_KERAS=1`` is set before ``tf.keras`` is first touched. Every other module imports from here::

    from tfmmrank.stack import keras, tf, tfr, tfrs

Importing this module is cheap: TensorFlow itself is imported when the first of those names is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from typing import Any

_CURE = (
    "Import tfmmrank before TensorFlow, or set the environment variable TF_USE_LEGACY_KERAS=1 before Python starts "
    "(in a notebook: restart the kernel and make `import tfmmrank` the first import)."
)


class StackError(ImportError):
    """The TensorFlow libraries in this process do not fit together; the message says how to mend it."""


_SILENT = "3"  # the level that also hides "failed call to cuInit", which is no error on a machine without a GPU
_AS_WRITTEN = ("tfmmrank", "tensorflow_ranking", "tensorflow_recommenders", "keras_nlp")
_NOTICE = re.compile(rb"^(WARNING: All log messages before absl|[IWE]0000 )")


def _is_keras2(tensorflow: Any) -> bool:
    """Whether ``tf.keras`` of a loaded TensorFlow is Keras 2 (the package tf_keras)."""
    return tensorflow.keras.Model.__module__.startswith("tf_keras")


def _prepare_environment() -> None:
    """Selects Keras 2, and refuses a process in which Keras 3 was selected before."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _SILENT)
    loaded = sys.modules.get("tensorflow")
    if loaded is not None and hasattr(loaded, "keras") and not _is_keras2(loaded):
        raise StackError(f"TensorFlow is already loaded with Keras 3, and tfmmrank needs Keras 2 (tf_keras). {_CURE}")


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Drops what TensorFlow's libraries write to descriptor 2 while they load, before their log level counts.

    Other lines come through, afterwards. With ``TF_CPP_MIN_LOG_LEVEL`` set by the user, nothing is dropped.
    """
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] != _SILENT:
        yield
        return
    try:
        screen = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not _NOTICE.match(line)))


def _trace_as_written() -> None:
    """Keeps AutoGraph from rewriting libraries that have no Python control flow over tensors: it would take seconds.

    What users write of their own, such as a tower's ``call``, is rewritten as ever.
    """
    config: Any = importlib.import_module("tensorflow.python.autograph.core.config")
    config.CONVERSION_RULES = (*map(config.DoNotConvert, _AS_WRITTEN), *config.CONVERSION_RULES)


def _load_tensorflow() -> Any:
    try:
        with _without_notices():
            tensorflow = importlib.import_module("tensorflow")
        keras2 = _is_keras2(tensorflow)
    except ImportError as error:
        raise StackError(f"TensorFlow 2.21 with tf_keras is needed: pip install tfmmrank ({error})") from error
    if not keras2:
        raise StackError(f"tf.keras is Keras 3 in this process, and tfmmrank needs Keras 2 (tf_keras). {_CURE}")
    _trace_as_written()
    return tensorflow


def _load_ranking() -> Any:
    """Imports TF-Ranking, whose import names ``tf.estimator``, gone from TensorFlow since 2.16.

    Only ``estimator.ModeKeys`` is used by the parts that live on (data, losses, metrics, layers), so a stand-in that
    has it is enough.
    """
    tensorflow = load("tf")
    if not hasattr(tensorflow, "estimator"):
        stand_in = types.ModuleType("tensorflow.estimator")
        modes = {"TRAIN": "train", "EVAL": "eval", "PREDICT": "infer"}
        stand_in.ModeKeys = type("ModeKeys", (), modes)  # type: ignore[attr-defined]
        tensorflow.estimator = stand_in
        tensorflow.compat.v1.estimator = stand_in
    return importlib.import_module("tensorflow_ranking")


def _load_quietly(module: str) -> Any:
    load("tf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorflow_hub warns that pkg_resources is deprecated
        return importlib.import_module(module)


def _load_keras_nlp() -> Any:
    load("tf")
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),  # it prints "Using TensorFlow backend"
        contextlib.redirect_stderr(nowhere),
    ):
        return importlib.import_module("keras_nlp")


_LOADERS = {
    "tf": _load_tensorflow,
    "keras": lambda: load("tf").keras,
    "tfr": _load_ranking,
    "tfrs": lambda: _load_quietly("tensorflow_recommenders"),
    "tf_text": lambda: _load_quietly("tensorflow_text"),
    "hub": lambda: _load_quietly("tensorflow_hub"),
    "keras_nlp": _load_keras_nlp,
}

tf: Any
keras: Any
tfr: Any
tfrs: Any
tf_text: Any
hub: Any
keras_nlp: Any


def load(name: str) -> Any:
    """Returns one of the libraries (``tf``, ``keras``, ``tfr``, ``tfrs``, ``tf_text``, ``hub``, ``keras_nlp``)."""
    if name not in globals():
        globals()[name] = _LOADERS[name]()
    return globals()[name]


def __getattr__(name: str) -> Any:
    if name in _LOADERS:
        return load(name)
    raise AttributeError(f"module 'tfmmrank.stack' has no attribute {name!r}")


_prepare_environment()
