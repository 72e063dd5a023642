"""What every pretrained encoder is: a network whose lower part is computed once an item."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from tfmmrank.precision import FLOAT32, config_without_policy
from tfmmrank.registry import Registry, nearest, options_of
from tfmmrank.stack import keras
from tfmmrank.tokens import Tokens

OUTPUTS = ("pooled", "tokens", "both")
_KERAS_OPTIONS = {"trainable", "dtype", "dynamic"}

text_encoders: Registry = Registry("text encoder")
image_encoders: Registry = Registry("image encoder")


def find_source(sources: Mapping[str, Callable[..., Any]], name: str) -> Callable[..., Any] | None:
    """What makes the encoder of a source's name, or of a prefix that ends in a colon and what comes after it."""
    prefix, colon, rest = name.partition(":")
    if colon:
        return functools.partial(sources[prefix + colon], rest) if rest and prefix + colon in sources else None
    return sources.get(name)


class Encoder(keras.layers.Layer):
    """A pretrained network behind a tower.

    Three parts, one after the other: ``preprocess`` on the host (strings and pictures to numbers, stock graph ops),
    ``lower`` (the blocks that training does not change: run once an item, its result is kept), and ``call`` (what
    training does change, possibly nothing).

    Args:
        trainable_blocks: how many of the top blocks training changes; 0: none, None: all, embeddings included.
        output: what ``lower`` and ``call`` give unless told otherwise: ``pooled`` (one vector), ``tokens`` (one a word
            piece, or a region of the picture) or ``both`` (the pooled one first).
        name: the layer's name; always the same by default, since saved settings and feature stores are found by it.

    Attributes:
        width: of the vectors.

    Raises:
        ValueError: for an option out of range.
    """

    width: int

    def __init__(
        self, trainable_blocks: int | None = 0, output: str = "pooled", name: str | None = None, **kwargs: Any
    ) -> None:
        known = list(options_of(type(self)))
        for option in kwargs.keys() - _KERAS_OPTIONS:
            raise ValueError(
                f'{type(self).__name__} has no option "{option}"{nearest(option, known)}; options: {", ".join(known)}'
            )
        if trainable_blocks == 0:  # has nothing to compute in training, and what it gives is compared by matches
            kwargs.setdefault("dtype", FLOAT32)
        super().__init__(name=name or "encoder", **kwargs)
        self.check_output(output)
        if trainable_blocks is not None and trainable_blocks < 0:
            raise ValueError(f"trainable_blocks is {trainable_blocks}; expected 0 or more, or null for all")
        self.trainable_blocks, self.output_kind = trainable_blocks, output

    def check_output(self, output: str) -> None:
        """Raises ValueError for an output that the encoder does not give."""
        if output not in OUTPUTS:
            raise ValueError(f'output is "{output}"; expected one of {", ".join(OUTPUTS)}')

    def preprocess(self, raw: Any) -> dict[str, Any]:
        """Raw values, string ``[n]``, to numeric features ``{name: [n, ...]}``, static past the first axis."""
        raise NotImplementedError

    def lower(self, features: Mapping[str, Any], output: str | None = None) -> dict[str, Any]:
        """Preprocessed features through the frozen blocks, to features ``{name: [n, ...]}`` to keep.

        With every block frozen that is all there is to compute, and only what ``output`` asks for is kept. With none
        frozen the features come back as they are.
        """
        raise NotImplementedError

    def call(self, features: Mapping[str, Any], training: bool = False, output: str | None = None) -> Tokens:
        """What ``lower`` gave to tokens ``[n, T, width]`` with their mask; missing raw values are all masked."""
        raise NotImplementedError

    def frozen_weights(self) -> list[Any]:
        """The weights of the frozen blocks: what ``lower`` depends on."""
        return [] if self.trainable_blocks is None else self.non_trainable_weights

    def embed_state(self) -> bytes:
        """A digest of the frozen weights."""
        if not self.built:
            self.build(None)
        digest = hashlib.blake2b(digest_size=16)
        for weight in self.frozen_weights():
            digest.update(weight.numpy().tobytes())
        return digest.digest()

    def get_config(self) -> dict[str, Any]:
        """Everything but the weights (JSON values): ``from_config`` needs neither files nor packages of weights."""
        return {
            **config_without_policy(super().get_config()),
            "trainable_blocks": self.trainable_blocks,
            "output": self.output_kind,
        }


class TextEncoder(Encoder):
    """Base of the encoders of texts."""

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raises ValueError for a number of tokens that ``preprocess`` cannot keep."""
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; expected at least 1")

    def preprocess(self, raw: Any, max_tokens: int | None = None) -> dict[str, Any]:
        """Texts, string ``[n]``, to numeric features; ``max_tokens`` of each are kept, the encoder's number if None."""
        raise NotImplementedError
