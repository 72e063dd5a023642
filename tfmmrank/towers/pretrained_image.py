"""The tower of pretrained picture encoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfmmrank.encoders.base import Encoder, image_encoders
from tfmmrank.encoders.image_sources import load_image_encoder
from tfmmrank.encoders.pictures import PictureEncoder
from tfmmrank.stack import keras
from tfmmrank.towers.base import towers
from tfmmrank.towers.pretrained import PretrainedTower

_DEFAULT = "efficientnet_lite0"


@towers.register("pretrained_image")
@keras.utils.register_keras_serializable("tfmmrank")
class PretrainedImageTower(PretrainedTower):
    """A picture through a pretrained network, such as EfficientNet-Lite0, to tokens: of the whole, or of each region.

    Args:
        columns: the one column of encoded pictures.
        encoder: ``efficientnet_lite0``, ``colours``, ``hub:PATH`` or a network of ``tf.keras.applications`` by name
            (``load_image_encoder``), or as ``PretrainedTower``: ``{source: efficientnet_lite0, size: 128}``.
        side, dim, share, trainable_blocks, output, hidden, dropout, name: see ``PretrainedTower``.

    Raises:
        ValueError: for more than one column.
        ValueError, ImportError: see ``PretrainedTower``.
    """

    encoders = image_encoders
    encoder_class = PictureEncoder
    load = staticmethod(load_image_encoder)

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: PretrainedImageTower | None = None,
        encoder: str | Mapping[str, Any] | Encoder | None = _DEFAULT,
        trainable_blocks: int | None = 0,
        output: str = "pooled",
        hidden: Iterable[int] = (),
        dropout: float = 0.1,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        encoder = _DEFAULT if encoder is None else encoder
        super().__init__(columns, side, dim, share, encoder, trainable_blocks, output, hidden, dropout, name, **kwargs)
        if len(self.columns) != 1:
            raise ValueError(
                f'PretrainedImageTower "{self.name}": columns is {list(self.columns)}; expected exactly one of pictures'
            )

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Pictures ``{column: string [n]}`` to the encoder's features."""
        return self.encoder.preprocess(raw[self.columns[0]])
