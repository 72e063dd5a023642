"""The feature store: every catalogue item preprocessed and embedded once per tower, in memory-mapped arrays.

Strings and pictures are turned into numbers, and those sent through frozen encoders, one time, ahead of training, by
the same graphs that serve; batches then only gather rows. What was computed of an item holds as long as the tower and
the item's own raw values are what they were, in whichever dataset.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data.errors import DataError
from tfmmrank.data.feature_folders import Home
from tfmmrank.data.feature_rows import DIGEST, FeatureRows, RowWriter, digests_of, match
from tfmmrank.stack import tf
from tfmmrank.towers.base import Tower

ROWS_AT_ONCE = 64  # of embed: one shape, so that it is traced once; few enough for pictures in a CPU's memory
_COPIED = 1024  # rows at once
_LIBRARIES = ("tensorflow", "tensorflow-text", "keras-nlp")
_ROOMS = ("encoders", "towers")  # where preprocessing and embedding are written


def item_features(prepared: Any, tower: Tower, progress: bool = True) -> dict[str, np.ndarray]:
    """``item_rows(...).features``: a tower's features of the whole catalogue, ``{feature: array [num_items, ...]}``."""
    return item_rows(prepared, tower, progress).features


def item_rows(prepared: Any, tower: Tower, progress: bool = True) -> FeatureRows:
    """A tower's features of the whole catalogue, made on first use and kept beside the dataset.

    Items whose raw values have been through the same tower before, in a run that was killed or for an earlier dataset
    at this place, are not computed again. Of several processes that ask at once, one computes and the others wait.

    Args:
        prepared: a ``Prepared`` dataset.
        tower: an adapted tower of side ``item``.
        progress: whether to show progress bars.

    Returns:
        What ``tower.embed`` gave, ``{feature: array [num_items, ...]}``, and the digests of the items' raw values, all
        memory-mapped, read-only.

    Raises:
        ValueError: when ``tower.embed`` gives something else than features ``[n, ...]`` of n items, or other features
            than it gave before.
        DataError: when the dataset is prepared again meanwhile.
        OSError: when the disk is full; what was computed is kept, and the next run goes on from there.
    """
    path = prepared.path / "features" / f"{tower.name.replace('/', '_')}-{_key(tower, prepared)}"
    try:
        return FeatureRows.open(path / prepared.build)
    except (OSError, ValueError):
        pass  # missing, most likely; looked at again below, with nobody else writing
    doing = "preprocess" if type(tower).embed is Tower.embed else "encode"

    def tell_waiting() -> None:
        if progress:
            tqdm.write(f"{doing} {tower.name}: waiting for another process that does it", file=sys.stderr)

    with Home(path, tell_waiting) as home:
        try:
            rows = _whole(home.path / prepared.build)
            return rows if rows is not None else _make(prepared, tower, home, doing, progress)
        except FileNotFoundError as error:
            if home.replaced:
                raise DataError(f"{prepared.path}: was prepared again meanwhile; open it again") from error
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = f'no room for the features of tower "{tower.name}"; make some and run again, to go on from here'
                raise OSError(error.errno, hint, str(path)) from error
            raise


def _key(tower: Tower, prepared: Any) -> str:
    """Changes whenever an item's features may: code, settings and what was learnt, the sharing tower's included."""
    parts: list[Any] = [prepared.item_columns[name] for name in tower.columns]
    parts += library_versions().values()
    for each in (tower, tower.share):
        if each is not None:
            kind = type(each)
            state = [each.embed_config(), each.embed_state().hex(), each.compute_dtype]
            parts.append([kind.__module__, kind.__qualname__, *state, source_of(kind)])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Versions of the libraries whose ops preprocess and embed, by name."""
    return {library: version(library) for library in _LIBRARIES}


def source_of(kind: type) -> list[str]:
    """The code that preprocesses and embeds: the package's rooms for it, and classes from elsewhere."""
    package = Path(inspect.getfile(Tower)).parents[1]
    code = [file.read_text("utf-8") for room in _ROOMS for file in sorted((package / room).glob("*.py"))]
    for base in kind.__mro__:
        if issubclass(base, Tower):
            with contextlib.suppress(OSError, TypeError):  # no source: typed into a bare interpreter
                code.append(inspect.getsource(base))
    return code


def _whole(folder: Path) -> FeatureRows | None:
    """The rows of a whole store; None when there is none. A damaged one is removed, and warned of."""
    if not folder.is_dir():
        return None
    try:
        return FeatureRows.open(folder)
    except (OSError, ValueError) as error:
        warnings.warn(f"{folder}: is damaged, and made again ({error})", stacklevel=2)
        shutil.rmtree(folder)
        return None


