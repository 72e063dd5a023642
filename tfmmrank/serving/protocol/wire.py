"""TensorFlow Serving's messages for a client, without TensorFlow.

The generated classes of tensorflow-serving-api import all of TensorFlow, some ten seconds and 500 MB; a client needs a
dozen message types. They are declared here field by field, with the numbers of ``tensorflow_serving/apis/*.proto`` and
``tensorflow/core/framework/*.proto``; a test compares the bytes with the generated classes'.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool

from tfmmrank.serving.protocol.descriptors import declare_messages

# As `declare_messages` reads them; enums are int32.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "[Dim]"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "[float]"),
        "double_val": (6, "[double]"),
        "int_val": (7, "[int32]"),
        "string_val": (8, "[bytes]"),
        "int64_val": (10, "[int64]"),
        "bool_val": (11, "[bool]"),
        "uint32_val": (16, "[uint32]"),
        "uint64_val": (17, "[uint64]"),
    },
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "map TensorProto"),
        "output_filter": (3, "[string]"),
    },
    "PredictResponse": {"outputs": (1, "map TensorProto"), "model_spec": (2, "ModelSpec")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "[string]")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "map Any")},
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "TensorShapeProto")},
    "SignatureDef": {
        "inputs": (1, "map TensorInfo"),
        "outputs": (2, "map TensorInfo"),
        "method_name": (3, "string"),
    },
    "SignatureDefMap": {"signature_def": (1, "map SignatureDef")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "StatusProto")},
    "GetModelStatusResponse": {"model_version_status": (1, "[ModelVersionStatus]")},
    "ReloadConfigRequest": {"config": (1, "bytes")},  # a ModelServerConfig, serialized: the same on the wire
    "ReloadConfigResponse": {"status": (1, "StatusProto")},
    "SamplingConfig": {"sampling_rate": (1, "double")},
    "LogMetadata": {
        "model_spec": (1, "ModelSpec"),
        "sampling_config": (2, "SamplingConfig"),
        "saved_model_tags": (3, "[string]"),
        "timestamp_secs": (4, "int64"),
    },
    "PredictLog": {"request": (1, "PredictRequest"), "response": (2, "PredictResponse")},
    "PredictionLog": {"log_metadata": (1, "LogMetadata"), "predict_log": (6, "PredictLog")},
}


_CLASSES = declare_messages(
    "tfmmrank/serving_wire.proto", "tfmmrank.serving_wire", _MESSAGES, descriptor_pool.DescriptorPool()
)

GetModelMetadataRequest: Any = _CLASSES["GetModelMetadataRequest"]
GetModelMetadataResponse: Any = _CLASSES["GetModelMetadataResponse"]
GetModelStatusRequest: Any = _CLASSES["GetModelStatusRequest"]
GetModelStatusResponse: Any = _CLASSES["GetModelStatusResponse"]
ModelSpec: Any = _CLASSES["ModelSpec"]
PredictRequest: Any = _CLASSES["PredictRequest"]
PredictResponse: Any = _CLASSES["PredictResponse"]
PredictionLog: Any = _CLASSES["PredictionLog"]
ReloadConfigRequest: Any = _CLASSES["ReloadConfigRequest"]
ReloadConfigResponse: Any = _CLASSES["ReloadConfigResponse"]
SignatureDefMap: Any = _CLASSES["SignatureDefMap"]
TensorProto: Any = _CLASSES["TensorProto"]

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
