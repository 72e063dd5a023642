"""A pytest plugin that tells which of TensorFlow Serving's methods the embedded server answered in each test.

``python -m pytest -p benchmarks.serving.asked --junitxml=FILE``: a test's properties ``asked`` in FILE name them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

#: TensorFlow Serving's methods, by what answers them in the embedded server.
_CORE = {
    "predict": "Predict", "classify": "Classify", "regress": "Regress", "multi_inference": "MultiInference",
    "metadata": "GetModelMetadata", "status": "GetModelStatus", "reload": "HandleReloadConfigRequest",
}  # fmt: skip
_REST = {"answer": "REST API"}
_asked: set[str] = set()


def record(owner: type, names: Mapping[str, str]) -> None:
    """Has a class's methods remember under these names that they were called."""
    for method, name in names.items():
        setattr(owner, method, _recorded(getattr(owner, method), name))


def _recorded(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        _asked.add(name)
        return method(*arguments, **options)

    return call


def pytest_configure() -> None:
    """Watches the server's core, which every transport hands its requests to, and what answers REST."""
    from tfmmrank.serving.server.core import ServerCore
    from tfmmrank.serving.server.rest_handler import RestHandler

    record(ServerCore, _CORE)
    record(RestHandler, _REST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Keeps what a test asked; what its fixtures asked is not the test's."""
    _asked.clear()
    try:
        return (yield)
    finally:
        item.user_properties += [("asked", name) for name in sorted(_asked)]
