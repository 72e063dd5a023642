"""Where pretrained text encoders come from: a source's name to an encoder with its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmmrank.encoders.base import TextEncoder, find_source
from tfmmrank.encoders.bert_checkpoint import load_bert, load_minilm, load_preset
from tfmmrank.encoders.hub import HubTextEncoder
from tfmmrank.encoders.multilingual import load_multilingual
from tfmmrank.registry import nearest

# See find_source; anything else is a directory.
TEXT_SOURCES: dict[str, Callable[..., TextEncoder]] = {
    "minilm": load_minilm,
    "multilingual": load_multilingual,
    "preset:": load_preset,
    "hub:": HubTextEncoder,
}


def load_text_encoder(source: str, **options: Any) -> TextEncoder:
    """Makes a text encoder with pretrained weights.

    Args:
        source: ``minilm`` (English sentences, 384 wide), ``multilingual`` (16 languages, 512 wide), ``preset:NAME``
            (keras_nlp's BERT presets; fetched), ``hub:PATH`` (a SavedModel's folder or a handle of TensorFlow Hub), or
            a directory with a BERT in Hugging Face's layout.
        **options: of the encoder, such as ``max_tokens``, ``trainable_blocks`` and ``output``.

    Returns:
        A built encoder.

    Raises:
        ValueError: for an unknown source, a checkpoint that cannot be read, or an option out of range.
        ImportError: when the package that holds the weights is not installed.
    """
    make = find_source(TEXT_SOURCES, source)
    if make is not None:
        return make(**options)
    if Path(source).is_dir():
        return load_bert(source, **options)
    known = [f"{name}NAME" if name.endswith(":") else name for name in TEXT_SOURCES]
    raise ValueError(
        f'text encoder "{source}" is neither a directory nor one of {", ".join(known)}{nearest(source, known)}'
    )
