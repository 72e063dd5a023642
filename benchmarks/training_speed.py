"""What training's speed rests on, each measured against the other way of doing it, in turns.

Run as ``python -m benchmarks speed``, or some parts alone as ``python -m benchmarks.training_speed [PART ...]``, which
prints a table and one JSON line. Parts:

- ``frozen``: frozen encoders run once over the catalogue, against in every step on every slot of every list.
- ``trained``: encoders that are trained run on a batch's distinct items, against on every slot.
- ``pipeline``: steps on batches as ``fit`` reads them, against steps on one batch that stays in memory.
- ``xla``: steps compiled by XLA, against not, tower by tower.
- ``precision``: steps in mixed precision, against float32.

Ratios of things that take turns hold on a machine with other work; seconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleaved import interleaved, ratio
from benchmarks.made_up_shop import MadeUpShop
from benchmarks.speed_of_parts import compiled, in_bfloat16
from tfmmrank.data.batches import ListBatches
from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.bert import BertEncoder
from tfmmrank.encoders.efficientnet_lite import EfficientNetLite0Encoder
from tfmmrank.encoders.pictures import PictureEncoder
from tfmmrank.ranker import Ranker
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers import ImageTower, PretrainedImageTower, PretrainedTextTower, TextTower

_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{number}" for number in range(900))]
_Lines = list[tuple[str, str, float]]


# -- rankers ----------------------------------------------------------------------------------------------------------


def bert(hidden: int, layers: int, heads: int, intermediate: int, **options: Any) -> BertEncoder:
    """A BERT with fresh weights: how fast one is does not depend on them."""
    return BertEncoder(_WORDS, hidden, layers, heads, intermediate, max_positions=64, **options)


def ranker_of(item: Any, shop: MadeUpShop, kind: type[Ranker] = Ranker) -> Ranker:
    """A small ranker around one item tower, compiled."""
    keras.utils.set_random_seed(0)
    query = TextTower(["query"], side="query", layers=0, max_tokens=8, name="query")
    ranker = kind([query, item], fusion="mean", deep=(64,), cross_layers=1)
    ranker.adapt(shop, progress=False).build_from_columns()
    ranker.compile(metrics=None)
    return ranker


class EverySlotRanker(Ranker):
    """Encodes slots, not items: of batches as ``every_slot`` makes them."""

    def _encode_batch(self, batch: Any, training: bool = False) -> Any:
        lists, slots = batch["slot_mask"].shape
        encoded = self.encode_items(batch, training)
        return self.encode_query(batch, training), {
            name: Tokens(
                tf.reshape(tokens.values, [lists, slots, *tokens.values.shape[1:]]),
                tf.reshape(tokens.mask, [lists, slots, tokens.mask.shape[1]]),
            )
            for name, tokens in encoded.items()
        }


def every_slot(batch: Any) -> Any:
    """A batch with a copy of its item in every slot, as lists that hold their items' values give it."""
    features, *others = batch
    rows = features["item_index"].reshape(-1)
    return {k: np.take(v, rows, 0) if k.startswith("item/") else v for k, v in features.items()}, *others


def on_one_batch(ranker: Ranker, batch: Any, before: Any = None) -> Callable[[], object]:
    """A training step on a batch in memory."""
    batch = tf.nest.map_structure(tf.constant, batch)

    @tf.function
    def step(features: Any, labels: Any, weights: Any) -> Any:
        if before is not None:
            features = before(features)
        return ranker.train_step((features, labels, weights))

    return lambda: step(*batch)["loss"].numpy()


def on_batches(ranker: Ranker, dataset: Any, steps: int = 1) -> Callable[[], object]:
    """Training steps on a dataset's batches, one after another, as ``fit`` does them."""
    batches: Iterator[Any] = iter(dataset.repeat())
    step = tf.function(lambda *batch: ranker.train_step(batch), reduce_retracing=True)

    def run() -> object:
        for _ in range(steps):
            last = step(*next(batches))
        return last["loss"].numpy()

    return run


# -- parts ------------------------------------------------------------------------------------------------------------


