"""How fast ``prepare`` is and how much memory it takes: generated tables of N and of 2N rows.

Run as ``python -m benchmarks.prepare_scale``; prints one JSON object. Each run is a process of its own, whose peak
resident memory is the kernel's figure (``ru_maxrss``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from PIL import Image

LIST_SIZE = 20
_CHUNK = 200_000
_WORDS = np.array(
    [
        "red",
        "blue",
        "green",
        "shirt",
        "shoe",
        "bag",
        "hat",
        "mug",
        "lamp",
        "cotton",
        "linen",
        "wool",
        "large",
        "small",
        "红色",
        "蓝色",
        "衬衫",
        "鞋",
    ],
    object,
)

_RUN = """
import json, resource, sys, time
from tfmmrank.data import prepare
from tfmmrank.schema import Recipe
recipe = Recipe.load(sys.argv[1])
start = time.perf_counter()
prepared = prepare(recipe, sys.argv[2], progress=False)
seconds = time.perf_counter() - start
rows = sum(split["rows"] for split in prepared.meta["splits"].values())
print(json.dumps({
    "items": prepared.meta["num_items"],
    "label_rows": rows,
    "seconds": round(seconds, 1),
    "label_rows_per_second": round(rows / seconds),
    "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    "tensorflow_loaded": "tensorflow" in sys.modules,
}))
"""


def write_shop(folder: Path, items: int, label_rows: int, pictures: int = 300, seed: int = 0) -> Path:
    """Writes tables of a shop, chunk by chunk, and its recipe, whose path is returned.

    Args:
        folder: where to write.
        items: rows of the items table (Parquet).
        label_rows: rows of the judgements table (CSV), ``LIST_SIZE`` a query.
        pictures: picture files; many items share one.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    for number in range(pictures):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / "images" / f"{number}.jpg", quality=85)
    _write(folder / "items.parquet", items, lambda rows: _items(rows, pictures, rng))
    queries = -(-label_rows // LIST_SIZE)
    _write(folder / "queries.csv", queries, lambda rows: _queries(rows, rng))
    _write(folder / "judgements.csv", label_rows, lambda rows: _judgements(rows, queries, items, rng))
    recipe = {
        "data": {
            "name": "scale",
            "items": {
                "table": "items.parquet",
                "texts": ["title"],
                "image": "image",
                "numeric": ["price"],
                "categorical": ["brand"],
            },
            "queries": {"table": "queries.csv"},
            "labels": {"kind": "judgements", "table": "judgements.csv"},
            "split": {"by": "query"},
        },
        "model": {"towers": {"title": {"kind": "text", "columns": ["title"]}}},
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), "utf-8")
    return file


def _items(rows: np.ndarray, pictures: int, rng: np.random.Generator) -> dict[str, Any]:
    words = _WORDS[rng.integers(0, len(_WORDS), (len(rows), 8))]
    return {
        "item_id": [f"item-{row:08d}" for row in rows],
        "title": [" ".join(line) for line in words],
        "image": [f"images/{number}.jpg" for number in rng.integers(0, pictures, len(rows))],
        "price": rng.uniform(1, 500, len(rows)).round(2),
        "brand": [f"brand {number}" for number in rng.integers(0, 500, len(rows))],
    }


def _queries(rows: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    words = _WORDS[rng.integers(0, len(_WORDS), (len(rows), 3))]
    text = [f"{' '.join(line)} {row}" for line, row in zip(words, rows, strict=True)]
    return {"query_id": [f"query-{row}" for row in rows], "query": text}


def _judgements(rows: np.ndarray, lists: int, items: int, rng: np.random.Generator) -> dict[str, Any]:
    # A list's rows stand all over the table, so that they must be sorted; its items are a stride apart, so that none
    # comes twice.
    query, place = rows % lists, rows // lists
    item = (query * 104_729 + place * 9_973) % items
    return {
        "query_id": [f"query-{number}" for number in query],
        "item_id": [f"item-{number:08d}" for number in item],
        "grade": rng.integers(0, 5, len(rows)),
    }


def _write(file: Path, rows: int, make: Any) -> None:
    """Writes a table made chunk by chunk, so that this process stays small too."""
    writer: Any = None
    for start in range(0, rows, _CHUNK):
        table = pa.table(make(np.arange(start, min(rows, start + _CHUNK))))
        if writer is None:
            writer = (pq.ParquetWriter if file.suffix == ".parquet" else pa.csv.CSVWriter)(file, table.schema)
        writer.write_table(table)
    writer.close()


def measure(items: int, label_rows: int, folder: Path) -> dict[str, Any]:
    """Generates tables and prepares them in a process of its own."""
    recipe = write_shop(folder / f"shop-{label_rows}", items, label_rows)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(recipe), str(folder / f"prepared-{label_rows}")],
        env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures at N and 2N."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--label-rows", type=int, default=2_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        once = measure(options.items, options.label_rows, folder)
        twice = measure(2 * options.items, 2 * options.label_rows, folder)
    growth = twice["peak_rss_mb"] / once["peak_rss_mb"] - 1
    print(json.dumps({"n": once, "2n": twice, "peak_rss_growth": round(growth, 3)}))


if __name__ == "__main__":
    main()
