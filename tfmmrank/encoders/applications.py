"""The networks of ``tf.keras.applications`` as encoders."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.pictures import WholePictureEncoder, freeze_batch_norm
from tfmmrank.registry import nearest
from tfmmrank.stack import keras


@image_encoders.register("application")
@keras.utils.register_keras_serializable("tfmmrank")
class ApplicationEncoder(WholePictureEncoder):
    """A network of ``tf.keras.applications`` without its classifier, with pixels scaled as it expects them.

    Args:
        network: its name, such as ``MobileNetV2``.
        weights: what it starts from: None (fresh), ``imagenet`` (downloaded), or the path of a weights file.
        size, crop, frozen_batch_norm, output, name: see ``PictureEncoder``.
        trainable_blocks: 0 (frozen) or None (all of it is trained).

    Raises:
        ValueError: for an unknown network, weights or a size that it does not take, or an option out of range.
    """

    def __init__(self, network: str = "MobileNetV2", weights: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network_name = network
        self.network, self._scale = _make_network(network, self.size, weights)
        self.network.trainable = self.trainable_blocks is None
        if self.frozen_batch_norm:
            freeze_batch_norm(self.network)
        self.width = self.network.output_shape[-1]

    def feature_map(self, pixels: Any, training: bool) -> Any:
        """Float pixels ``[n, size, size, 3]`` in 0 to 255 to the network's last feature map."""
        return self.network(self._scale(pixels), training=training)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``; ``weights`` is None, since a saved encoder's own take their place."""
        return {**super().get_config(), "network": self.network_name, "weights": None}


def application_names() -> list[str]:
    """The names of ``tf.keras.applications``'s networks."""
    return [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]


def _make_network(name: str, size: int, weights: str | None) -> tuple[Any, Callable[[Any], Any]]:
    """A network from float ``[n, size, size, 3]``, and the function from pixels in 0 to 255 to what it expects."""
    known = application_names()
    if name not in known:
        raise ValueError(f'network is "{name}"{nearest(name, known)}; expected one of {", ".join(known)}')
    make = getattr(keras.applications, name)
    try:
        network = make(
            include_top=False, weights="imagenet" if weights == "imagenet" else None, input_shape=(size, size, 3)
        )
    except ValueError as error:
        raise ValueError(f"{name} at size {size}: {error}") from error
    except Exception as error:  # Keras raises a bare Exception when its download fails
        raise ValueError(
            f"{name}: its ImageNet weights could not be downloaded ({error}); give weights a file instead"
        ) from error
    if weights not in (None, "imagenet"):
        try:
            network.load_weights(weights)
        except (OSError, ValueError) as error:
            raise ValueError(f"weights {weights}: cannot be loaded into {name} ({error})") from error
    return network, getattr(keras.applications, make.__module__.rsplit(".", 1)[-1]).preprocess_input
