"""Killing ``prepare`` at any moment leaves the old dataset or the new one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfmmrank.data import Prepared

RUN = (
    "import sys; from pathlib import Path; from tfmmrank.data import prepare; from tfmmrank.schema import Recipe\n"
    "prepare(Recipe.load(sys.argv[1]), sys.argv[2], progress=False)"
)
RECIPE = """
data:
  name: {name}
  items: {{table: items.csv, texts: [title], image: image, numeric: [price], categorical: [brand]}}
  queries: {{table: queries.csv, split: split}}
  labels: {{kind: judgements, table: judgements.csv}}
model:
  towers: {{title: {{kind: text, columns: [title]}}}}
"""


def check(out: Path) -> str:
    """The dataset's name, after reading every part of it."""
    data = Prepared.open(out)
    expected = {"old": 2000, "new": 2500}[data.name]
    assert len(data.catalogue) == expected
    titles = [t for batch in data.catalogue.batches(500) for t in batch["title"]]
    assert titles == [f"{data.name} {i}".encode() for i in range(expected)]
    lists = data.lists("train")
    assert (len(lists), len(lists.labels)) == (500, 500 * 20)
    return data.name


@pytest.mark.slow
def test_twenty_kills(shop):
    recipes = {}
    for name, items in (("old", 2000), ("new", 2500)):
        folder = shop.folder / name
        folder.mkdir()
        lines = [f"n{i},{name} {i},../i1.png,{i},b\n" for i in range(items)]
        (folder / "items.csv").write_text("item_id,title,image,price,brand\n" + "".join(lines))
        lines = [f"q{i},text {i},train\n" for i in range(500)]
        (folder / "queries.csv").write_text("query_id,query,split\n" + "".join(lines))
        lines = [f"q{i},n{(i * 31 + k * 7) % items},{k % 4}\n" for i in range(500) for k in range(20)]
        (folder / "judgements.csv").write_text("query_id,item_id,grade\n" + "".join(lines))
        recipes[name] = folder / "recipe.yaml"
        recipes[name].write_text(RECIPE.format(name=name))
    out = shop.folder / "out"

    def start(name: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", RUN, str(recipes[name]), str(out)])

    begin = time.monotonic()
    assert start("old").wait() == 0
    whole = time.monotonic() - begin
    current, killed = check(out), 0
    moments = random.Random(0)
    for number in range(20):
        target = "new" if current == "old" else "old"
        process = start(target)
        # Half of the kills fall late, where the dataset is synced, swapped and the old one removed.
        time.sleep(whole * (moments.uniform(0, 1.1) if number % 2 else moments.uniform(0.75, 1.05)))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        current = check(out)
        assert current in ("old", "new")
    assert killed >= 5  # or the moments were all too late to show anything
    assert start("new").wait() == 0
    assert check(out) == "new"
    assert [name for name in os.listdir(shop.folder) if name.startswith(".")] == []  # leavings are gone
