"""Answering requests: the embedded server, and clients of it or of TensorFlow Serving.

Names are imported when asked for: a client starts without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmmrank.serving.answers import RankedItem, RankedList, ServingError
    from tfmmrank.serving.async_client import AsyncClient
    from tfmmrank.serving.batch_tensors import Batching
    from tfmmrank.serving.client import Client
    from tfmmrank.serving.limits import Limits
    from tfmmrank.serving.model_config import ModelConfig, VersionPolicy
    from tfmmrank.serving.server import Server, serve
    from tfmmrank.serving.tls import ServerTls
    from tfmmrank.serving.transport import Retry, Tls

_HOMES = {
    "AsyncClient": "async_client", "Batching": "batch_tensors", "Client": "client", "Limits": "limits",
    "ModelConfig": "model_config", "RankedItem": "answers", "RankedList": "answers", "Retry": "transport",
    "Server": "server", "ServerTls": "tls", "ServingError": "answers", "Tls": "transport",
    "VersionPolicy": "model_config", "serve": "server",
}  # fmt: skip

__all__ = [
    "AsyncClient", "Batching", "Client", "Limits", "ModelConfig", "RankedItem", "RankedList", "Retry", "Server",
    "ServerTls", "ServingError", "Tls", "VersionPolicy", "serve",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfmmrank.serving.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tfmmrank.serving' has no attribute {name!r}")
