"""Answering requests: the embedded server, and a client of it or of TensorFlow Serving.

Names are imported when asked for: a client starts without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmmrank.serving.client import Client, RankedItem, RankedList, ServingError
    from tfmmrank.serving.server import Server, serve

_HOMES = {
    "Client": "client", "RankedItem": "client", "RankedList": "client", "ServingError": "client", "Server": "server",
    "serve": "server",
}  # fmt: skip

__all__ = ["Client", "RankedItem", "RankedList", "Server", "ServingError", "serve"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfmmrank.serving.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tfmmrank.serving' has no attribute {name!r}")
