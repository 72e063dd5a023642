"""A student: the same ranker, with a smaller BERT for the query's text."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tfmmrank.encoders.bert import BertEncoder
from tfmmrank.ranker import Ranker


def bert_query_towers(ranker: Ranker) -> list[Any]:
    """The query towers that read a text by BERT: what is computed anew for every request."""
    return [tower for tower in ranker.side("query") if isinstance(getattr(tower, "encoder", None), BertEncoder)]


def make_student(teacher: Ranker, blocks: int) -> Ranker:
    """The teacher with fewer Transformer blocks in the encoder of its query towers, and else its own weights.

    The blocks kept are spread evenly over the teacher's, as DistilBERT's are (Sanh et al.,
    https://arxiv.org/abs/1910.01108). Items keep the teacher's whole encoder: a served model has their tokens already.
    All of the smaller encoder is trainable.

    Args:
        teacher: a trained ranker.
        blocks: Transformer blocks that the student keeps.

    Raises:
        ValueError: for a ranker without a BERT on the query's side, an ensemble, or a number of blocks that is not
            smaller than the teacher's.
    """
    config = teacher.get_config()
    if "members" in config:
        raise ValueError("an ensemble has a query encoder in every member; distil one of them")
    taught = bert_query_towers(teacher)
    if not taught:
        known = ", ".join(tower.name for tower in teacher.side("query")) or "none"
        raise ValueError(f"no query tower has a BERT encoder to make smaller; query towers: {known}")
    for tower in taught:
        if not 1 <= blocks < tower.encoder.layers:
            raise ValueError(
                f'blocks is {blocks}; expected 1 to {tower.encoder.layers - 1}: "{tower.name}" has '
                f"{tower.encoder.layers}"
            )
    student = Ranker.from_config(_student_config(config, {tower.name for tower in taught}, blocks))
    student.build_from_columns()
    _copy_weights(teacher, student, {tower.name for tower in taught})
    return student


def _student_config(config: dict[str, Any], taught: set[str], blocks: int) -> dict[str, Any]:
    """The configuration with the taught towers' encoders cut, and no longer shared with items."""
    config = copy.deepcopy(config)
    parts = {part["name"]: part for part in config["towers"]}
    owner_of = {name: part["share"] or name for name, part in parts.items()}
    encoders = {name: parts[owner_of[name]].get("encoder") for name in parts}
    heirs: dict[tuple[str, bool], str] = {}  # by the teacher's owner and whether taught: the student's owner
    for name, part in parts.items():
        heir = heirs.setdefault((owner_of[name], name in taught), name)
        part["share"] = None if heir == name else heir
        if encoders[name] is not None and heir == name:
            part["encoder"] = dict(encoders[name])
            if name in taught:
                part["encoder"].update(layers=blocks, trainable_blocks=None)
                part["trainable_blocks"] = None
    return config


def _copy_weights(teacher: Ranker, student: Ranker, taught: set[str]) -> None:
    for old, new in zip(teacher.towers, student.towers, strict=True):
        if old.name in taught:
            _copy_bert(old.encoder, new.encoder)
        if hasattr(old, "encoder"):  # may share with another tower than before: part by part
            parts = [(old.norm, new.norm), *zip(old.project, new.project, strict=True)]
            if old.name not in taught:
                parts.append((old.encoder, new.encoder))
            for one, other in parts:
                other.set_weights(one.get_weights())
        else:
            new.set_weights(old.get_weights())
    for one, other in ((teacher.fusion, student.fusion), (teacher.cross, student.cross)):
        other.set_weights(one.get_weights())
    if teacher.matching is not None and student.matching is not None:
        student.matching.set_weights(teacher.matching.get_weights())


def _copy_bert(teacher: BertEncoder, student: BertEncoder) -> None:
    for part in ("embedding", "positions", "norm"):
        getattr(student, part).set_weights(getattr(teacher, part).get_weights())
    kept = np.linspace(0, teacher.layers - 1, student.layers).round().astype(int)
    for block, number in zip(student.blocks, kept, strict=True):
        block.set_weights(teacher.blocks[number].get_weights())
