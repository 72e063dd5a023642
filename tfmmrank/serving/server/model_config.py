"""Which models are served, from where, and which of their versions: TensorFlow Serving's ``models.config``.

Does without TensorFlow, so that a mistake in the file is told before that is imported.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfmmrank.export.versions import version_folders
from tfmmrank.serving.protocol.config_protos import parse_config

_PLATFORM = "tensorflow"


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions in a model's folder are served.

    Attributes:
        latest: how many of the highest versions; None for no such limit.
        specific: these versions only; None for any.
    """

    latest: int | None = 1
    specific: frozenset[int] | None = None

    def choose(self, found: Collection[int]) -> list[int]:
        """The versions to serve of those in the folder, highest first."""
        allowed = found if self.specific is None else self.specific & set(found)
        return sorted(allowed, reverse=True)[: self.latest]


@dataclass(frozen=True)
class ModelConfig:
    """One served model.

    Attributes:
        name: its name for clients.
        base_path: the folder that holds its versions.
        policy: which of them are served.
        labels: version by label, such as ``{"stable": 3, "canary": 4}``.
    """

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)

    def require_version(self) -> None:
        """Raises FileNotFoundError when the folder has no version that the policy asks for."""
        if not self.base_path.is_dir():
            raise FileNotFoundError(f"{self.base_path}: is no folder; expected the base_path of model {self.name}")
        found = version_folders(self.base_path)
        if not self.policy.choose(found):
            known = ", ".join(map(str, sorted(found))) or "none"
            raise FileNotFoundError(
                f"{self.base_path}: holds no version of model {self.name} (a folder named by a number) that its "
                f"version policy asks for; versions there: {known}"
            )


def read_models(file: str | Path) -> dict[str, ModelConfig]:
    """Reads a ``models.config``: a ModelServerConfig as a text proto.

    Returns:
        Models by name.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it is no ModelServerConfig, or one that cannot be served; names the file, and the line or key.
    """
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = parse_config(file, ModelServerConfig)
    try:
        return models_of(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def models_of(config: Any) -> dict[str, ModelConfig]:
    """The models of a ModelServerConfig, by name.

    As in TensorFlow Serving, two names may share a folder, and a path must be absolute.

    Raises:
        ValueError: for a config that cannot be served, in TensorFlow Serving's words where it has some.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise ValueError(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    models: dict[str, ModelConfig] = {}
    for place, entry in enumerate(config.model_config_list.config):
        if not entry.name:
            raise ValueError(f"model_config_list.config[{place}].name is empty; expected the model's name")
        if entry.name in models:
            raise ValueError(f"Illegal to list model {entry.name} multiple times in config list")
        models[entry.name] = _model_of(entry)
    return models


def _model_of(entry: Any) -> ModelConfig:
    _check_platform(entry)
    if not Path(entry.base_path).is_absolute():
        raise ValueError(
            f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
        )
    if entry.HasField("logging_config"):
        message = f"model {entry.name}: logging_config is left to TensorFlow Serving; nothing is logged by it here"
        warnings.warn(message, stacklevel=2)
    return ModelConfig(entry.name, Path(entry.base_path), _policy_of(entry), dict(entry.version_labels))


def _check_platform(entry: Any) -> None:
    if entry.model_type and entry.model_platform:
        raise ValueError(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if not entry.model_type and not entry.model_platform:
        raise ValueError(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."
        )
    platform = entry.model_platform or {1: _PLATFORM}.get(entry.model_type, f"model_type {entry.model_type}")
    if platform != _PLATFORM:
        raise ValueError(f"Model {entry.name} requests unsupported platform {platform}")


def _policy_of(entry: Any) -> VersionPolicy:
    policy = entry.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            if not policy.specific.versions:
                raise ValueError(f"Model {entry.name}: model_version_policy.specific lists no versions")
            return VersionPolicy(latest=None, specific=frozenset(policy.specific.versions))
        case _:
            return VersionPolicy(latest=max(1, policy.latest.num_versions))
