"""The feature store: every catalogue item preprocessed once per tower, in memory-mapped arrays.

Strings and pictures are turned into numbers one time, ahead of training, by the same graph that serves; batches then
only gather rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.atomic import replace_directory
from tfmmrank.stack import tf
from tfmmrank.towers.base import Tower

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
    folder = prepared.path / "features" / f"{tower.name}-{_key(tower, prepared.build)}"
    if not (folder / "features.json").is_file():
        with replace_directory(folder) as aside:
            _write(prepared, tower, aside, progress)
    names = json.loads((folder / "features.json").read_text("utf-8"))
    return {name: np.load(folder / f"{index}.npy", mmap_mode="r") for index, name in enumerate(names)}


def _key(tower: Any, build: str) -> str:
    """Changes whenever the features may: dataset, code, settings and what was learnt, the sharing tower's included.

    By the dataset's build, because a process that opened an earlier dataset at this place must not leave its features.
    """
    parts: list[Any] = [build]
    for each in (tower, tower.share):
        if each is not None:
            parts.append(
                [
                    type(each).__module__,
                    type(each).__qualname__,
                    each.embed_config(),
                    each.embed_state().hex(),
                    _source(type(each)),
                ]
            )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _source(kind: type) -> list[str]:
    """The code that preprocesses: the towers' room, and classes from elsewhere."""
    code = [file.read_text("utf-8") for file in sorted(Path(inspect.getfile(Tower)).parent.glob("*.py"))]
    for base in kind.__mro__:
        if issubclass(base, Tower):
            with contextlib.suppress(OSError, TypeError):  # no source: typed into a bare interpreter
                code.append(inspect.getsource(base))
    return code


def _write(prepared: Any, tower: Any, aside: Path, progress: bool) -> None:
    """Fills a store."""
    embed = tf.function(tower.embed)
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
    for preprocessed in dataset.map(tower.preprocess, num_parallel_calls=2).prefetch(2):
        features = {name: value.numpy() for name, value in embed(preprocessed).items()}
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
