"""The image tower: encoded pictures to pixels on the host, a convolutional backbone on the accelerator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfmmrank.registry import nearest
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower, towers

SMALL_CNN = "small_cnn"


def _applications() -> dict[str, Any]:
    """Backbones of ``tf.keras.applications`` by class name, and the module that has their ``preprocess_input``."""
    found = {}
    for module in vars(keras.applications).values():
        if hasattr(module, "preprocess_input"):
            for name, value in vars(module).items():
                if callable(value) and name[0].isupper():
                    found.setdefault(name, (value, module.preprocess_input))
    return found


def is_picture(encoded: Any) -> Any:
    """Whether encoded bytes ``[n]`` begin as a JPEG, PNG, GIF or BMP: bool ``[n]``."""
    head = tf.strings.substr(encoded, 0, 8)
    jpeg = tf.strings.substr(head, 0, 3) == b"\xff\xd8\xff"
    png = head == b"\x89PNG\r\n\x1a\n"
    gif = tf.strings.substr(head, 0, 4) == b"GIF8"
    bmp = tf.strings.substr(head, 0, 2) == b"BM"
    return (jpeg | png | gif | bmp) & (tf.strings.length(encoded) > 32)


def decode(encoded: Any, size: int) -> tuple[Any, Any]:
    """Encoded pictures to pixels, with core TensorFlow ops.

    Args:
        encoded: string ``[n]``; empty bytes, or bytes that are no picture, are missing.
        size: height and width; pictures are squeezed to a square (bilinear, antialiased).

    Returns:
        uint8 ``[n, size, size, 3]`` and bool ``[n]``: which are there. A truncated JPEG gives what could be read.
    """
    present = is_picture(encoded)

    def one(item: Any) -> Any:
        content, there = item

        def read() -> Any:
            pixels = tf.cond(
                tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff",
                lambda: tf.io.decode_jpeg(content, channels=3, try_recover_truncated=True),
                lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
            )
            pixels = tf.ensure_shape(pixels, [None, None, 3])
            resized = tf.image.resize(pixels, [size, size], antialias=True)
            return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

        return tf.cond(there, read, lambda: tf.zeros([size, size, 3], tf.uint8))

    pixels = tf.map_fn(
        one, (encoded, present), fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8), parallel_iterations=16
    )
    return tf.ensure_shape(pixels, [None, size, size, 3]), present


def _small_cnn(size: int, width: int) -> Any:
    """Four stride-2 convolutions; group normalisation, so that a picture's vector depends on that picture alone."""
    layers = [keras.layers.Rescaling(1 / 127.5, offset=-1, input_shape=(size, size, 3))]
    for i, channels in enumerate((width, 2 * width, 3 * width, 4 * width)):
        layers.append(keras.layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False, name=f"conv_{i}"))
        layers.append(keras.layers.GroupNormalization(groups=8, name=f"norm_{i}"))
        layers.append(keras.layers.Activation("relu"))
    return keras.Sequential(layers, name=SMALL_CNN)


@towers.register("image")
class ImageTower(Tower):
    """Pictures to one token, or one token a region.

    Args:
        columns: one image column.
        side: ``item`` or ``query`` (search by picture).
        dim: width of the tokens.
        share: an image tower whose weights this one uses.
        size: height and width in pixels that the backbone sees.
        backbone: ``small_cnn``, or a class of ``tf.keras.applications`` such as ``MobileNetV2`` or ``EfficientNetB0``.
        weights: for applications: None (random), a path to a weights file, or ``imagenet`` (downloads: needs a network).
        width: channels of the small CNN's first layer; a multiple of 8.
        tokens: ``pooled`` (T = 1) or ``regions`` (T = the feature map's places).
        trainable_backbone: whether the backbone learns.
        dropout: rate on the tokens, in [0, 1).

    Output: ``Tokens`` with values ``[n, T, dim]``; a missing picture is masked out and its values are zero.

    Example:
        >>> tower = ImageTower(["image"], size=48, name="image")
        >>> tokens = tower(tower.preprocess({"image": tf.constant([jpeg_bytes, b""])}))
        >>> tokens.mask.numpy()
        array([[ True], [False]])
    """

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: Tower | None = None,
        size: int = 64,
        backbone: str = SMALL_CNN,
        weights: str | None = None,
        width: int = 16,
        tokens: str = "pooled",
        trainable_backbone: bool = True,
        dropout: float = 0.1,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, side, dim, share, name, **kwargs)
        if len(self.columns) != 1:
            raise ValueError(f'ImageTower "{self.name}": reads {len(self.columns)} columns; expected one')
        if tokens not in ("pooled", "regions"):
            raise ValueError(f'ImageTower "{self.name}": tokens is "{tokens}"; expected "pooled" or "regions"')
        if size < 16 or width % 8:
            raise ValueError(f'ImageTower "{self.name}": size is {size} (at least 16), width is {width} (a multiple of 8)')
        self.size, self.backbone_name, self.weights_from, self.width = size, backbone, weights, width
        self.tokens, self.trainable_backbone, self.dropout = tokens, trainable_backbone, dropout
        self._drop = keras.layers.Dropout(dropout)
        if share is None:
            self._normalize = None
            self.backbone = self._make_backbone()
            self.backbone.trainable = trainable_backbone
            self.project = keras.layers.Dense(dim, name="project")
            self._norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")

    def _make_backbone(self) -> Any:
        if self.backbone_name == SMALL_CNN:
            return _small_cnn(self.size, self.width)
        known = _applications()
        if self.backbone_name not in known:
            names = [SMALL_CNN, *known]
            hint = nearest(self.backbone_name, names)
            raise ValueError(f'ImageTower "{self.name}": unknown backbone "{self.backbone_name}"{hint}; known: {", ".join(names)}')
        make, self._normalize = known[self.backbone_name]
        return make(include_top=False, weights=self.weights_from, input_shape=(self.size, self.size, 3))

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Encoded pictures ``[n]`` to ``{"pixels": uint8 [n, size, size, 3], "present": bool [n]}``."""
        pixels, present = decode(raw[self.columns[0]], self.size)
        return {"pixels": pixels, "present": present}

    def call(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """Pixels to tokens."""
        owner = self.share if isinstance(self.share, ImageTower) else self
        values = owner.encode(features["pixels"], training)
        if self.tokens == "pooled":
            values = tf.reduce_mean(values, axis=1, keepdims=True)
        values = self._drop(owner._norm(owner.project(values)), training=training)
        present = features["present"]
        values = tf.where(present[:, None, None], values, tf.zeros_like(values))
        return Tokens(values, tf.repeat(present[:, None], values.shape[1], axis=1))

    def encode(self, pixels: Any, training: bool = False) -> Any:
        """Pixels ``[n, size, size, 3]`` to the feature map ``[n, places, channels]``.

        Batch normalisation of a pretrained backbone always uses its moving averages: a list's items are no random
        batch, and padding must not move them.
        """
        pixels = tf.cast(pixels, self.compute_dtype)
        if self._normalize is not None:
            pixels = self._normalize(pixels)
        grid = self.backbone(pixels, training=training and self.backbone_name == SMALL_CNN)
        return tf.reshape(grid, [-1, grid.shape[1] * grid.shape[2], grid.shape[3]])

    def get_config(self) -> dict[str, Any]:
        """Settings; the weights of a pretrained backbone come back with the ranker's."""
        return {
            **super().get_config(),
            "size": self.size,
            "backbone": self.backbone_name,
            "weights": None,
            "width": self.width,
            "tokens": self.tokens,
            "trainable_backbone": self.trainable_backbone,
            "dropout": self.dropout,
        }
