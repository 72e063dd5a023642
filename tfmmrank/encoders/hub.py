"""Any SavedModel as an encoder: from TensorFlow Hub, or from a folder."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from tfmmrank.encoders.base import TextEncoder, image_encoders, text_encoders
from tfmmrank.encoders.pictures import WholePictureEncoder
from tfmmrank.stack import hub, keras, load, tf
from tfmmrank.tokens import Tokens

_PART = 1 << 22  # bytes of a file read at once


@text_encoders.register("hub")
@keras.utils.register_keras_serializable("tfmmrank")
class HubTextEncoder(TextEncoder):
    """A text module, string ``[n]`` to float ``[n, width]``, such as the Universal Sentence Encoder.

    The module runs in ``preprocess``, on the host, since strings do not compile: it is frozen, and gives one token.
    Modules that take numbers (word pieces) are not for this class.

    Args:
        path: folder of a SavedModel, or a handle of TensorFlow Hub.
        trainable_blocks: 0.
        output: ``pooled``.
        name: the layer's name.

    Raises:
        ValueError: when there is no such module, it takes or gives something else, or an option is out of range.
    """

    def __init__(self, path: str, trainable_blocks: int | None = 0, output: str = "pooled", **kwargs: Any) -> None:
        super().__init__(trainable_blocks=trainable_blocks, output=output, **kwargs)
        if trainable_blocks != 0:
            raise ValueError(
                f"trainable_blocks is {trainable_blocks}, and a hub module that reads strings runs on the host; "
                "expected 0 (frozen)"
            )
        load("tf_text")  # registers the ops that most text modules use
        self.path = path
        self.module, self._files = _load_module(path, trainable=False)
        self.width = _probe(self.module, path, tf.constant(["probe"]), "strings [n]")

    def check_output(self, output: str) -> None:
        """Raises ValueError for what is not ``pooled``: a module gives one vector."""
        if output != "pooled":
            raise ValueError(f'output is "{output}", and a hub module gives one vector; expected "pooled"')

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raises ValueError: a module that reads strings cuts them itself."""
        raise ValueError(f"max_tokens is {max_tokens}, and a hub module cuts texts itself; leave it out")

    def preprocess(self, raw: Any, max_tokens: int | None = None) -> dict[str, Any]:
        """Texts, string ``[n]``, to ``{"vectors": float [n, width], "present": bool [n]}``; missing: empty or blank."""
        present = tf.strings.length(tf.strings.strip(raw)) > 0
        vectors = tf.ensure_shape(self.module(raw, training=False), [raw.shape[0], self.width])
        return {"vectors": vectors, "present": present}

    def lower(self, features: Mapping[str, Any], output: str | None = None) -> dict[str, Any]:
        """The features as they are: the module has run."""
        return dict(features)

    def call(self, features: Mapping[str, Any], training: bool = False, output: str | None = None) -> Tokens:
        """Vectors to tokens ``[n, 1, width]``."""
        vectors, mask = features["vectors"][:, None], features["present"][:, None]
        return Tokens(tf.where(mask[..., None], vectors, tf.zeros_like(vectors)), mask)

    def embed_state(self) -> bytes:
        """A digest of the module's files: graph, assets and weights, of which Keras does not know all."""
        return self._files() + super().embed_state()

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``; the module must be found at ``path`` again."""
        return {**super().get_config(), "path": self.path}


@image_encoders.register("hub")
@keras.utils.register_keras_serializable("tfmmrank")
class HubImageEncoder(WholePictureEncoder):
    """A picture module, float ``[n, size, size, 3]`` in [0, 1] to float ``[n, width]``.

    Args:
        path: folder of a SavedModel, or a handle of TensorFlow Hub.
        size: height and width of the module's pictures in pixels.
        crop, name: see ``PictureEncoder``.
        frozen_batch_norm: whether batch normalisation and dropout run as when predicting while the module is trained;
            a module knows but one ``training``.
        trainable_blocks: 0 (frozen) or None (all of it is trained).
        output: ``pooled``.

    Raises:
        ValueError: when there is no such module, it takes or gives something else, has nothing to train, or an option
            is out of range.
    """

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.module, self._files = _load_module(path, trainable=self.trainable_blocks is None)
        pixels = tf.zeros([1, self.size, self.size, 3])
        self.width = _probe(self.module, path, pixels, f"pixels [n, {self.size}, {self.size}, 3]")
        if self.trainable_blocks is None and not self.module.trainable_weights:
            raise ValueError(f"trainable_blocks is null, and hub module {path} has nothing to train; expected 0")

    def check_output(self, output: str) -> None:
        """Raises ValueError for what is not ``pooled``: a module gives one vector."""
        if output != "pooled":
            raise ValueError(f'output is "{output}", and a hub module gives one vector; expected "pooled"')

    def feature_map(self, pixels: Any, training: bool) -> Any:
        """Float pixels in 0 to 255 to vectors ``[n, 1, 1, width]``: a map of one cell."""
        vectors = self.module(tf.cast(pixels, tf.float32) / 255.0, training=training and not self.frozen_batch_norm)
        return tf.ensure_shape(tf.cast(vectors, self.compute_dtype), [pixels.shape[0], self.width])[:, None, None]

    def embed_state(self) -> bytes:
        """A digest of the module's files where it is frozen: graph, assets and weights."""
        return (b"" if self.trainable_blocks is None else self._files()) + super().embed_state()

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``; the module must be found at ``path`` again."""
        return {**super().get_config(), "path": self.path}


def _load_module(path: str, trainable: bool) -> tuple[Any, Callable[[], bytes]]:
    """A module, and what gives a digest of its files."""
    if "://" not in path and not tf.io.gfile.isdir(path):
        raise ValueError(f"hub module {path}: no such folder; expected a SavedModel's folder or a handle (https://...)")
    try:
        folder = hub.resolve(path)
        module = hub.KerasLayer(folder, trainable=trainable, dtype=tf.float32)
    except Exception as error:  # hub raises many kinds: of the network, of the archive, of unknown ops
        raise ValueError(f"hub module {path}: cannot be loaded ({error})") from error
    return module, functools.cache(functools.partial(_digest, folder))


def _digest(folder: str) -> bytes:
    """A digest of all files of a SavedModel."""
    digest = hashlib.blake2b(digest_size=16)
    for place, _, names in sorted(tf.io.gfile.walk(folder)):
        for name in sorted(names):
            file = f"{place}/{name}"
            with tf.io.gfile.GFile(file, "rb") as opened:
                digest.update(f"{file.removeprefix(folder)} {opened.size()}\n".encode())
                while part := opened.read(_PART):
                    digest.update(part)
    return digest.digest()


def _probe(module: Any, path: str, example: Any, what: str) -> int:
    """Runs a module once, and returns the width of its vectors."""
    try:
        vectors = module(example, training=False)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ValueError(f"hub module {path}: does not take {what} ({error})") from error
    shape = getattr(vectors, "shape", None)
    if shape is None or len(shape) != 2 or not vectors.dtype.is_floating:
        raise ValueError(f"hub module {path}: gives {shape or type(vectors).__name__}; expected vectors [n, width]")
    return int(shape[1])
