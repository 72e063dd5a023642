"""What a client asks a model server: TensorFlow Serving's requests as bytes, whatever carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfmmrank.serving.client import answers
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.protocol.tensors import write_tensor


@dataclass(frozen=True)
class Target:
    """The model that is asked.

    Args:
        model: its name on the server.
        version: default: whichever the server serves as the latest.
        label: the version that the server's configuration gives this label, such as ``stable``.

    Raises:
        ValueError: for both a version and a label.
    """

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise ValueError(
                f'version={self.version} and label="{self.label}" exclude each other: a label stands for a version'
            )

    def fill(self, spec: Any) -> None:
        """Writes it into a request's ModelSpec."""
        spec.name = self.model
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label


@dataclass(frozen=True)
class Question:
    """One request: the method's path, the serialised message, and how its answer is read."""

    method: str
    message: bytes
    read: Callable[[bytes], Any]


def predict(target: Target, signature: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Question:
    """Calls a signature with arrays by input. Raises ValueError for one that TensorFlow has no type for."""
    request = wire.PredictRequest()
    target.fill(request.model_spec)
    request.model_spec.signature_name = signature
    request.output_filter.extend(output_filter)
    for name, value in inputs.items():
        try:
            write_tensor(request.inputs[name], value)
        except TypeError as error:
            raise ValueError(f'input "{name}": {error}') from error
    return Question(wire.PREDICT, request.SerializeToString(), answers.read_prediction)


def metadata(target: Target) -> Question:
    """Asks for the model's signatures."""
    request = wire.GetModelMetadataRequest(metadata_field=["signature_def"])
    target.fill(request.model_spec)
    return Question(wire.METADATA, request.SerializeToString(), answers.read_signatures)


def status(target: Target) -> Question:
    """Asks for the state of the model's versions."""
    request = wire.GetModelStatusRequest()
    target.fill(request.model_spec)
    return Question(wire.STATUS, request.SerializeToString(), answers.read_states)
