"""What of a request may be kept: ids and texts only as keyed hashes, pictures only as "there was one".

Input by input, as a logged request holds it:

| input | in the log |
| --- | --- |
| numbers | as they are |
| ``item_ids``, texts, categories | ``keyed_hash(key, INPUT, value)``, 32 hexadecimal digits |
| of those that are no ids, beside | ``INPUT#text``, int32 ``[..., 3]``: characters, words, place in ``SCRIPTS`` |
| inputs named in ``plain_text`` | texts as they are |
| pictures and other bytes, serialized protos | ``present`` |
| a missing value, padding | empty, as it was |

Of the answer, ``scores`` and ``known`` are kept; vectors are not, because they tell of the text.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data.text import SCRIPTS, script_of, word_count
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import read_tensor, write_tensor

KEY_VARIABLE = "TFMMRANK_LOG_KEY"
PRESENT = b"present"
STATISTICS = "#text"  # what follows an input's name in that of its texts' statistics
OUTPUTS = ("scores", "known")

_MIN_KEY = 16  # bytes
_IDS = "item_ids"
_PROTOS = ("inputs", "input_ranking_data")  # serialized Examples and lists of them, whatever column they hold
_MAX_TEXT = 1 << 16  # bytes; what is longer is no query
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_STRING = 7  # tensorflow.DataType


def read_key(file: str | Path | None = None) -> bytes:
    """The key of the hashes: a file's content, or else the environment variable ``TFMMRANK_LOG_KEY``.

    White space around it is no part of it. ``openssl rand -hex 32`` makes a good one.

    Raises:
        OSError: when the file cannot be read.
        ValueError: without a key, or for one of fewer than 16 bytes.
    """
    if file is not None:
        key, where = Path(file).read_bytes().strip(), str(file)
    else:
        key, where = os.environb.get(KEY_VARIABLE.encode(), b"").strip(), f"the environment variable {KEY_VARIABLE}"
        if not key:
            raise ValueError(
                "ids and texts are hashed with a key: name a file that holds it (`--request-log-key-file`), or set "
                f"{KEY_VARIABLE}"
            )
    if len(key) < _MIN_KEY:
        raise ValueError(f"{where}: holds a key of {len(key)} bytes; expected at least {_MIN_KEY}")
    return key


def keyed_hash(key: bytes, column: str, value: bytes) -> bytes:
    """HMAC-SHA256 of ``COLUMN NUL VALUE``, its first 16 bytes in hexadecimal.

    Whoever has the key can hash an id of their own and find it in the log; the other way is barred. The same value in
    two columns has two hashes.
    """
    return hmac.digest(key, column.encode() + b"\0" + value, "sha256")[:16].hex().encode()


class Redactor:
    """Makes log records of requests and answers, without what must not be kept; the module says what that is.

    Args:
        key: of the hashes, see ``read_key``.
        plain_text: inputs whose texts may be kept as they are.
    """

    def __init__(self, key: bytes, plain_text: Collection[str] = ()) -> None:
        if isinstance(plain_text, str):
            raise TypeError(f'plain_text is "{plain_text}"; expected names, such as ["{plain_text}"]')
        self._key, self._plain_text = key, frozenset(plain_text)

    def predict_log(self, request: Any, response: Any) -> Any:
        """A ``PredictionLog`` with what may be kept of a PredictRequest and its PredictResponse.

        Raises:
            ValueError: for a tensor that is damaged.
        """
        log = wire.PredictionLog()
        kept = log.predict_log.request
        for name, tensor in request.inputs.items():
            if tensor.dtype == _STRING:
                self._keep_strings(kept.inputs, name, read_tensor(tensor))
            else:
                kept.inputs[name].ParseFromString(tensor.SerializeToString())
        kept.output_filter.extend(request.output_filter)
        for name in OUTPUTS:
            if name in response.outputs:
                log.predict_log.response.outputs[name].ParseFromString(response.outputs[name].SerializeToString())
        return log

    def _keep_strings(self, inputs: Any, name: str, values: np.ndarray) -> None:
        flat = values.ravel().tolist()
        kept = np.array([self._kept(name, value) for value in flat], object)
        write_tensor(inputs[name], kept.reshape(values.shape))
        if name != _IDS and name not in _PROTOS:
            statistics = np.array([text_statistics(value) for value in flat], np.int32).reshape(*values.shape, 3)
            write_tensor(inputs[name + STATISTICS], statistics)

    def _kept(self, name: str, value: bytes) -> bytes:
        if not value:
            return b""
        if name == _IDS:
            return keyed_hash(self._key, name, value)
        if name in _PROTOS or _text(value) is None:
            return PRESENT
        return value if name in self._plain_text else keyed_hash(self._key, name, value)


def text_statistics(value: bytes) -> tuple[int, int, int]:
    """A text's characters, words, and its script's place in ``SCRIPTS``; all 0 of what is no text."""
    text = _text(value)
    return (len(text), word_count(text), SCRIPTS.index(script_of(text))) if text else (0, 0, 0)


def _text(value: bytes) -> str | None:
    """The value as text; None where it is a picture or other bytes."""
    if len(value) > _MAX_TEXT or value.startswith(_PICTURES) or b"\0" in value:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None