def frozen(folder: Path, rounds: int) -> _Lines:
    """Frozen encoders, with a feature store and without."""
    lines: _Lines = []
    batch_size, list_size = 8, 16
    shop = MadeUpShop(folder / "frozen", items=500, lists=64, list_size=list_size, batch_size=batch_size)
    encoders = {
        "titles, 6-layer MiniLM": PretrainedTextTower(
            ["title"], encoder=bert(384, 6, 12, 1536, max_tokens=24), name="title"
        ),
        "pictures, EfficientNet-Lite0 at 128 pixels": PretrainedImageTower(
            ["image"], encoder=EfficientNetLite0Encoder(size=128), name="image"
        ),
    }
    for name, tower in encoders.items():
        ranker = ranker_of(tower, shop)
        batches = ListBatches(shop, "train", ranker, batch_size, shuffle=True, progress=False)
        raw = _with_raw_items(shop, tower, batches)

        def encode(features: Any, tower: Any = tower) -> Any:
            given = {key.rpartition("/")[2]: value for key, value in features.items() if key.startswith("raw/")}
            embedded = {f"item/{tower.name}/{key}": value for key, value in tower.embed(given).items()}
            return {**{k: v for k, v in features.items() if not k.startswith(("raw/", "item/"))}, **embedded}

        slots = ranker_of(tower, shop, EverySlotRanker)
        seconds = interleaved(
            {"once": on_batches(ranker, batches.dataset(), 10), "slots": on_one_batch(slots, raw, encode)}, rounds
        )
        once = batch_size * 10 / np.median(seconds["once"])
        lines += [
            (f"frozen: {name}", "lists/s, catalogue encoded once", once),
            (f"frozen: {name}", "lists/s, every slot encoded", batch_size / np.median(seconds["slots"])),
            (f"frozen: {name}", "times as fast", 10 * ratio(seconds["slots"], seconds["once"])),
        ]
    return lines


def _with_raw_items(shop: MadeUpShop, tower: Any, batches: ListBatches) -> Any:
    """A batch with preprocessed, not embedded, values of every slot's item."""
    which = np.arange(batches.batch_size)
    features, *others = batches.batch(which)
    rows = shop.lists("train").item_rows[np.concatenate([np.arange(16) + 16 * number for number in which])]
    raw = {name: tf.constant(values) for name, values in shop.catalogue.rows(rows, tower.columns).items()}
    given = {f"raw/{name}": value.numpy() for name, value in tower.preprocess(raw).items()}
    return {**features, **given}, *others


def trained(folder: Path, rounds: int) -> _Lines:
    """Trained encoders on distinct items and on every slot, by how often batches repeat items."""
    lines: _Lines = []
    batch_size, list_size = 16, 16
    towers = {
        "6-layer MiniLM, 24 tokens": lambda: PretrainedTextTower(
            ["title"],
            encoder=bert(384, 6, 12, 1536, max_tokens=24, trainable_blocks=None, dropout=0.0),
            name="title",
        ),
        "EfficientNet-Lite0 at 128 pixels": lambda: PretrainedImageTower(
            ["image"], encoder=EfficientNetLite0Encoder(size=128, trainable_blocks=None), name="image"
        ),
        "small CNN at 64 pixels": lambda: ImageTower(["image"], size=64, dropout=0.0, name="image"),
    }
    for repetition in (1.0, 2.0, 4.0):
        shop = MadeUpShop(
            folder / f"trained-{repetition}", items=6000, lists=256, list_size=list_size, repetition=repetition
        )
        for name, make in towers.items():
            batches = ListBatches(shop, "train", ranker_of(make(), shop), batch_size, shuffle=True, progress=False)
            made = [batches.at(0, number) for number in range(8)]
            factor = np.mean([batch_size * list_size / len(np.unique(b[0]["item_index"])) for b in made])
            padded = np.mean([batch_size * list_size / _items(b) for b in made])
            batch = min(made, key=lambda b: abs(batch_size * list_size / _items(b) - padded))
            seconds = interleaved(
                {
                    "distinct": on_one_batch(ranker_of(make(), shop), batch),
                    "slots": on_one_batch(ranker_of(make(), shop, EverySlotRanker), every_slot(batch)),
                },
                rounds,
            )
            gain = ratio(seconds["slots"], seconds["distinct"])
            lines += [
                (f"trained: {name}, items repeat {factor:.2f} times", "times as fast", gain),
                (f"trained: {name}, items repeat {factor:.2f} times", "gain / repetition", gain / factor),
            ]
    return lines


def _items(batch: Any) -> int:
    return next(len(value) for name, value in batch[0].items() if name.startswith("item/"))


