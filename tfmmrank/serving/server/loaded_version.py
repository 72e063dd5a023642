"""A version of a model: what loads it, holds it, and says where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tfmmrank.export.graph_loading import Way, at_once
from tfmmrank.export.servable import Servable
from tfmmrank.export.warmup import replay_warmup


class VersionState(NamedTuple):
    """Where a version stands.

    Attributes:
        model: the model's name.
        version: the version.
        state: a name of ``ModelVersionStatus.State``: START, LOADING, AVAILABLE, UNLOADING or END.
        code: ``OK``, or gRPC's name of what made the load fail.
        message: why.
    """

    model: str
    version: int
    state: str
    code: str = "OK"
    message: str = ""


class LoadedVersion:
    """A version that answers requests.

    Attributes:
        model: the model's name.
        version: the version.
        directory: the folder that it was loaded from.
        servable: the loaded SavedModel.
    """

    def __init__(self, model: str, version: int, directory: Path, servable: Any) -> None:
        self.model, self.version, self.directory, self.servable = model, version, directory, servable
        self.holders = 0  # requests that use it; guarded by the manager


def load_warm(directory: Path, way: Way = at_once) -> Servable:
    """Loads a version and replays its warm-up requests.

    Args:
        directory: the version's.
        way: how the calls are made that take long.

    Raises:
        OSError: when there is no SavedModel, or it is damaged.
        RequestError: when a warm-up request fails.
    """
    servable = Servable(directory, way)
    try:
        replay_warmup(servable, way)
    except BaseException:
        servable.close()
        raise
    return servable
