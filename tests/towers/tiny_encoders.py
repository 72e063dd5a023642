"""Encoders small enough for tests, with weights that tell inputs apart."""

from __future__ import annotations

import numpy as np

from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.bert import BertEncoder
from tfmmrank.encoders.image_sources import IMAGE_SOURCES
from tfmmrank.encoders.pictures import PictureEncoder
from tfmmrank.encoders.text_sources import TEXT_SOURCES
from tfmmrank.stack import keras

VOCABULARY = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "green", "yellow", "shirt", "shoe", "bag", "hat", "model",
    "number", "红", "蓝", "绿", "黄", "色", "衬", "衫", "鞋", "包", "帽", "子", *"0123456789",
    *(f"##{digit}" for digit in range(10)),
)  # fmt: skip

# A recipe's model for tests.tiny_shop, of the sources that add_sources adds.
MODEL = {
    "dim": 16,
    "towers": {
        "query": {
            "kind": "pretrained_text", "side": "query", "columns": ["query"], "encoder": "tiny",
            "trainable_blocks": 1, "output": "both",
        },
        "title": {
            "kind": "pretrained_text", "columns": ["title"], "share": "query", "max_tokens": 10, "output": "both",
        },
        "image": {"kind": "pretrained_image", "columns": ["image"], "encoder": {"source": "tiny"}, "hidden": [16]},
        "behaviour": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]},
    },
    "fusion": {"kind": "mean"},
    "cross": {"layers": 1, "deep": [16]},
}  # fmt: skip


def add_sources(monkeypatch) -> None:
    """Makes the encoders here known to recipes, as ``tiny``."""
    monkeypatch.setitem(TEXT_SOURCES, "tiny", tiny_bert)
    monkeypatch.setitem(IMAGE_SOURCES, "tiny", tiny_pictures)


def tiny_bert(**options) -> BertEncoder:
    """Two blocks, 16 wide."""
    sizes = {"hidden": 16, "layers": 2, "heads": 2, "intermediate": 32, "max_positions": 32, "max_tokens": 8}
    encoder = BertEncoder(VOCABULARY, **{**sizes, **options})
    encoder.build()
    return shaken(encoder)


@image_encoders.register("tiny_pictures")
@keras.utils.register_keras_serializable("tfmmrank_tests")
class TinyPictures(PictureEncoder):
    """Two convolutions, each a block; tokens are the four quarters of a picture of 32 pixels, 8 wide."""

    width = 8

    def __init__(self, size=32, **options):
        super().__init__(size=size, **options)
        self.blocks = [
            keras.layers.Conv2D(6, 8, strides=8, activation="tanh", name="below"),
            keras.layers.Conv2D(8, 2, strides=2, activation="tanh", name="above"),
        ]
        self.split = 0 if self.trainable_blocks is None else 2 - self.trainable_blocks
        for place, (block, channels) in enumerate(zip(self.blocks, (3, 6), strict=True)):
            block.build([None, None, None, channels])
            block.trainable = place >= self.split

    def frozen_part(self, pixels):
        values = pixels / 255.0
        for block in self.blocks[: self.split]:
            values = block(values)
        return values

    def trained_part(self, cells, training):
        for block in self.blocks[self.split :]:
            cells = block(cells)
        return cells


def tiny_pictures(**options) -> TinyPictures:
    return shaken(TinyPictures(**options))


def shaken(encoder, seed=1):
    """Weights drawn anew; fresh ones are so alike that their vectors are."""
    rng = np.random.default_rng(seed)
    encoder.set_weights([rng.normal(0, 0.4, value.shape).astype(value.dtype) for value in encoder.get_weights()])
    return encoder