@image_encoders.register("random")
class RandomEncoder(PictureEncoder):
    """Region tokens of no network: the pipeline is as for those of one.

    Args:
        tokens: of an item.
        width: of a token.
    """

    def __init__(self, tokens: int = 17, width: int = 1280, **kwargs: Any) -> None:
        super().__init__(output="tokens" if tokens > 1 else "pooled", **kwargs)
        self.tokens, self.width = tokens, width

    def preprocess(self, raw: Any) -> dict[str, Any]:
        """Hashes of the raw values."""
        return {"seed": tf.strings.to_hash_bucket_fast(raw, 1 << 30)}

    def lower(self, features: Any, output: str | None = None) -> dict[str, Any]:
        """Numbers of the hashes."""
        phases = tf.range(self.tokens * self.width, dtype=tf.float32)
        values = tf.sin(phases * (1.0 + tf.cast(features["seed"] % 1000, tf.float32)[:, None]))
        return {"values": tf.reshape(values, [-1, self.tokens, self.width])}

    def call(self, features: Any, training: bool = False, output: str | None = None) -> Tokens:
        """The numbers."""
        return Tokens(features["values"], tf.ones_like(features["values"][..., 0], tf.bool))

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "tokens": self.tokens, "width": self.width}


def pipeline(folder: Path, rounds: int) -> _Lines:
    """Batches as training reads them, and one that is there already."""
    lines: _Lines = []
    batch_size, list_size = 32, 16
    shop = MadeUpShop(folder / "pipeline", items=3000, lists=32 * 40, list_size=list_size, batch_size=batch_size)
    kinds = {
        "pooled vectors, 1280": (
            PretrainedImageTower(["image"], encoder=RandomEncoder(1), output="pooled", name="pooled"),
            30,
        ),
        "region tokens, 17 x 1280": (
            PretrainedImageTower(["image"], encoder=RandomEncoder(), output="tokens", name="regions"),
            4,
        ),
        "pictures, 64 x 64, small CNN": (ImageTower(["image"], size=64, name="image"), 2),
    }
    for name, (tower, steps) in kinds.items():
        ranker = ranker_of(tower, shop)
        batches = ListBatches(shop, "train", ranker, batch_size, shuffle=True, progress=False)
        kept = tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, _usual_batch(batches)))
        seconds = interleaved(
            {"read": on_batches(ranker, batches.dataset(), steps), "kept": on_batches(ranker, kept, steps)}, rounds
        )
        lines += [
            (f"pipeline: {name}", "ms a step, one batch kept", 1000 * float(np.median(seconds["kept"])) / steps),
            (f"pipeline: {name}", "times as long with batches read", ratio(seconds["read"], seconds["kept"])),
        ]
    return lines


def _usual_batch(batches: ListBatches) -> Any:
    """One of the size that most are padded to: a smaller one's steps are shorter whoever reads it."""
    epoch = [batches.at(0, number) for number in range(len(batches))]
    sizes = [sum(array.size for array in features.values()) for features, *_ in epoch]
    return epoch[sizes.index(max(sizes, key=sizes.count))]


PARTS: dict[str, Callable[[Path, int], _Lines]] = {
    "frozen": frozen,
    "trained": trained,
    "pipeline": pipeline,
    "xla": lambda folder, rounds: compiled(rounds),
    "precision": lambda folder, rounds: in_bfloat16(rounds),
}


def measure(parts: Iterable[str] = PARTS, rounds: int = 7) -> dict[str, dict[str, float]]:
    """Runs parts and prints each figure as it comes.

    Returns:
        ``{what: {figure: value}}``.
    """
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            for what, figure, value in PARTS[part](Path(folder), rounds):
                print(f"{what:<62}{figure:<36}{value:>10.3g}", flush=True)
                figures.setdefault(what, {})[figure] = round(float(value), 4)
    return figures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed", description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which parts (default: {' '.join(PARTS)})")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each takes")
    options = parser.parse_args()
    for name in options.parts:
        if name not in PARTS:
            parser.error(f'no part "{name}"; parts: {", ".join(PARTS)}')
    figures = measure(options.parts or PARTS, options.rounds)
    print(json.dumps({"machine": f"{os.cpu_count()} CPU cores", "tensorflow": tf.__version__, **figures}))


if __name__ == "__main__":
    main()
