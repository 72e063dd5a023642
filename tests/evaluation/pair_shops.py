"""Small datasets and an untrained ranker for the baselines that learn from pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryCatalogue, MemoryShop
from tfmmrank.data.lists import Lists
from tfmmrank.encoders.bert import BertEncoder
from tfmmrank.matching import CosineMatch, LexicalMatch
from tfmmrank.ranker import Ranker
from tfmmrank.towers import BehaviourTower
from tfmmrank.towers.lexical import LexicalTower
from tfmmrank.towers.pretrained_image import PretrainedImageTower
from tfmmrank.towers.pretrained_text import PretrainedTextTower

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "green", "yellow", "shirt", "shoe", "bag", "hat", "model"]
NO_TITLE, NO_PICTURE = 5, 3  # items


def make_shop(folder: Path, **options) -> MemoryShop:
    """The tiny shop, with an item that has no title."""
    shop = MemoryShop(folder, encode_picture, **options)
    shop.catalogue._columns["title"][NO_TITLE] = b""
    return shop


def make_ranker(shop, trainable_blocks: int | None = 0, seed: int = 0) -> Ranker:
    """Towers of a BERT of random weights, of colours, of words and of numbers; matches by cosine and by words."""
    from tfmmrank.training import seed_everything

    seed_everything(seed)
    encoder = BertEncoder(WORDS, 16, layers=1, heads=2, intermediate=16, trainable_blocks=trainable_blocks)
    query = PretrainedTextTower(["query"], "query", 8, encoder=encoder, output="both", max_tokens=8, name="query")
    title = PretrainedTextTower(["title"], dim=8, share=query, max_tokens=8, name="title")
    words = LexicalTower(["title"], name="words")
    asked = LexicalTower(["query"], "query", share=words, name="asked")
    image = PretrainedImageTower(["image"], dim=8, encoder="colours", name="image")
    past = BehaviourTower(["past_clicks"], "slot", 8, name="past")
    matches = [CosineMatch("query", "title", name="title"), LexicalMatch("asked", "words", name="words")]
    return Ranker([query, title, words, asked, image, past], cross_layers=0, deep=[8], match=matches).adapt(shop)


class FeatureLists:
    """Lists without a catalogue: of five numbers the first tells the grade, if looked at the right way round."""

    query_columns: dict[str, str] = {}
    item_columns: dict[str, str] = {}
    slot_columns = {"features": 5}
    build = "in memory"

    def __init__(self, path: Path, splits=("train", "valid", "test"), lists: int = 40, seed: int = 0) -> None:
        self.path, self.splits = Path(path), list(splits)
        self.catalogue = MemoryCatalogue([], {})
        self._lists = {split: self._make(np.random.default_rng([seed, n]), lists) for n, split in enumerate(splits)}

    def _make(self, rng, count: int) -> Lists:
        lengths = rng.integers(4, 12, count)
        rows = int(lengths.sum())
        features = rng.normal(size=(rows, 5)).astype(np.float32)
        labels = np.digitize(-np.abs(features[:, 0]), [-1.2, -0.6, -0.2]).astype(np.float32)
        features[rng.random(rows) < 0.1, 1] = np.nan
        return Lists(
            np.array([f"q{i}" for i in range(count)], object), {}, np.concatenate([[0], np.cumsum(lengths)]),
            np.full(rows, -1, np.int32), labels, np.ones(rows, np.float32), {"features": features},
        )  # fmt: skip

    def lists(self, split):
        return self._lists[split]
