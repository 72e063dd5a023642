"""Where to train: TPU, GPUs or CPU."""

from __future__ import annotations

import os
from typing import Any

from tfmmrank.stack import tf


def make_strategy() -> Any:
    """A ``tf.distribute.Strategy``: TPU when the environment has one (Colab, Cloud TPU VM), else all GPUs, else CPU."""
    if any(os.environ.get(name) for name in ("TPU_NAME", "COLAB_TPU_ADDR", "TPU_WORKER_ID")):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME") or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
