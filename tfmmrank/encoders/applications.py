"""The networks of ``tf.keras.applications`` as encoders."""

from __future__ import annotations

from typing import Any

from tfmmrank.encoders.backbones import SMALL_CNN, freeze_batch_norm, make_backbone
from tfmmrank.encoders.base import image_encoders
from tfmmrank.encoders.pictures import WholePictureEncoder
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
        self.network, self._scale = make_backbone(network, self.size, weights)
        self.network.trainable = self.trainable_blocks is None
        if self.frozen_batch_norm and network != SMALL_CNN:
            freeze_batch_norm(self.network)
        self.width = self.network.output_shape[-1]

    def feature_map(self, pixels: Any, training: bool) -> Any:
        """Float pixels ``[n, size, size, 3]`` in 0 to 255 to the network's last feature map."""
        return self.network(self._scale(pixels), training=training)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``; ``weights`` is None, since a saved encoder's own take their place."""
        return {**super().get_config(), "network": self.network_name, "weights": None}
