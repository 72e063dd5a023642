"""What the towers of pretrained encoders share: frozen blocks once an item, then what is trained and a projection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tfmmrank.encoders.base import Encoder
from tfmmrank.registry import Registry
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens
from tfmmrank.towers.base import Tower


class PretrainedTower(Tower):
    """A pretrained encoder, then ``LayerNorm``, dropout and Dense layers to tokens of width ``dim``.

    What the encoder's frozen blocks give is computed once an item, in half precision, and kept beside the dataset.
    Subclasses set ``encoders``, ``encoder_class`` and ``load``.

    Args:
        columns: raw columns.
        side: ``query`` or ``item``.
        dim: width of the tokens.
        share: a tower of this class whose encoder and projection this one uses; then ``encoder``,
            ``trainable_blocks``, ``hidden`` and ``dropout`` are that tower's.
        encoder: a source by name, a mapping with the key ``source`` and the encoder's options, or an ``Encoder``.
        trainable_blocks: how many of the encoder's top blocks training changes; 0: none, None: all. Not for an
            ``Encoder`` given as an object, which has its own.
        output: ``pooled`` (one token), ``tokens`` (a token a word piece, or a region) or ``both`` (the pooled first).
        hidden: widths of Dense layers, with GELU, before the last one.
        dropout: rate before each Dense layer, in [0, 1).
        name: the modality's name.

    Raises:
        ValueError: for an unknown source, an option out of range, or a share that does not fit.
        ImportError: when the package of the encoder's weights is missing; the message names the extra.
    """

    encoders: Registry
    encoder_class: type[Encoder]
    load: Callable[..., Encoder]
    shared_options = ("encoder", "trainable_blocks", "hidden", "dropout")

    encoder: Encoder
    norm: Any
    drop: Any
    project: list[Any]
    hidden: list[int]
    dropout: float

    def __init__(
        self,
        columns: Iterable[str],
        side: str,
        dim: int,
        share: PretrainedTower | None,
        encoder: str | Mapping[str, Any] | Encoder,
        trainable_blocks: int | None,
        output: str,
        hidden: Iterable[int],
        dropout: float,
        name: str | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, side=side, dim=dim, share=share, name=name, **kwargs)
        self._where = f'{type(self).__name__} "{self.name}"'
        if side == "slot":
            raise ValueError(f"{self._where}: side is slot; expected query or item: texts and pictures belong to those")
        if share is not None:
            self._join(share)
        else:
            self._make(encoder, trainable_blocks, list(hidden), dropout)
        self.output_kind = output
        try:
            self.encoder.check_output(output)
        except ValueError as error:
            raise ValueError(f"{self._where}: {error}") from error

    def _join(self, owner: PretrainedTower) -> None:
        if self.dim != owner.dim:
            raise ValueError(f'{self._where}: dim is {self.dim}, but "{owner.name}", which it shares, has {owner.dim}')
        self.hidden, self.dropout = owner.hidden, owner.dropout
        self.encoder, self.norm, self.drop, self.project = owner.encoder, owner.norm, owner.drop, owner.project

    def _make(self, encoder: Any, trainable_blocks: int | None, hidden: list[int], dropout: float) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"{self._where}: dropout is {dropout}; expected a rate in [0, 1)")
        if any(width < 1 for width in hidden):
            raise ValueError(f"{self._where}: hidden is {hidden}; expected widths of at least 1")
        self.hidden, self.dropout = hidden, dropout
        try:
            self.encoder = self._make_encoder(encoder, trainable_blocks)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self._where}: {error}") from error
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self.drop = keras.layers.Dropout(dropout, name="drop")
        self.project = [
            *(keras.layers.Dense(width, "gelu", name=f"hidden_{i}") for i, width in enumerate(hidden)),
            keras.layers.Dense(self.dim, name="project"),
        ]

    def _make_encoder(self, given: Any, trainable_blocks: int | None) -> Encoder:
        if isinstance(given, Encoder):
            if not isinstance(given, self.encoder_class):
                raise ValueError(f"encoder is a {type(given).__name__}; expected a {self.encoder_class.__name__}")
            return given
        if not isinstance(given, (str, Mapping)):
            raise ValueError(
                f"encoder is {given!r}; expected a source's name, or a mapping with the key source and the encoder's "
                "options"
            )
        options = {"source": given} if isinstance(given, str) else dict(given)
        if "kind" in options:  # saved by get_config; the weights come with the ranker's
            return self.encoders[options.pop("kind")].from_config(options)
        if "source" not in options:
            raise ValueError(f'encoder has the keys {", ".join(options) or "none"}; expected "source" among them')
        return type(self).load(**{"trainable_blocks": trainable_blocks, **options})

    goes_on_from_match_tokens = True

    @property
    def match_width(self) -> int:  # type: ignore[override]
        """The encoder's width."""
        return self.encoder.width

    def embed(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Features through the encoder's frozen blocks; floats in half precision."""
        return {
            name: tf.saturate_cast(value, tf.float16) if value.dtype.is_floating else value
            for name, value in self.encoder.lower(features, self.output_kind).items()
        }

    @property
    def pretrained_weights(self) -> list[Any]:
        """The encoder's trainable weights; of the owner alone."""
        return self.encoder.trainable_weights if self.share is None else []

    def embed_config(self) -> dict[str, Any]:
        """The encoder and what is kept of it; not the projection: another one takes the same features."""
        return {"columns": self.columns, "encoder": self._encoder_config(), "output": self.output_kind}

    def embed_state(self) -> bytes:
        """A digest of the encoder's frozen weights."""
        return self.encoder.embed_state()

    def match_tokens(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """What ``embed`` gave to the encoder's own tokens ``[n, T, match_width]``, before the projection."""
        full = {
            name: tf.cast(value, self.encoder.compute_dtype) if value.dtype.is_floating else value
            for name, value in features.items()
        }
        return self.encoder(full, training=training, output=self.output_kind)

    def call(self, features: Mapping[str, Any] | Tokens, training: bool = False) -> Tokens:
        """What ``embed`` gave to tokens ``[n, T, dim]``; ``features`` may be what ``match_tokens`` made of it."""
        values, mask = features if isinstance(features, Tokens) else self.match_tokens(features, training)
        values = self.norm(values)
        for dense in self.project:
            values = dense(self.drop(values, training=training))
        return Tokens(tf.where(mask[..., None], values, tf.zeros_like(values)), mask)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``; the encoder without its weights, which a saved ranker holds."""
        return {
            **super().get_config(),
            "encoder": self._encoder_config() if self.share is None else None,
            "trainable_blocks": self.encoder.trainable_blocks,
            "output": self.output_kind,
            "hidden": list(self.hidden),
            "dropout": self.dropout,
        }

    def _encoder_config(self) -> dict[str, Any]:
        return {"kind": self.encoders.name_of(type(self.encoder)), **self.encoder.get_config()}
