"""The image tower: a picture through a small convolutional network of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfmmrank.encoders.decoding import decode_pictures
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower, towers
from tfmmrank.towers.small_cnn import small_cnn

_SHARED = ("size", "width", "dropout", "aspects")


@towers.register("image")
@keras.utils.register_keras_serializable("tfmmrank")
class ImageTower(Tower):
    """A picture to tokens, of the whole or of each region, by a network trained from scratch.

    ``PretrainedImageTower`` is the one for networks that have seen other pictures.

    Args:
        columns: the one column of encoded pictures.
        side: ``query``, ``item`` or ``slot``.
        dim: width of the tokens.
        share: an image tower whose network this one uses; then all but ``columns``, ``side`` and ``tokens`` are its.
        size: height and width in pixels to which pictures are resized.
        width: channels of the network's first convolution; a multiple of 8.
        tokens: ``pooled`` (over the picture) or ``regions`` (a cell of the network's last feature map).
        aspects: tokens for each of those, by projections of their own: one token cannot be close to both "red" and
            "striped" in late interaction, two can.
        dropout: rate on the network's features, in [0, 1).
        name: the modality's name.

    Raises:
        ValueError: for more than one column, or an option out of range.

    Example:
        >>> tower = ImageTower(["image"], size=32, dim=16, name="image")
        >>> picture = tf.io.encode_jpeg(tf.zeros([40, 30, 3], tf.uint8))
        >>> tokens = tower(tower.preprocess({"image": tf.stack([picture, b""])}))
        >>> tokens.mask.numpy().tolist()
        [[True], [False]]
    """

    shared_options = _SHARED

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: ImageTower | None = None,
        size: int = 64,
        width: int = 16,
        tokens: str = "pooled",
        aspects: int = 1,
        dropout: float = 0.1,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, side=side, dim=dim, share=share, name=name, **kwargs)
        where = f'ImageTower "{self.name}"'
        if len(self.columns) != 1:
            raise ValueError(f"{where}: columns is {list(self.columns)}; expected exactly one column of pictures")
        if tokens not in ("pooled", "regions"):
            raise ValueError(f'{where}: tokens is "{tokens}"; expected "pooled" or "regions"')
        if size < 8:
            raise ValueError(f"{where}: size is {size}; expected at least 8 pixels")
        if not 0 <= dropout < 1:
            raise ValueError(f"{where}: dropout is {dropout}; expected a rate in [0, 1)")
        if aspects < 1:
            raise ValueError(f"{where}: aspects is {aspects}; expected at least 1")
        if width < 8 or width % 8:
            raise ValueError(f"{where}: width is {width}; expected a multiple of 8")
        self.size, self.width, self.tokens, self.aspects, self.dropout = size, width, tokens, aspects, dropout
        if share is not None:
            if self.dim != share.dim:
                raise ValueError(f'{where}: dim is {self.dim}, but "{share.name}", which it shares, has {share.dim}')
            for key in _SHARED:
                setattr(self, key, getattr(share, key))
            return
        self.network = small_cnn(size, width)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.drop = keras.layers.Dropout(dropout, name="drop")
        self.project = keras.layers.Dense(dim * aspects, name="project")

    @property
    def owner(self) -> ImageTower:
        """The tower that holds the weights: this one, or the one it shares with."""
        return self.share if self.share is not None else self

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Pictures ``{column: string [n]}`` to ``{"pixels": uint8 [n, size, size, 3], "present": bool [n]}``.

        See ``decode_pictures`` for what counts as missing.
        """
        pixels, present = decode_pictures(raw[self.columns[0]], self.size)
        return {"pixels": pixels, "present": present}

    def call(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """Pixels to tokens ``[n, T, dim]``: T is the number of regions (1 when pooled), row by row, times aspects."""
        return self.owner._encode(features["pixels"], features["present"], self.tokens, training)

    def _encode(self, pixels: Any, present: Any, kind: str, training: bool) -> Tokens:
        pixels = tf.where(present[:, None, None, None], pixels, tf.zeros_like(pixels))
        cells = self.network(tf.cast(pixels, self.compute_dtype) / 127.5 - 1.0, training=training)
        if kind == "pooled":
            values = tf.reduce_mean(cells, axis=[1, 2])[:, None]
        else:
            values = tf.reshape(cells, [-1, cells.shape[1] * cells.shape[2], cells.shape[3]])
        values = self.project(self.drop(self.norm(values), training=training))
        values = tf.reshape(values, [-1, values.shape[1] * self.aspects, self.dim])
        mask = tf.repeat(present[:, None], values.shape[1], axis=1)
        return Tokens(tf.where(mask[..., None], values, tf.zeros_like(values)), mask)

    def embed_config(self) -> dict[str, Any]:
        """What pictures are made into pixels by."""
        return {"columns": self.columns, "size": self.size}

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {
            **super().get_config(),
            "size": self.size,
            "width": self.width,
            "tokens": self.tokens,
            "aspects": self.aspects,
            "dropout": self.dropout,
        }
