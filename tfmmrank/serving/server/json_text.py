"""JSON from clients, read as TensorFlow Serving's RapidJSON reads it: ``NaN`` and ``Infinity`` are numbers.

What readers of JSON disagree on is refused instead of guessed: a key that stands twice, bytes that are not UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from tfmmrank.export.servable import RequestError

BASE64_KEY = "b64"

_SHOWN = 200  # characters of a value in a message
_LARGE_EXPONENT = re.compile(r"[eE]\+?[0-9]{3}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = re.compile(r"\s+")
_TYPES = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number", type(None): "Null"}


def parse_object(body: bytes) -> dict[str, Any]:
    """A request's body, which has to be one JSON object.

    Raises:
        RequestError: INVALID_ARGUMENT, for anything else.
    """
    if not body:
        raise _parse_error("The document is empty")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _parse_error(f"Invalid encoding, not UTF-8, at offset: {error.start}") from error
    try:
        document = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_float=_finite if _LARGE_EXPONENT.search(text) else None,  # a hook takes longer than the reading
        )
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode("utf-8")  # half a pair cannot be encoded
    except json.JSONDecodeError as error:
        raise _parse_error(f"{error.msg} at offset: {error.pos}") from error
    except UnicodeEncodeError as error:
        raise _parse_error("The surrogate pair in string is invalid") from error
    except RecursionError as error:
        raise _parse_error("The document is nested too deeply") from error
    except ValueError as error:
        raise _parse_error(str(error)) from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def type_text(value: Any) -> str:
    """JSON's word for a value's type, as RapidJSON says it."""
    return str(value) if isinstance(value, bool) else _TYPES[type(value)]


def shown(value: Any) -> str:
    """A value as JSON for a message, cut where it is long."""
    pieces: list[str] = []
    length = 0
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        pieces.append(piece)
        length += len(piece)
        if length > _SHOWN:
            return "".join(pieces)[:_SHOWN] + "…"
    return "".join(pieces)


def place(index: int, shape: Sequence[int]) -> str:
    """Where a flat index lies in an array of that shape, such as ``[2][0]``."""
    coordinates = []
    for size in reversed(shape):
        index, coordinate = divmod(index, size)
        coordinates.append(coordinate)
    return "".join(f"[{coordinate}]" for coordinate in reversed(coordinates))


def is_base64(value: Any) -> bool:
    """Whether a JSON value stands for bytes: an object whose only key is ``b64``, with a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(BASE64_KEY), str)


def decode_base64(value: Any) -> bytes:
    """The bytes of ``{"b64": …}``: standard base64, padded or not.

    Raises:
        RequestError: for another object, or other characters.
    """
    if not is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = _BLANKS.sub("", value[BASE64_KEY])
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def invalid(message: str) -> RequestError:
    """A request's fault."""
    return RequestError("INVALID_ARGUMENT", message)


def _parse_error(message: str) -> RequestError:
    return invalid(f"JSON Parse error: {message}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"The key {shown(key)} stands twice in an object")
            seen.add(key)
    return document


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"Number too big to be stored in double: {text[:_SHOWN]}")
    return value
