"""A trained ranker to a SavedModel for TensorFlow Serving.

Names are imported when asked for: clients read ``versions`` without paying for TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmmrank.export.exporter import export
    from tfmmrank.export.item_update import ItemUpdate, update_items
    from tfmmrank.export.op_check import UnknownOpError, check_ops
    from tfmmrank.export.request_error import RequestError
    from tfmmrank.export.servable import Servable
    from tfmmrank.export.signatures import UNKNOWN_SCORE
    from tfmmrank.export.versions import find_version, versions_of

_HOMES = {
    "export": "exporter", "ItemUpdate": "item_update", "update_items": "item_update", "UnknownOpError": "op_check",
    "check_ops": "op_check", "RequestError": "request_error", "Servable": "servable", "UNKNOWN_SCORE": "signatures",
    "find_version": "versions", "versions_of": "versions",
}  # fmt: skip

__all__ = [
    "UNKNOWN_SCORE", "ItemUpdate", "RequestError", "Servable", "UnknownOpError", "check_ops", "export", "find_version",
    "update_items", "versions_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfmmrank.export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tfmmrank.export' has no attribute {name!r}")
