"""EfficientNet-Lite0: the network of the EfficientNet family made for devices, good on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.pictures import PictureEncoder, freeze_batch_norm
from tfmmrank.encoders.torch_file import read_torch_file
from tfmmrank.stack import keras


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STEM, _HEAD = 32, 1280  # channels
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_MOST = sum(stage.repeats for stage in _STAGES) + 1  # blocks that can be trained with the stem frozen
_MEAN, _DEVIATION = 127.0, 128.0  # of the pixels, as the network was trained
#: Our names of a convolution to PyTorch's, and of the batch normalisation behind it.
_TORCH_NAMES = {
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "head": ("_conv_head", "_bn1"),
}


@image_encoders.register("efficientnet_lite0")
@keras.utils.register_keras_serializable("tfmmrank")
class EfficientNetLite0Encoder(PictureEncoder):
    """EfficientNet-Lite0 [Tan and Le, 2019; Liu, 2020] without its classifier: vectors of 1280 numbers.

    A stem, 16 inverted residual blocks and a head, ``trainable_blocks`` counted from the head (1: the head alone; 2:
    the head and one block; 17: all but the stem). No squeeze and excitation, ReLU6; the feature map is a 32nd of the
    picture's size.

    Weights are fresh: ``load_image_encoder("efficientnet_lite0")`` gives those trained on ImageNet.

    Args:
        size: height and width in pixels of what the network sees; it was trained at 224.
        crop: 0.875 as when it was trained; see ``PictureEncoder``. Goods that reach the picture's edge want None.
        frozen_batch_norm, trainable_blocks, output, name: see ``PictureEncoder``.

    Raises:
        ValueError: for an option out of range.

    Source: the architecture of ``tensorflow/tpu`` (models/official/efficientnet/lite), preprocessing included.

    Example:
        >>> from tfmmrank.stack import tf
        >>> encoder = EfficientNetLite0Encoder(size=64, output="both")
        >>> picture = tf.io.encode_jpeg(tf.zeros([40, 30, 3], tf.uint8))
        >>> tokens = encoder(encoder.lower(encoder.preprocess(tf.stack([picture, b""]))))
        >>> tokens.values.shape
        TensorShape([2, 5, 1280])
    """

    width = _HEAD
    resize_method = "bicubic"

    def __init__(self, size: int = 224, crop: float | None = 0.875, **kwargs: Any) -> None:
        super().__init__(size=size, crop=crop, **kwargs)
        if self.trainable_blocks is not None and self.trainable_blocks > _MOST:
            raise ValueError(f"trainable_blocks is {self.trainable_blocks}; expected 0 to {_MOST}, or null for all")
        self._first_trained = 0 if self.trainable_blocks is None else _MOST + 1 - self.trainable_blocks
        self.blocks = list(_blocks())
        for index, block in enumerate(self.blocks):
            block.trainable = index >= self._first_trained
            if self.frozen_batch_norm:
                freeze_batch_norm(block)

    def frozen_weights(self) -> list[Any]:
        """The weights of the frozen blocks; not the statistics of the others' batch normalisation."""
        return [weight for block in self.blocks[: self._first_trained] for weight in block.weights]

    def frozen_part(self, pixels: Any) -> Any:
        """Pixels in 0 to 255, scaled, through the stem and the frozen blocks."""
        cells = (pixels - _MEAN) / _DEVIATION
        for block in self.blocks[: self._first_trained]:
            cells = block(cells, training=False)
        return cells

    def trained_part(self, cells: Any, training: bool) -> Any:
        """A feature map through the blocks above the frozen ones, to ``[n, size / 32, size / 32, 1280]``."""
        for block in self.blocks[self._first_trained :]:
            cells = block(cells, training=training)
        return cells

    def load_torch_weights(self, path: str | os.PathLike[str]) -> None:
        """Loads a checkpoint of the project ``efficientnet_lite_pytorch``; see ``read_torch_file``.

        Raises:
            ValueError: when it is not of this network.
        """
        tensors = read_torch_file(path)
        for block in self.blocks:
            for layer in block.layers:
                if layer.weights:
                    try:
                        layer.set_weights(_torch_weights(layer, tensors))
                    except (KeyError, ValueError) as error:
                        raise ValueError(
                            f"{path}: no weights of EfficientNet-Lite0 (at {layer.name}: {error})"
                        ) from error


def _blocks() -> Iterator[Any]:
    """The stem, the inverted residual blocks and the head, from float ``[n, size, size, 3]``, scaled."""
    pixels = keras.Input([None, None, 3])
    yield keras.Model(pixels, _convolved(pixels, "stem", keras.layers.Conv2D, _STEM, 3, strides=2), name="stem")
    index, channels = 0, _STEM
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            yield _inverted_residual(f"block_{index}", channels, stage, stage.stride if repeat == 0 else 1)
            index, channels = index + 1, stage.channels
    cells = keras.Input([None, None, channels])
    yield keras.Model(cells, _convolved(cells, "head", keras.layers.Conv2D, _HEAD, 1), name="head")


def _inverted_residual(name: str, channels: int, stage: _Stage, stride: int) -> Any:
    """Expands, convolves each channel, projects; with a way around where the shape allows [Sandler et al., 2018]."""
    cells = values = keras.Input([None, None, channels])
    if stage.expansion > 1:
        values = _convolved(values, f"{name}_expand", keras.layers.Conv2D, channels * stage.expansion, 1)
    values = _convolved(values, f"{name}_depthwise", keras.layers.DepthwiseConv2D, stage.kernel, strides=stride)
    values = _convolved(values, f"{name}_project", keras.layers.Conv2D, stage.channels, 1, relu6=False)
    if stride == 1 and channels == stage.channels:
        values = keras.layers.Add(name=f"{name}_add")([values, cells])  # of one type, in mixed precision too
    return keras.Model(cells, values, name=name)


def _convolved(values: Any, name: str, kind: Any, *arguments: int, relu6: bool = True, **options: Any) -> Any:
    values = kind(*arguments, padding="same", use_bias=False, name=name, **options)(values)
    values = keras.layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_norm")(values)
    return keras.layers.ReLU(6.0, name=f"{name}_relu6")(values) if relu6 else values


def _torch_weights(layer: Any, tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """A layer's weights, in Keras' order and layout."""
    owner, _, part = layer.name.removesuffix("_norm").rpartition("_")
    prefix = f"_blocks.{owner.removeprefix('block_')}." if owner else ""
    convolution, norm = _TORCH_NAMES[part]
    if layer.name.endswith("_norm"):
        return [tensors[f"{prefix}{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
    axes = (2, 3, 0, 1) if part == "depthwise" else (2, 3, 1, 0)
    return [tensors[f"{prefix}{convolution}.weight"].transpose(axes)]