def _make(prepared: Any, tower: Tower, home: Home, doing: str, progress: bool) -> FeatureRows:
    """Makes the store of the dataset's build, of rows at hand where there are such."""
    digests = _digests(prepared, tower, progress)
    folder = next((folder for folder, old in home.rows_at_hand() if _is_all(home, folder, old, digests)), None)
    if folder is None:
        folder = home.new_partial(prepared.build)
        with (
            RowWriter(folder, len(digests)) as writer,
            tqdm(
                total=len(digests), desc=f"{doing} {tower.name}", unit="item", disable=not progress, leave=False
            ) as bar,
        ):
            _write(prepared, tower, home, digests, writer, bar)
    home.publish(folder, prepared.build)
    home.remove_leavings(but=folder)
    return FeatureRows.open(home.path / prepared.build)


def _is_all(home: Home, folder: Path, rows: FeatureRows, digests: np.ndarray) -> bool:
    """Whether a folder may become the store as it is: the items are as they were, in number and order too."""
    return home.is_leaving(folder) and np.array_equal(rows.digests, digests)


def _write(prepared: Any, tower: Tower, home: Home, digests: np.ndarray, writer: RowWriter, bar: Any) -> None:
    """Copies the rows at hand and computes the others."""

    def put(rows: np.ndarray, features: dict[str, np.ndarray]) -> None:
        try:
            writer.write(rows, digests[rows], features)
        except ValueError as error:
            raise ValueError(
                f'tower "{tower.name}": {error}; if its embed changed, embed_config or embed_state must change too: '
                f"let them, or remove {home.path}"
            ) from error
        bar.update(len(rows))

    missing = np.arange(len(digests))
    for _, old in home.rows_at_hand():
        places = match(digests[missing], old.digests)
        found, sources = missing[places >= 0], places[places >= 0]
        for start in range(0, len(found), _COPIED):
            part = slice(start, start + _COPIED)
            put(found[part], {name: array[sources[part]] for name, array in old.features.items()})
        missing = missing[places < 0]
    bar.refresh()
    writer.flush()
    home.remove_leavings(but=writer.folder)  # before the long part: a run killed often leaves one copy, not many
    for rows, features in computed_rows(prepared, tower, missing):
        put(rows, features)


def _digests(prepared: Any, tower: Tower, progress: bool) -> np.ndarray:
    """Digests of all items' raw values."""
    digests, start = np.empty(len(prepared.catalogue), DIGEST), 0
    with tqdm(total=len(digests), desc=f"read {tower.name}", unit="item", disable=not progress, leave=False) as bar:
        for raw in prepared.catalogue.batches(_COPIED, columns=tower.columns):
            part = digests_of([raw[name] for name in tower.columns])
            digests[start : start + len(part)] = part
            start += len(part)
            bar.update(len(part))
    return digests


def computed_rows(prepared: Any, tower: Tower, rows: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Features of some rows, computed and not kept; yields rows ``[n]`` and their features ``[n, ...]``.

    Raises:
        ValueError: when ``tower.embed`` gives something else than features ``[n, ...]`` of n items.
    """
    if not len(rows):
        return
    parts = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    kinds = prepared.item_columns
    dataset = tf.data.Dataset.from_generator(
        # The last batch is filled up with its first items.
        lambda: (prepared.catalogue.rows(np.resize(part, ROWS_AT_ONCE), tower.columns) for part in parts),
        output_signature={
            name: tf.TensorSpec([ROWS_AT_ONCE], tf.float32 if kinds[name] == "numeric" else tf.string)
            for name in tower.columns
        },
    )
    embed = tf.function(tower.embed)
    preprocessed = dataset.map(tower.preprocess, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    for part, batch in zip(parts, preprocessed, strict=False):
        features = {}
        for name, value in embed(batch).items():
            array = value.numpy()
            if array.shape[:1] != (ROWS_AT_ONCE,):
                raise ValueError(
                    f'tower "{tower.name}": embed gave "{name}" of shape {array.shape} for {ROWS_AT_ONCE} items; '
                    f"expected [{ROWS_AT_ONCE}, ...], a row an item"
                )
            if array.dtype.kind not in "biuf":
                raise ValueError(
                    f'tower "{tower.name}": embed gave "{name}" as {value.dtype.name}, which .npy files do not hold; '
                    "expected numbers or flags, such as float16 or float32"
                )
            features[name] = array[: len(part)]
        yield part, features
