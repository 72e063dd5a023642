"""A shop of a few rows, to be spoilt one way or another by the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from tfmmrank.schema import Recipe

ITEMS = [
    {"item_id": "i1", "title": "red shirt", "image": "i1.png", "price": 10.5, "brand": "Acme"},
    {"item_id": "i2", "title": "蓝色 衬衫", "image": "i2.jpg", "price": 20, "brand": "Bolt"},
    {"item_id": "i3", "title": "green mug", "image": "", "price": None, "brand": ""},
    {"item_id": "i4", "title": 'a "quoted", long\nname', "image": "i1.png", "price": 7, "brand": "Acme"},
]
QUERIES = [
    {"query_id": "q1", "query": "red shirt", "split": "train"},
    {"query_id": "q2", "query": "蓝色", "split": "train"},
    {"query_id": "q3", "query": "mug", "split": "valid"},
    {"query_id": "q4", "query": "gift", "split": "test"},
]
JUDGEMENTS = [
    {"query_id": "q2", "item_id": "i2", "grade": 3},
    {"query_id": "q1", "item_id": "i1", "grade": 3},
    {"query_id": "q1", "item_id": "i4", "grade": 1},
    {"query_id": "q1", "item_id": "i2", "grade": 0},
    {"query_id": "q2", "item_id": "i1", "grade": 0},
    {"query_id": "q3", "item_id": "i3", "grade": 2},
    {"query_id": "q3", "item_id": "i4", "grade": 0},
    {"query_id": "q4", "item_id": "i4", "grade": 1},
    {"query_id": "q4", "item_id": "i3", "grade": 0},
]


class Shop:
    """Writes a shop's export into a folder; change its rows and settings before asking for the ``recipe``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items = [dict(row) for row in ITEMS]
        self.queries = [dict(row) for row in QUERIES]
        self.judgements = [dict(row) for row in JUDGEMENTS]
        self.forms = {"items": "csv", "queries": "csv", "judgements": "csv"}
        self.data: dict[str, Any] = {}
        self.item_columns: dict[str, Any] = {
            "texts": ["title"],
            "image": "image",
            "numeric": ["price"],
            "categorical": ["brand"],
        }
        self.query_columns: dict[str, Any] = {"split": "split"}
        self.labels: dict[str, Any] = {}
        Image.new("RGB", (12, 8), (200, 30, 30)).save(folder / "i1.png")
        Image.new("RGB", (12, 8), (30, 30, 200)).save(folder / "i2.jpg")

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        """Writes a table as its form says; returns the file's name."""
        form = self.forms[name]
        file = self.folder / f"{name}.{form}"
        if form == "csv":
            pd.DataFrame(rows).to_csv(file, index=False)
        elif form == "parquet":
            pd.DataFrame(rows).to_parquet(file, index=False)
        else:
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return file.name

    def write_all(self) -> None:
        """Writes the three tables."""
        for name in ("items", "queries", "judgements"):
            self.write(name, getattr(self, name))

    def recipe(self, write: bool = True, **data: Any) -> Recipe:
        """The recipe; writes the tables first unless told not to."""
        if write:
            self.write_all()
        tables = {name: f"{name}.{form}" for name, form in self.forms.items()}
        content = {
            "items": {"table": tables["items"], **self.item_columns},
            "queries": {"table": tables["queries"], **self.query_columns},
            "labels": {"kind": "judgements", "table": tables["judgements"], **self.labels},
            **self.data,
            **data,
        }
        model = {"towers": {"title": {"kind": "text", "columns": ["title"]}}}
        return Recipe.from_dict({"data": content, "model": model}, root=self.folder)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A correct shop in CSV."""
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder)
