"""Picture encoders: a small convolutional network, and those of ``tf.keras.applications`` by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tfmmrank.registry import nearest
from tfmmrank.stack import keras

SMALL_CNN = "small_cnn"


def small_cnn(size: int, width: int = 16) -> Any:
    """Four strided 3x3 convolutions, each with group normalisation and GELU.

    Each halves the picture, rounding up, and doubles the channels.

    Group normalisation [Wu and He, 2018] keeps a picture's features free of the other pictures of its batch, and of the
    padding among them, which batch normalisation does not.

    Args:
        size: height and width of the pictures in pixels.
        width: channels after the first convolution; a multiple of 8.

    Returns:
        A model from float ``[n, size, size, 3]`` in [-1, 1] to ``[n, size / 16, size / 16, 8 width]``.
    """
    network = keras.Sequential([keras.Input((size, size, 3))], name=SMALL_CNN)
    for i in range(4):
        network.add(keras.layers.Conv2D(width * 2**i, 3, strides=2, padding="same", use_bias=False, name=f"conv_{i}"))
        network.add(keras.layers.GroupNormalization(8, name=f"norm_{i}"))
        network.add(keras.layers.Activation(_gelu, name=f"gelu_{i}"))
    return network


@keras.utils.register_keras_serializable("tfmmrank")
def _gelu(values: Any) -> Any:
    return keras.activations.gelu(values, approximate=True)  # the exact one is several times slower on a CPU


def application_names() -> list[str]:
    """The names of ``tf.keras.applications``'s networks."""
    return [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]


def make_backbone(name: str, size: int, weights: str | None, width: int = 16) -> tuple[Any, Callable[[Any], Any]]:
    """Makes an encoder and the function that scales pixels for it.

    Args:
        name: ``small_cnn`` or a network of ``tf.keras.applications``, such as ``MobileNetV2``.
        size: height and width of the pictures in pixels.
        weights: ``None`` for fresh weights, ``imagenet``, or the path of a weights file.
        width: channels of the small network's first convolution.

    Returns:
        A layer or model from float pixels ``[n, size, size, 3]`` to a feature map ``[n, h, w, c]``, and a function from
        pixels in 0 to 255 to what it expects.

    Raises:
        ValueError: for an unknown name, or weights or a size that the network does not take.
    """
    if name == SMALL_CNN:
        if weights == "imagenet":
            raise ValueError(f'weights is "imagenet", which {SMALL_CNN} does not come with; expected null or a file')
        backbone = small_cnn(size, width)
        if weights is not None:
            _load(backbone, weights)
        return backbone, lambda pixels: pixels / 127.5 - 1.0
    known = application_names()
    if name not in known:
        raise ValueError(
            f'backbone is "{name}"{nearest(name, [SMALL_CNN, *known])}; expected {SMALL_CNN} or one of '
            f"tf.keras.applications: {', '.join(known)}"
        )
    make = getattr(keras.applications, name)
    try:
        backbone = make(
            include_top=False, weights="imagenet" if weights == "imagenet" else None, input_shape=(size, size, 3)
        )
    except ValueError as error:
        raise ValueError(f'backbone "{name}" at size {size}: {error}') from error
    except Exception as error:  # Keras raises a bare Exception when its download fails
        raise ValueError(
            f'backbone "{name}": its ImageNet weights could not be downloaded ({error}); give weights a file instead'
        ) from error
    if weights not in (None, "imagenet"):
        _load(backbone, weights)
    module = getattr(keras.applications, make.__module__.rsplit(".", 1)[-1])
    return backbone, module.preprocess_input


def freeze_batch_norm(backbone: Any) -> None:
    """Makes every batch normalisation use its stored statistics, in training too."""
    for layer in backbone._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _load(backbone: Any, path: str) -> None:
    try:
        backbone.load_weights(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"weights {path}: cannot be loaded into the backbone ({error})") from error
