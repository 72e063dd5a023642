"""What promotions changed in a ``models.config``, so that they can be taken back."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfmmrank.atomic import write_text

_KEPT = 100  # changes


def state_of(entry: Any) -> dict[str, Any]:
    """What a promotion changes of a model's entry, a ``ModelConfig``, as JSON values: labels and version policy."""
    return {
        "labels": dict(sorted(entry.version_labels.items())),
        "policy": text_format.MessageToString(entry.model_version_policy, as_one_line=True),
    }


def set_state(entry: Any, state: dict[str, Any]) -> None:
    """Gives a model's entry the labels and the policy that ``state_of`` told."""
    entry.version_labels.clear()
    for label, version in state["labels"].items():
        entry.version_labels[label] = version
    entry.ClearField("model_version_policy")
    if state["policy"]:
        text_format.Parse(state["policy"], entry.model_version_policy)


def change_of(label: str | None, version: int, before: Any, after: Any) -> dict[str, Any]:
    """A change of a model's entry, as the history keeps it."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "time": now, "model": before.name, "label": label, "version": version,
        "before": state_of(before), "after": state_of(after),
    }  # fmt: skip


class History:
    """The changes, oldest first, in ``NAME.history.json`` beside the file that they changed.

    Raises:
        ValueError: when that is no JSON.
    """

    def __init__(self, config_file: Path) -> None:
        self.path = config_file.with_name(config_file.name + ".history.json")
        try:
            self._changes = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            self._changes = []
        except ValueError as error:
            raise ValueError(f"{self.path}: is no JSON: {error}; remove it to begin a new history") from error

    def append(self, change: dict[str, Any]) -> None:
        """Adds a change."""
        self._changes.append(change)
        self._write()

    def latest(self, model: str, label: str | None) -> dict[str, Any]:
        """The latest change of a model. Raises ValueError when there is none, or it moved another label than this."""
        changes = [change for change in self._changes if change["model"] == model]
        if not changes:
            raise ValueError(f'{self.path}: knows no promotion of "{model}"; there is nothing to take back')
        moved = changes[-1]["label"]
        if label is not None and moved != label:
            what = "no label" if moved is None else f'"{moved}"'
            raise ValueError(f'{self.path}: the latest promotion of "{model}" moved {what}, not "{label}"')
        return changes[-1]

    def remove(self, change: dict[str, Any]) -> None:
        """Forgets a change."""
        self._changes.remove(change)
        self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps(self._changes[-_KEPT:], indent=1, ensure_ascii=False) + "\n")
