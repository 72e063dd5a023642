"""What every tower is: a Keras layer that turns one modality into tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfmmrank.precision import config_without_policy
from tfmmrank.registry import Registry
from tfmmrank.stack import keras
from tfmmrank.tokens import Tokens

SIDES = ("query", "item", "slot")

towers: Registry = Registry("tower")


class Tower(keras.layers.Layer):
    """One modality in, tokens out.

    A tower has two halves. ``preprocess`` runs on the host, in ``tf.data`` or in the serving graph: it turns raw
    columns (strings, encoded pictures, numbers) into numeric tensors of static shape, with graph ops only. ``call``
    runs on the accelerator: numeric, static, XLA-compilable.

    Subclasses implement ``preprocess`` and ``call``; those that learn from data before training (a vocabulary,
    quantiles) also implement ``adapt`` and return what they learnt from ``get_config``, so that
    ``from_config(get_config())`` gives a tower that preprocesses alike.

    Args:
        columns: raw columns it reads, named as in the catalogue (side ``item``), the query (``query``; the query's text
            is always called ``query``) or the list (``slot``).
        side: ``query`` (one a list), ``item`` (one a catalogue item: encoded once, whatever the query), or ``slot``
            (one a list place: what is known of an item at the time of the list, such as its past clicks).
        dim: width d of the tokens.
        share: a tower of the same class whose learnt parts (vocabulary, weights) this one uses too.
        fused: whether its tokens go into the fusion; one that is not is there for matches alone.
        name: the modality's name; unique in a ranker.

    Raises:
        ValueError: for an unknown side, or no columns.
    """

    #: Width of what ``match_tokens`` gives; None: nothing to match by.
    match_width: int | None = None
    #: Whether its tokens can be fused; those that cannot are there for matches alone.
    fusible: bool = True
    #: Options that a sharing tower takes from its owner, whatever it is given itself; None: the class does not tell.
    shared_options: tuple[str, ...] | None = None
    #: Whether ``adapt`` also sees the raw values of the towers that share with it.
    learns_from_sharers: bool = True
    #: Whether ``call`` takes what ``match_tokens`` gave, where that was needed too, instead of what ``embed`` gave.
    goes_on_from_match_tokens: bool = False

    def __init__(
        self,
        columns: Iterable[str],
        side: str = "item",
        dim: int = 64,
        share: Tower | None = None,
        fused: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.columns = [columns] if isinstance(columns, str) else list(columns)
        if side not in SIDES:
            raise ValueError(
                f'{type(self).__name__} "{self.name}": side is "{side}"; expected one of {", ".join(SIDES)}'
            )
        if not self.columns:
            raise ValueError(f'{type(self).__name__} "{self.name}": columns is empty; name at least one column')
        if share is not None and type(share) is not type(self):
            raise ValueError(
                f'{type(self).__name__} "{self.name}" cannot share with {type(share).__name__} "{share.name}": '
                "only towers of one class share"
            )
        self.side = side
        self.dim = dim
        self.share = share
        self.fused = fused and self.fusible

    def adapt(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Learns preprocessing from raw batches; ``batches`` yields ``{column: array [n, ...]}``, once through.

        Not called on a tower that shares: its raw values (renamed to the owner's columns) go to the owner, unless
        ``learns_from_sharers`` is False.
        """

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Raw columns ``{column: tensor [n]}`` (or ``[n, width]``) to numeric tensors ``{feature: [n, ...]}``.

        Shapes past the first axis are static. Runs inside ``tf.function``; raises nothing on missing values: an empty
        string, an empty picture or NaN stands for one.
        """
        raise NotImplementedError

    def embed(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Preprocessed features through whatever training leaves as it is; default: the features as they are.

        Runs once an item, ahead of training, and its result is kept: frozen encoders belong here. Shapes past the first
        axis are static, and an item's result depends on that item alone.
        """
        return dict(features)

    def embed_config(self) -> dict[str, Any]:
        """The settings that ``preprocess`` and ``embed`` depend on (JSON values); default: all of ``get_config``.

        A tower whose ``embed`` is dear leaves out what only ``call`` depends on, such as ``dim`` or a dropout: changing
        that then computes no item again.
        """
        return self.get_config()

    def embed_state(self) -> bytes:
        """What ``embed`` depends on besides code and ``embed_config``: a digest of its weights; default: nothing."""
        return b""

    def call(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """What ``embed`` gave to ``Tokens`` with values ``[n, T, dim]`` and mask ``[n, T]``; T is static."""
        raise NotImplementedError

    @property
    def pretrained_weights(self) -> list[Any]:
        """Trainable weights that do not start afresh: they may take a learning rate of their own. Default: none."""
        return []

    def match_tokens(self, features: Mapping[str, Any], training: bool = False) -> Tokens:
        """What ``embed`` gave to the tokens ``[n, T, match_width]`` that matches compare."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to match by")

    def get_config(self) -> dict[str, Any]:
        """Everything needed to make this tower again, what ``adapt`` learnt included (JSON values only)."""
        return {
            **config_without_policy(super().get_config()),
            "columns": self.columns,
            "side": self.side,
            "dim": self.dim,
            "fused": self.fused,
            "share": self.share.name if self.share is not None else None,
        }
