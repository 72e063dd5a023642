"""Answering requests: the embedded server, and clients of it or of TensorFlow Serving.

Names are imported when asked for: a client starts without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmmrank.serving.client.answers import RankedItem, RankedList, ServingError
    from tfmmrank.serving.client.async_client import AsyncClient
    from tfmmrank.serving.client.client import Client
    from tfmmrank.serving.client.transport import Retry, Tls
    from tfmmrank.serving.server.batch_tensors import Batching
    from tfmmrank.serving.server.limits import Limits
    from tfmmrank.serving.server.model_config import ModelConfig, VersionPolicy
    from tfmmrank.serving.server.server import Server, serve
    from tfmmrank.serving.server.tls import ServerTls

_HOMES = {
    "AsyncClient": "client.async_client", "Batching": "server.batch_tensors", "Client": "client.client",
    "Limits": "server.limits", "ModelConfig": "server.model_config", "RankedItem": "client.answers",
    "RankedList": "client.answers", "Retry": "client.transport", "Server": "server.server",
    "ServerTls": "server.tls", "ServingError": "client.answers", "Tls": "client.transport",
    "VersionPolicy": "server.model_config", "serve": "server.server",
}  # fmt: skip

__all__ = [
    "AsyncClient", "Batching", "Client", "Limits", "ModelConfig", "RankedItem", "RankedList", "Retry", "Server",
    "ServerTls", "ServingError", "Tls", "VersionPolicy", "serve",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfmmrank.serving.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tfmmrank.serving' has no attribute {name!r}")
