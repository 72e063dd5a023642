"""``models.config``, TensorFlow Serving's list of models, as a file that is edited: read, changed, put back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfmmrank.atomic import replace_file
from tfmmrank.registry import nearest


class ModelsFile:
    """A text proto ModelServerConfig.

    Text protos lose their comments when they are written anew: the block at the file's head is kept, and
    ``loses_comments`` tells whether there are others.

    Args:
        path: the file; a link is followed.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no ModelServerConfig.

    Attributes:
        path: the file.
        config: what it held when it was opened.
        loses_comments: whether ``write`` drops comments that stand below the file's head.
    """

    def __init__(self, path: str | Path) -> None:
        from tensorflow_serving.config import model_server_config_pb2

        self.path = Path(os.path.realpath(path))
        self._original = self._last = self.path.read_bytes()
        self.config = model_server_config_pb2.ModelServerConfig()
        try:
            text = self._original.decode("utf-8")
            text_format.Parse(text, self.config)
        except (UnicodeDecodeError, text_format.ParseError) as error:
            raise ValueError(f"{self.path}: is no ModelServerConfig in text form: {error}") from error
        self._head, body = _split_head(text)
        self.loses_comments = _has_comment(body)

    def model(self, name: str, config: Any | None = None) -> Any:
        """A model's entry, in the file's config or in a copy of it.

        Raises:
            ValueError: when there is none.
        """
        models = {model.name: model for model in (config or self.config).model_config_list.config}
        if name not in models:
            known = ", ".join(sorted(models)) or "none"
            raise ValueError(f'{self.path}: has no model "{name}"{nearest(name, list(models))}; models: {known}')
        return models[name]

    def write(self, config: Any) -> None:
        """Replaces the file's content.

        Raises:
            ValueError: when somebody else has changed the file meanwhile; it is left alone.
        """
        self._replace((self._head + text_format.MessageToString(config)).encode("utf-8"))

    def restore(self) -> None:
        """Puts the content back that the file had when it was opened. Raises ValueError as ``write`` does."""
        if self._last != self._original:
            self._replace(self._original)

    def _replace(self, content: bytes) -> None:
        if self.path.read_bytes() != self._last:
            raise ValueError(f"{self.path}: was changed by another process meanwhile; look at it and try again")
        with replace_file(self.path) as file:
            file.write(content)
        self._last = content


def _split_head(text: str) -> tuple[str, str]:
    """The comments and empty lines at a file's head, and the rest."""
    lines = text.splitlines(keepends=True)
    count = 0
    while count < len(lines) and (not lines[count].strip() or lines[count].lstrip().startswith("#")):
        count += 1
    head = "".join(lines[:count])
    return (head if head.endswith("\n") or not head else head + "\n"), "".join(lines[count:])


def _has_comment(text: str) -> bool:
    """Whether a ``#`` stands outside of quotes."""
    quote = ""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif quote:
            escaped = character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            return True
    return False
