"""A prepared dataset: what ``prepare`` writes and everything else reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfmmrank.atomic import recover
from tfmmrank.data.catalogue import Catalogue
from tfmmrank.data.errors import DataError
from tfmmrank.data.lists import Lists, read_lists_of
from tfmmrank.registry import nearest

FORMAT = 2


class Prepared:
    """A dataset on disk.

    Attributes:
        path: its folder.
        build: drawn by ``prepare``, so that no two datasets at one place are taken for each other.
        meta: ``meta.json``: columns, counts, splits, the recipe's data part, the report of what was skipped.
        catalogue: the items.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path, self.meta = path, meta
        self.build: str = meta["build"]
        with self._of_this_build():
            self.catalogue = Catalogue(path / "items" / "catalogue.arrow" if meta["num_items"] else None)
        self._lists: dict[str, Lists] = {}

    @classmethod
    def open(cls, path: str | Path) -> Prepared:
        """Opens a folder that ``prepare`` wrote. Raises DataError when it is none."""
        path = Path(path)
        recover(path)
        return cls(path, _read_meta(path))

    @contextlib.contextmanager
    def _of_this_build(self) -> Iterator[None]:
        """Checks, once files were read, that they were this dataset's. Raises DataError when it has been replaced."""
        try:
            yield
        finally:
            if _read_meta(self.path)["build"] != self.build:
                raise DataError(f"{self.path}: was prepared again meanwhile; open it again")

    @property
    def name(self) -> str:
        """The shop's name."""
        return self.meta["name"]

    @property
    def item_columns(self) -> dict[str, str]:
        """Raw item columns and their kinds."""
        return self.meta["item_columns"]

    @property
    def query_columns(self) -> dict[str, str]:
        """Raw query columns and their kinds."""
        return self.meta["query_columns"]

    @property
    def slot_columns(self) -> dict[str, int]:
        """Slot features and their widths."""
        return self.meta["slot_columns"]

    @property
    def snapshot_columns(self) -> list[str]:
        """Catalogue columns that hold the slot features' current values, for serving."""
        return self.meta["snapshot_columns"]

    @property
    def splits(self) -> list[str]:
        """Splits that have lists."""
        return [split for split, counts in self.meta["splits"].items() if counts["lists"]]

    def lists(self, split: str) -> Lists:
        """All lists of a split, in memory. Raises DataError for an unknown split, or a dataset that was replaced."""
        if split not in self.splits:
            raise DataError(
                f'{self.path}: has no split "{split}"{nearest(split, self.splits)}; splits: {", ".join(self.splits)}'
            )
        if split not in self._lists:
            with self._of_this_build():
                lists = read_lists_of(
                    self.path / "lists", split, self.meta["splits"][split], self.query_columns, self.slot_columns
                )
            self._lists[split] = lists
        return self._lists[split]

    def dataset(self, split: str, model: Any, **options: Any) -> Any:
        """Batches of a split for a model, as a ``tf.data.Dataset`` of (features, labels, weights).

        Args:
            split: name of the split.
            model: an adapted ``Ranker``.
            **options: ``batch_size``, ``list_size``, ``shuffle``, ``seed``, ``static``, ``progress``; see
                ``tfmmrank.data.batches.ListBatches``.
        """
        from tfmmrank.data.batches import make_dataset  # TensorFlow, which preparing does without

        return make_dataset(self, split, model, **options)


def _read_meta(path: Path) -> dict[str, Any]:
    """What ``meta.json`` holds. Raises DataError when the folder is no dataset that this version reads."""
    try:
        meta = json.loads((path / "meta.json").read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: is no prepared dataset (meta.json is missing); run `tfmmrank prepare`") from error
    except ValueError as error:
        raise DataError(f"{path / 'meta.json'}: is damaged ({error}); remove {path} and prepare it again") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else None
        raise DataError(f"{path}: has format {found}, and this version reads {FORMAT}; prepare it again")
    return meta
