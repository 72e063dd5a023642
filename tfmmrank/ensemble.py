"""An ensemble: rankers trained alike from other seeds, of which the mean score ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmmrank.ranker import Ranker, hide
from tfmmrank.stack import keras, tf
from tfmmrank.tokens import Tokens


@keras.utils.register_keras_serializable("tfmmrank")
class Ensemble(Ranker):
    """Scores by the mean of its members' scores; evaluated, saved, exported and served as any ranker.

    The members differ in what was trained alone. Raw values are preprocessed, and sent through frozen encoders, once
    for all of them; an item's tokens, and the time after those, grow with their number. Members are trained each by
    itself: see ``tfmmrank.training.fit_ensemble``.

    Args:
        members: two or more adapted rankers of one configuration.
        name: the model's name.

    Raises:
        ValueError: for fewer than two members, or such as differ in more than what was trained.
    """

    def __init__(self, members: Sequence[Ranker], name: str | None = None, _fresh: bool = False) -> None:
        if len(members) < 2:
            raise ValueError(f"an ensemble of {len(members)} rankers; expected at least 2")
        first = members[0]
        for number, member in enumerate(members[1:], 1):
            if _config(member) != _config(first) or (not _fresh and _frozen(member) != _frozen(first)):
                raise ValueError(
                    f"member {number} is not configured and adapted as member 0, or has other frozen weights; train "
                    "all by one recipe"
                )
        match = first.matching.matches if first.matching is not None else ()
        super().__init__(first.towers, first.fusion, match=match, columns=first.columns, name=name)
        self.cross, self.matching = first.cross, first.matching
        self.members = list(members)

    def build_from_columns(self) -> Ensemble:
        """Creates all weights, those of the members' preprocessing too, which the ensemble itself does not use."""
        for member in self.members:
            member.build_from_columns()
        super().build_from_columns()
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Not an ensemble's: its members are trained each by itself."""
        raise NotImplementedError("an ensemble is not trained; train its members, see tfmmrank.training.fit_ensemble")

    def _encode(self, side: str, features: Mapping[str, Any], training: bool) -> dict[str, Tokens]:
        return {
            f"{number}/{name}": tokens
            for number, member in enumerate(self.members)
            for name, tokens in member._encode(side, features, training).items()
        }

    def fused_tokens(self, tokens: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """The first member's: the vectors of different members have no space in common."""
        return self.members[0].fused_tokens(_of_member(tokens, 0))

    def match_features(self, batch: Mapping[str, Any]) -> Any:
        """The first member's."""
        return self.members[0].match_features(batch)

    def score(
        self, query: Mapping[str, Tokens], item: Mapping[str, Tokens], slot_mask: Any, training: bool = False
    ) -> Any:
        """The mean of the members' scores, ``[B, L]``."""
        scores = [
            member.score(_of_member(query, number), _of_member(item, number), slot_mask, training)
            for number, member in enumerate(self.members)
        ]
        return tf.where(slot_mask, tf.add_n(scores) / len(scores), scores[0])

    def _without(self, item: Mapping[str, Tokens], name: str) -> dict[str, Tokens]:
        for number in range(len(self.members)):
            item = hide(item, f"{number}/{name}")
        return dict(item)

    def get_config(self) -> dict[str, Any]:
        """Everything but the weights, as JSON values."""
        return {"name": self.name, "members": [member.get_config() for member in self.members]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Ensemble:
        """The ensemble of ``get_config``, with fresh weights."""
        return cls([Ranker.from_config(member) for member in config["members"]], name=config["name"], _fresh=True)


def _config(member: Ranker) -> dict[str, Any]:
    """The configuration less the names that Keras numbers within a process."""
    config = {key: value for key, value in member.get_config().items() if key != "name"}
    return {**config, "fusion": {key: value for key, value in config["fusion"].items() if key != "name"}}


def _frozen(member: Ranker) -> dict[str, bytes]:
    """Digests of the weights that items are sent through ahead of training."""
    return {tower.name: tower.embed_state() for tower in member.towers}


def _of_member(tokens: Mapping[str, Tokens], number: int) -> dict[str, Tokens]:
    prefix = f"{number}/"
    return {name.removeprefix(prefix): part for name, part in tokens.items() if name.startswith(prefix)}
