"""What every picture encoder is: decoding, blocks frozen and trained, and tokens of the last feature map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmmrank.encoders.base import Encoder
from tfmmrank.encoders.decoding import decode_pictures
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens


class PictureEncoder(Encoder):
    """A convolutional network, in two parts: blocks that training leaves as they are, then those that it changes.

    Subclasses set ``width``, and give ``frozen_part`` and ``trained_part``; one after the other they are the network.

    Args:
        size: height and width in pixels of what the network sees; at least 32.
        crop: side of the middle square that it sees, as a part of a picture's shorter side, in (0, 1]. None: the whole
            picture, made square.
        frozen_batch_norm: whether batch normalisation keeps its statistics in the blocks that training changes, too.
            Unfrozen, what a picture gives in training depends on its batch, padding included.
        trainable_blocks, output, name: see ``Encoder``. Tokens are the cells of the last feature map, row by row.

    Raises:
        ValueError: for an option out of range.
    """

    resize_method = "bilinear"

    def __init__(
        self,
        size: int = 224,
        crop: float | None = None,
        frozen_batch_norm: bool = True,
        trainable_blocks: int | None = 0,
        output: str = "pooled",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_blocks=trainable_blocks, output=output, name=name, **kwargs)
        if size < 32:
            raise ValueError(f"size is {size}; expected at least 32 pixels")
        if crop is not None and not 0 < crop <= 1:
            raise ValueError(f"crop is {crop}; expected a part of the shorter side in (0, 1], or null")
        self.size, self.crop, self.frozen_batch_norm = size, crop, frozen_batch_norm

    def frozen_part(self, pixels: Any) -> Any:
        """Float pixels ``[n, size, size, 3]`` in 0 to 255 through the frozen blocks."""
        raise NotImplementedError

    def trained_part(self, cells: Any, training: bool) -> Any:
        """What ``frozen_part`` gave through the other blocks, to the last feature map ``[n, h, w, width]``."""
        raise NotImplementedError

    def preprocess(self, raw: Any) -> dict[str, Any]:
        """Encoded pictures, string ``[n]``, to ``{"pixels": uint8 [n, size, size, 3], "present": bool [n]}``.

        JPEG, PNG and WebP; see ``decode_pictures`` for what counts as missing.
        """
        pixels, present = decode_pictures(raw, self.size, self.crop, self.resize_method)
        return {"pixels": pixels, "present": present}

    def lower(self, features: Mapping[str, Any], output: str | None = None) -> dict[str, Any]:
        """Pixels to the feature map ``{"cells", "present"}`` above the frozen blocks; all frozen: to ``"vectors"``."""
        if self.trainable_blocks is None:
            return dict(features)
        cells = self.frozen_part(self._floats(features["pixels"]))
        if self.trainable_blocks == 0:
            return {"vectors": self._vectors(cells, output), "present": features["present"]}
        return {"cells": cells, "present": features["present"]}

    def call(self, features: Mapping[str, Any], training: bool = False, output: str | None = None) -> Tokens:
        """What ``lower`` gave to tokens ``[n, T, width]``; T is 1 (``pooled``), h w (``tokens``) or 1 + h w."""
        if self.trainable_blocks == 0:
            vectors = features["vectors"]
        elif self.trainable_blocks is None:
            pixels = self.frozen_part(self._floats(features["pixels"]))
            vectors = self._vectors(self.trained_part(pixels, training), output)
        else:
            vectors = self._vectors(self.trained_part(features["cells"], training), output)
        mask = tf.repeat(features["present"][:, None], vectors.shape[1], axis=1)
        return Tokens(tf.where(mask[..., None], vectors, tf.zeros_like(vectors)), mask)

    def _floats(self, pixels: Any) -> Any:
        return tf.cast(pixels, self.compute_dtype)

    def _vectors(self, cells: Any, output: str | None) -> Any:
        """A feature map ``[n, h, w, width]`` to the vectors ``[n, T, width]`` that ``output`` asks for."""
        output = output or self.output_kind
        tokens = tf.reshape(cells, [-1, cells.shape[1] * cells.shape[2], self.width])
        if output == "tokens":
            return tokens
        pooled = tf.reduce_mean(tokens, axis=1, keepdims=True)
        return pooled if output == "pooled" else tf.concat([pooled, tokens], axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {
            **super().get_config(),
            "size": self.size,
            "crop": self.crop,
            "frozen_batch_norm": self.frozen_batch_norm,
        }


def freeze_batch_norm(network: Any) -> None:
    """Makes every batch normalisation of a network use its stored statistics, in training too."""
    for layer in network._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


class WholePictureEncoder(PictureEncoder):
    """A network that is not taken apart: all of it is frozen (``trainable_blocks`` 0) or none of it (None).

    Subclasses set ``width`` and give ``feature_map``.

    Args:
        size, crop, frozen_batch_norm, trainable_blocks, output, name: see ``PictureEncoder``.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(self, trainable_blocks: int | None = 0, **kwargs: Any) -> None:
        super().__init__(trainable_blocks=trainable_blocks, **kwargs)
        if trainable_blocks not in (0, None):
            raise ValueError(
                f"trainable_blocks is {trainable_blocks}, and {type(self).__name__} cannot be split; "
                "expected 0 (frozen) or null (all of it is trained)"
            )

    def feature_map(self, pixels: Any, training: bool) -> Any:
        """Float pixels ``[n, size, size, 3]`` in 0 to 255 to a feature map ``[n, h, w, width]``."""
        raise NotImplementedError

    def frozen_part(self, pixels: Any) -> Any:
        """The feature map when frozen, else the pixels."""
        return self.feature_map(pixels, training=False) if self.trainable_blocks == 0 else pixels

    def trained_part(self, cells: Any, training: bool) -> Any:
        """The feature map of pixels that ``frozen_part`` left as they are."""
        return self.feature_map(cells, training)
