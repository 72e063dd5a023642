"""TensorFlow Serving's configuration files, read and checked from Python.

The tensorflow-serving-api wheel lacks the messages of three of its text protos; they are declared here with the names,
numbers and types of TensorFlow Serving's own ``.proto`` files:

===================================  ==================================================================================
message                              file, and the flag that reads it
===================================  ==================================================================================
BatchingParameters                   ``session_bundle_config.proto``; ``--batching_parameters_file``
MonitoringConfig, PrometheusConfig   ``monitoring_config.proto``; ``--monitoring_config_file``
SSLConfig                            ``ssl_config.proto``; ``--ssl_config_file``
===================================  ==================================================================================

ModelServerConfig (``--model_config_file``) is in the wheel: ``tensorflow_serving.config.model_server_config_pb2``.
Neither that module nor this one loads TensorFlow.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pool, message, text_format, wrappers_pb2

from tfmmrank.registry import nearest
from tfmmrank.serving.protocol.descriptors import declare_messages

M = TypeVar("M", bound=message.Message)

_PACKAGE = "tensorflow.serving"
_INT64 = "google.protobuf.Int64Value"

# Private, since a newer wheel may register the same names.
_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)

_CLASSES = declare_messages(
    "tfmmrank/serving_config.proto",
    _PACKAGE,
    {
        "BatchingParameters": {
            "max_batch_size": (1, _INT64),
            "batch_timeout_micros": (2, _INT64),
            "max_enqueued_batches": (3, _INT64),
            "num_batch_threads": (4, _INT64),
            "thread_pool_name": (5, "google.protobuf.StringValue"),
            "allowed_batch_sizes": (6, "[int64]"),
            "pad_variable_length_inputs": (7, "bool"),
            # In TensorFlow Serving since 2.3; text protos carry names, so that nothing here hangs on these two numbers.
            "enable_large_batch_splitting": (8, "google.protobuf.BoolValue"),
            "max_execution_batch_size": (9, _INT64),
        },
        "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
        "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
        "SSLConfig": {
            "server_key": (1, "string"),
            "server_cert": (2, "string"),
            "custom_ca": (3, "string"),
            "client_verify": (4, "bool"),
        },
    },
    _POOL,
    imports=[wrappers_pb2.DESCRIPTOR.name],
)

BatchingParameters: Any = _CLASSES["BatchingParameters"]
MonitoringConfig: Any = _CLASSES["MonitoringConfig"]
PrometheusConfig: Any = _CLASSES["PrometheusConfig"]
SSLConfig: Any = _CLASSES["SSLConfig"]


def parse_config(path: str | Path, message_class: type[M]) -> M:
    """Reads a text proto.

    Args:
        path: the file, in UTF-8.
        message_class: what it holds: a class of this module, or ``ModelServerConfig``.

    Raises:
        OSError: when the file cannot be read.
        ValueError: naming the file, the line and the key, for a misspelt key with the nearest one that exists.

    Example:
        >>> parse_config("serving/config/batching.config", BatchingParameters).max_batch_size.value
        16
    """
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8: {error}") from error
    try:
        return text_format.Parse(text, message_class())
    except text_format.ParseError as error:
        raise ValueError(_explain(path, error, message_class)) from error


def _explain(path: str | Path, error: text_format.ParseError, message_class: type[message.Message]) -> str:
    """What is wrong and where; protobuf itself says neither the file nor what was meant."""
    place = f"{path}:{error.GetLine()}" if error.GetLine() else str(path)
    unknown = re.search(r'Message type "(.+)" has no field named "(.+)"', str(error))
    if not unknown:
        reason = str(error).removeprefix(f"{error.GetLine()}:{error.GetColumn()} : ")
        return f"{place}: not a valid {message_class.DESCRIPTOR.name}: {reason}"
    owner, key = unknown.groups()
    known = sorted(message_class.DESCRIPTOR.file.pool.FindMessageTypeByName(owner).fields_by_name)
    return f'{place}: {owner} has no key "{key}"{nearest(key, known)}; known: {", ".join(known)}'
