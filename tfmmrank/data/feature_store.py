"""The feature store: every catalogue item preprocessed once per tower, in memory-mapped arrays.

Strings and pictures are turned into numbers one time, ahead of training, by the same graph that serves; batches then
only gather rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.stack import tf

_CHUNK = 256


def item_features(prepared: Any, tower: Any, progress: bool = True) -> dict[str, np.ndarray]:
    """A tower's preprocessed features of the whole catalogue, made on first use and kept beside the dataset.

    Args:
        prepared: a ``Prepared`` dataset.
        tower: an adapted tower of side ``item``.
        progress: whether to show a progress bar.

    Returns:
        ``{feature: array [num_items, ...]}``, memory-mapped, read-only.
    """
    folder = prepared.path / "features" / f"{tower.name}-{_key(tower)}"
    if not (folder / "features.json").is_file():
        _write(prepared, tower, folder, progress)
    names = json.loads((folder / "features.json").read_text("utf-8"))
    return {name: np.load(folder / f"{index}.npy", mmap_mode="r") for index, name in enumerate(names)}


def _key(tower: Any) -> str:
    """Changes whenever preprocessing may: kind, settings and what was learnt, the sharing tower's included."""
    parts = [[type(t).__name__, t.get_config()] for t in (tower, tower.share) if t is not None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _write(prepared: Any, tower: Any, folder: Path, progress: bool) -> None:
    """Fills the store aside and renames it into place, so that a killed run leaves no half-written one."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    preprocess = tf.function(tower.preprocess)
    arrays: dict[str, np.memmap] = {}
    start, total = 0, len(prepared.catalogue)
    bar = tqdm(total=total, desc=f"preprocess {tower.name}", unit="item", disable=not progress, leave=False)
    dataset = tf.data.Dataset.from_generator(
        lambda: prepared.catalogue.batches(_CHUNK, columns=tower.columns),
        output_signature={
            name: tf.TensorSpec([None], tf.float32 if prepared.item_columns[name] == "numeric" else tf.string)
            for name in tower.columns
        },
    )
    for features in dataset.map(preprocess, num_parallel_calls=2).prefetch(2).as_numpy_iterator():
        for index, (name, value) in enumerate(features.items()):
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    aside / f"{index}.npy", "w+", value.dtype, (total, *value.shape[1:])
                )
            arrays[name][start : start + len(value)] = value
        start += len(value)
        bar.update(len(value))
    bar.close()
    for array in arrays.values():
        array.flush()
    (aside / "features.json").write_text(json.dumps(list(arrays)), "utf-8")
    try:
        os.rename(aside, folder)
    except OSError:  # another process was faster; its store is as good
        shutil.rmtree(aside)
