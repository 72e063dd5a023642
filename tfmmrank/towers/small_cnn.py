"""A small convolutional network, for pictures that are few or small."""

from __future__ import annotations

from typing import Any

from tfmmrank.stack import keras


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
    network = keras.Sequential([keras.Input((size, size, 3))], name="small_cnn")
    for i in range(4):
        network.add(keras.layers.Conv2D(width * 2**i, 3, strides=2, padding="same", use_bias=False, name=f"conv_{i}"))
        network.add(keras.layers.GroupNormalization(8, name=f"norm_{i}"))
        network.add(keras.layers.Activation(_gelu, name=f"gelu_{i}"))
    return network


@keras.utils.register_keras_serializable("tfmmrank")
def _gelu(values: Any) -> Any:
    return keras.activations.gelu(values, approximate=True)  # the exact one is several times slower on a CPU
