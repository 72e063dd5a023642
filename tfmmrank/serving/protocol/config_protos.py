"""TensorFlow Serving's configuration files, read and checked from Python.

The tensorflow-serving-api wheel lacks the messages of four of its text protos; they are declared here with the names,
numbers and types of TensorFlow Serving's own ``.proto`` files:

===================================  ==================================================================================
message                              file, and the flag that reads it
===================================  ==================================================================================
BatchingParameters                   ``session_bundle_config.proto``; ``--batching_parameters_file``
MonitoringConfig, PrometheusConfig   ``monitoring_config.proto``; ``--monitoring_config_file``
SSLConfig                            ``ssl_config.proto``; ``--ssl_config_file``
SavedModelBundleSourceAdapterConfig  ``saved_model_bundle_source_adapter.proto``; inside ``--platform_config_file``
===================================  ==================================================================================

Of SessionBundleConfig, which the last one holds, the fields up to ``model_warmup_options`` (780) are known.

ModelServerConfig (``--model_config_file``) is in the wheel: ``tensorflow_serving.config.model_server_config_pb2``.
Neither that module nor this one loads TensorFlow; only SavedModelBundleSourceAdapterConfig does, when it is first asked
for, because it holds TensorFlow's own ConfigProto.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message, text_format, wrappers_pb2

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


def __getattr__(name: str) -> Any:
    if name == "SavedModelBundleSourceAdapterConfig":
        return _source_adapter_config()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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


@functools.cache
def _source_adapter_config() -> Any:
    """SavedModelBundleSourceAdapterConfig with its SessionBundleConfig, built on TensorFlow's descriptors."""
    from tensorflow.core.protobuf import config_pb2, named_tensor_pb2

    for module in (config_pb2, named_tensor_pb2):
        _copy_file(module.DESCRIPTOR)
    declare_messages(
        "tfmmrank/session_bundle_config.proto",
        _PACKAGE,
        {
            "ModelWarmupOptions": {"num_request_iterations": (1, "google.protobuf.Int32Value")},
            "SessionBundleConfig": {
                "session_target": (1, "string"),
                "session_config": (2, "tensorflow.ConfigProto"),
                "batching_parameters": (3, "BatchingParameters"),
                "session_run_load_threadpool_index": (4, "google.protobuf.Int32Value"),
                "experimental_transient_ram_bytes_during_load": (5, "uint64"),
                "saved_model_tags": (6, "[string]"),
                "experimental_fixed_input_tensors": (778, "[tensorflow.NamedTensorProto]"),
                "enable_model_warmup": (779, "bool"),
                "model_warmup_options": (780, "ModelWarmupOptions"),
            },
        },
        _POOL,
        imports=[
            wrappers_pb2.DESCRIPTOR.name,
            "tfmmrank/serving_config.proto",
            config_pb2.DESCRIPTOR.name,
            named_tensor_pb2.DESCRIPTOR.name,
        ],
    )
    return declare_messages(
        "tfmmrank/saved_model_bundle_source_adapter.proto",
        _PACKAGE,
        {"SavedModelBundleSourceAdapterConfig": {"legacy_config": (1000, "SessionBundleConfig")}},
        _POOL,
        imports=["tfmmrank/session_bundle_config.proto"],
    )["SavedModelBundleSourceAdapterConfig"]


def _copy_file(file: Any) -> None:
    """Copies a generated file and all that it imports into the private pool; again does nothing."""
    for imported in file.dependencies:
        _copy_file(imported)
    copy = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(copy)
    _POOL.Add(copy)
