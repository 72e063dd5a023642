"""Answering requests: the embedded server, and clients of it or of TensorFlow Serving.

Names are imported when asked for: a client starts without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmmrank.serving.answers import RankedItem, RankedList, ServingError
    from tfmmrank.serving.async_client import AsyncClient
    from tfmmrank.serving.client import Client
    from tfmmrank.serving.server import Server, serve
    from tfmmrank.serving.transport import Retry, Tls

_HOMES = {
    "AsyncClient": "async_client", "Client": "client", "RankedItem": "answers", "RankedList": "answers",
    "Retry": "transport", "Server": "server", "ServingError": "answers", "Tls": "transport", "serve": "server",
}  # fmt: skip

__all__ = ["AsyncClient", "Client", "RankedItem", "RankedList", "Retry", "Server", "ServingError", "Tls", "serve"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfmmrank.serving.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tfmmrank.serving' has no attribute {name!r}")
