"""A model's next version from its latest one: other items, the same ranker, and nothing encoded twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data.feature_rows import match
from tfmmrank.data.feature_store import ROWS_AT_ONCE, computed_rows
from tfmmrank.export.description import made_with, read_description
from tfmmrank.export.item_table import IDS_FILE
from tfmmrank.export.item_tokens import BATCH, DIGESTS_FILE, Batch, Items, TokenFiles, encode, item_digests
from tfmmrank.export.version_writer import VersionWriter
from tfmmrank.export.versions import find_version
from tfmmrank.stack import tf

_COPIED = 65_536  # rows at once


@dataclass(frozen=True)
class ItemUpdate:
    """What became of the items.

    Attributes:
        path: the new version's folder.
        previous: the version it was made from.
        added: items that the previous version lacks.
        changed: items of which a column that the ranker reads has another value.
        removed: items that the new version lacks.
        unchanged: the others.
        encoded: how many items went through the towers; two that are alike, one added and one removed say, do once.
    """

    path: Path
    previous: Path
    added: int
    changed: int
    removed: int
    unchanged: int
    encoded: int


def update_items(
    ranker: Any,
    data: Any,
    model_dir: str | Path,
    version: int | None = None,
    progress: bool = True,
    facts: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> ItemUpdate:
    """Writes the next version of a model with a newly prepared dataset's items.

    Items whose raw values are those of an item in the latest version get that one's tokens; the others are encoded.
    Current values of slot columns are the new dataset's, for all items. Otherwise the version is what ``export`` would
    write, and what was noted of the latest one by ``export``'s ``facts`` is kept.

    Memory: the latest version's tokens of one tower at a time; the new ones stand in mapped files.

    Args:
        ranker: the ranker that the latest version was exported of.
        data: a ``Prepared`` dataset.
        model_dir: the model's folder.
        version: default: one more than the highest there.
        progress: whether to show progress bars.
        facts: JSON values to keep in ``assets.extra/tfmmrank.json``.
        weights: as ``export`` takes it; default: as in the latest version.

    Raises:
        FileNotFoundError: when the folder holds no version.
        ValueError: for another ranker than the latest version's, or one whose towers' code, libraries or encoders'
            files are others by now; a version or a dataset without items; and whatever ``export`` raises it for.
        FileExistsError, UnknownOpError, RequestError: as ``export``.
    """
    previous = _Previous(find_version(model_dir))
    previous.check(ranker)
    if not len(data.catalogue):
        raise ValueError(f"{data.path}: holds no items to update {model_dir} with")
    writer = VersionWriter(ranker, data, weights or previous.description["weights"])
    digests = item_digests(data, writer.columns, progress)
    sources = match(digests, previous.digests)

    def encode_others(folder: Path) -> Items:
        files = TokenFiles(folder, data.catalogue.ids)
        previous.copy(sources, files)
        missing = np.flatnonzero(sources < 0)
        encode(ranker, _computed(ranker, data, missing), files, len(missing), progress)
        return Items(files.tokens, digests)

    path = writer.write(model_dir, version, encode_others, facts or {}, previous.path)
    return previous.compare(path, data.catalogue.ids, digests, int((sources < 0).sum()))


class _Previous:
    """The version to go on from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = read_description(path)
        try:
            self._dtypes: dict[str, str] = self.description["item_tokens"]
            self._made_with = {key: self.description[key] for key in ("ranker_digest", "code_digest", "libraries")}
            self.digests = np.load(path / DIGESTS_FILE, mmap_mode="r")
        except (KeyError, FileNotFoundError) as error:
            raise ValueError(
                f"{path}: holds no items that can be updated (it has no catalogue, or an older tfmmrank wrote it); "
                "export in full, without --update-items"
            ) from error

    def check(self, ranker: Any) -> None:
        """Raises ValueError for another ranker, or where other code or libraries would compute its tokens."""
        was, now = self._made_with, made_with(ranker)
        differs = []
        if was["ranker_digest"] != now["ranker_digest"]:
            digests = f"digest {was['ranker_digest'][:12]}; this one's is {now['ranker_digest'][:12]}"
            differs.append(f"of another ranker ({digests})")
        elif was["code_digest"] != now["code_digest"]:  # of another ranker it is another digest anyway
            differs.append("by other code of towers and encoders")
        for library, version in now["libraries"].items():
            if was["libraries"].get(library) != version:
                differs.append(f"with {library} {was['libraries'].get(library)} (here: {version})")
        if differs:
            raise ValueError(
                f"{self.path}: was exported {', '.join(differs)}, and its items' tokens may not go with new ones; "
                "export in full, without --update-items"
            )

    def copy(self, sources: np.ndarray, files: TokenFiles) -> None:
        """Copies tokens of rows ``sources [N]``; −1: none."""
        found = np.flatnonzero(sources >= 0)
        reader = tf.train.load_checkpoint(str(self.path / "variables" / "variables"))
        for number, (name, dtype) in enumerate(self._dtypes.items()):
            values = reader.get_tensor(_key("table_values", number))
            tokens = files.create(name, values.shape[1:], dtype)
            _copy(values, sources, found, tokens.values)
            del values  # it may be gigabytes
            _copy(reader.get_tensor(_key("table_masks", number)), sources, found, tokens.mask)

    def compare(self, path: Path, ids: np.ndarray, digests: np.ndarray, encoded: int) -> ItemUpdate:
        """Counts what became of the items."""
        with open(self.path / "assets" / IDS_FILE, encoding="utf-8", newline="\n") as lines:
            row_of = {line.removesuffix("\n"): row for row, line in enumerate(lines)}
        rows = np.array([row_of.get(item, -1) for item in ids])
        stayed = rows >= 0
        unchanged = int((self.digests[rows[stayed]] == digests[stayed]).sum())
        return ItemUpdate(
            path=path,
            previous=self.path,
            added=int((~stayed).sum()),
            changed=int(stayed.sum()) - unchanged,
            removed=len(row_of) - int(stayed.sum()),
            unchanged=unchanged,
            encoded=encoded,
        )


def _computed(ranker: Any, data: Any, rows: np.ndarray) -> Iterator[Batch]:
    """Rows and what their items are embedded to, as many at once as a full export encodes."""
    towers = ranker.side("item")
    if not towers:
        return
    streams = zip(*(computed_rows(data, tower, rows) for tower in towers), strict=True)
    while parts := list(itertools.islice(streams, BATCH // ROWS_AT_ONCE)):
        yield _joined([_named(towers, part) for part in parts])


def _named(towers: Sequence[Any], parts: Sequence[Batch]) -> Batch:
    """One batch of all towers."""
    features = {
        f"item/{tower.name}/{name}": array
        for tower, (_, part) in zip(towers, parts, strict=True)
        for name, array in part.items()
    }
    return parts[0][0], features


def _joined(batches: list[Batch]) -> Batch:
    names = batches[0][1]
    return (
        np.concatenate([rows for rows, _ in batches]),
        {name: np.concatenate([features[name] for _, features in batches]) for name in names},
    )


def _copy(kept: np.ndarray, sources: np.ndarray, rows: np.ndarray, into: np.ndarray) -> None:
    for start in range(0, len(rows), _COPIED):
        part = rows[start : start + _COPIED]
        into[part] = kept[sources[part]]


def _key(array: str, number: int) -> str:
    return f"{array}/{number}/.ATTRIBUTES/VARIABLE_VALUE"
