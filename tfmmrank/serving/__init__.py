"""Answering requests: the embedded server, and a client of it or of TensorFlow Serving.

Names are imported when asked for: a client starts without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmmrank.serving.batch_tensors import Batching
    from tfmmrank.serving.client import Client, RankedItem, RankedList, ServingError
    from tfmmrank.serving.limits import Limits
    from tfmmrank.serving.model_config import ModelConfig, VersionPolicy
    from tfmmrank.serving.server import Server, serve
    from tfmmrank.serving.tls import ServerTls

_HOMES = {
    "Client": "client", "RankedItem": "client", "RankedList": "client", "ServingError": "client", "Server": "server",
    "serve": "server", "Batching": "batch_tensors", "Limits": "limits", "ModelConfig": "model_config",
    "VersionPolicy": "model_config", "ServerTls": "tls",
}  # fmt: skip

__all__ = [
    "Batching", "Client", "Limits", "ModelConfig", "RankedItem", "RankedList", "Server", "ServerTls", "ServingError",
    "VersionPolicy", "serve",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfmmrank.serving.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tfmmrank.serving' has no attribute {name!r}")
