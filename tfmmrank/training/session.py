"""One model after another in a process: each begins with Keras's state fresh, and gives its memory back."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator

from tfmmrank.stack import keras, tf


@contextlib.contextmanager
def fresh_session() -> Iterator[None]:
    """Clears Keras's session before and after the block.

    TensorFlow's advice not to trace again is held back within: every model has functions of its own.
    """
    keras.backend.clear_session()
    tf.get_logger().addFilter(_other_than_retracing)
    try:
        yield
    finally:
        tf.get_logger().removeFilter(_other_than_retracing)
        keras.backend.clear_session()
        gc.collect()


def _other_than_retracing(record: logging.LogRecord) -> bool:
    return "tf.function retracing" not in record.getMessage()
