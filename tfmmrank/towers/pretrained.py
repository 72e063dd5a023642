"""What the towers of pretrained encoders share: frozen blocks once an item, then the encoder's rest and a projection."""

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
    Subclasses set ``encoders`` and ``load``.

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
    load: Callable[..., Encoder]
    shared_options = ("encoder", "trainable_blocks", "hidden", "dropout")

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
        where = f'{type(self).__name__} "{self.name}"'
        if side == "slot":
            raise ValueError(f"{where}: side is slot; expected query or item: what the encoder reads belongs to those")
        self.output_kind = output
        if share is not None:
            if self.dim != share.dim:
                raise ValueError(f'{where}: dim is {dim}, but "{share.name}", which it shares, has {share.dim}')
            self.hidden, self.dropout = share.hidden, share.dropout
        else:
            self.hidden, self.dropout = list(hidden), dropout
            if not 0 <= dropout < 1:
                raise ValueError(f"{where}: dropout is {dropout}; expected a rate in [0, 1)")
            self.encoder = self._encoder(where, encoder, trainable_blocks)
            self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
            self.drop = keras.layers.Dropout(dropout, name="drop")
            self.project = [
                *(keras.layers.Dense(width, "gelu", name=f"hidden_{i}") for i, width in enumerate(self.hidden)),
                keras.layers.Dense(dim, name="project"),
            ]
        try:
            self.owner.encoder.check_output(output)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def _encoder(self, where: str, given: str | Mapping[str, Any] | Encoder, trainable_blocks: int | None) -> Encoder:
        if isinstance(given, Encoder):
            return given
        options = {"source": given} if isinstance(given, str) else dict(given)
        try:
            if "kind" in options:  # saved by get_config; the weights come with the ranker's
                return self.encoders[options.pop("kind")].from_config(options)
            if "source" not in options:
                raise ValueError(f'encoder has the keys {", ".join(options)}; expected "source" among them')
            return type(self).load(**{"trainable_blocks": trainable_blocks, **options})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {error}") from error

    @property
    def owner(self) -> PretrainedTower:
        """The tower that holds the encoder and the projection: this one, or the one it shares with."""
        return self.share if self.share is not None else self

    @property
    def match_width(self) -> int:  # type: ignore[override]
        """The encoder's width."""
        return self.owner.encoder.width

    def embed(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Features through the encoder's frozen blocks; floats in half precision."""
        lowered = self.owner.encoder.lower(features, self.output_kind)
        return {
            name: tf.cast(value, tf.float16) if value.dtype.is_floating else value for name, value in lowered.items()
        }

    @property
    def pretrained_weights(self) -> list[Any]:
        """The encoder's trainable weights; of the owner alone."""
        return self.encoder.trainable_weights if self.share is None else []

    def embed_config(self) -> dict[str, Any]:
        """The encoder and what is kept of it; not the projection, which may change without encoding anew."""
        config = self.owner.get_config()["encoder"]
        return {"columns": self.columns, "encoder": config, "output": self.output_kind}

    def embed_state(self) -> bytes:
        """A digest of the encoder's frozen weights."""
        return self.owner.encoder.embed_state()

    def match_tokens(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """What ``embed`` gave to the encoder's own tokens ``[n, T, match_width]``, before the projection."""
        encoder = self.owner.encoder
        full = {
            name: tf.cast(value, encoder.compute_dtype) if value.dtype.is_floating else value
            for name, value in features.items()
        }
        return encoder(full, training=training, output=self.output_kind)

    def call(self, features: Mapping[str, Any] | Tokens, training: bool = False) -> Tokens:
        """What ``embed`` gave to tokens ``[n, T, dim]``; ``features`` may be what ``match_tokens`` made of it."""
        values, mask = features if isinstance(features, Tokens) else self.match_tokens(features, training)
        values = self.owner.norm(values)
        for dense in self.owner.project:
            values = dense(self.owner.drop(values, training=training))
        return Tokens(tf.where(mask[..., None], values, tf.zeros_like(values)), mask)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``; the encoder without its weights, which a saved ranker holds."""
        encoder = self.owner.encoder
        own = {"kind": self.encoders.name_of(type(encoder)), **encoder.get_config()}
        return {
            **super().get_config(),
            "encoder": own if self.share is None else None,
            "trainable_blocks": encoder.trainable_blocks,
            "output": self.output_kind,
            "hidden": self.hidden,
            "dropout": self.dropout,
        }
