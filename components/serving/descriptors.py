"""Descriptors of TensorFlow Serving's messages, in a pool that no other code shares."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, wrappers_pb2

# One line is one field: number, name, type. `*` is repeated, `?` optional with
# presence, `{a: b}` a map, and what follows `@` the oneof the field belongs to. A type
# is looked for as protoc does: in the message, then in what encloses it.
_TENSORFLOW = """
TensorShapeProto
  2 dim Dim*
  3 unknown_rank bool
TensorShapeProto.Dim
  1 size int64
  2 name string
TensorProto
  1 dtype DataType
  2 tensor_shape TensorShapeProto
  3 version_number int32
  4 tensor_content bytes
  5 float_val float*
  6 double_val double*
  7 int_val int32*
  8 string_val bytes*
  9 scomplex_val float*
  10 int64_val int64*
  11 bool_val bool*
  12 dcomplex_val double*
  13 half_val int32*
  14 resource_handle_val ResourceHandleProto*
  15 variant_val VariantTensorDataProto*
  16 uint32_val uint32*
  17 uint64_val uint64*
  18 float8_val bytes
VariantTensorDataProto
  1 type_name string
  2 metadata bytes
  3 tensors TensorProto*
ResourceHandleProto
  1 device string
  2 container string
  3 name string
  4 hash_code uint64
  5 maybe_type_name string
  6 dtypes_and_shapes DtypeAndShape*
ResourceHandleProto.DtypeAndShape
  1 dtype DataType
  2 shape TensorShapeProto
SignatureDef
  1 inputs {string: TensorInfo}
  2 outputs {string: TensorInfo}
  3 method_name string
  4 defaults {string: TensorProto}
TensorInfo
  1 name string @encoding
  2 dtype DataType
  3 tensor_shape TensorShapeProto
  4 coo_sparse CooSparse @encoding
  5 composite_tensor CompositeTensor @encoding
TensorInfo.CooSparse
  1 values_tensor_name string
  2 indices_tensor_name string
  3 dense_shape_tensor_name string
TensorInfo.CompositeTensor
  1 type_spec TypeSpecProto
  2 components TensorInfo*
TypeSpecProto
"""

_TYPES = [
    "DT_INVALID",
    "DT_FLOAT",
    "DT_DOUBLE",
    "DT_INT32",
    "DT_UINT8",
    "DT_INT16",
    "DT_INT8",
    "DT_STRING",
    "DT_COMPLEX64",
    "DT_INT64",
    "DT_BOOL",
    "DT_QINT8",
    "DT_QUINT8",
    "DT_QINT32",
    "DT_BFLOAT16",
    "DT_QINT16",
    "DT_QUINT16",
    "DT_UINT16",
    "DT_COMPLEX128",
    "DT_HALF",
    "DT_RESOURCE",
    "DT_VARIANT",
    "DT_UINT32",
    "DT_UINT64",
    "DT_FLOAT8_E5M2",
    "DT_FLOAT8_E4M3FN",
    "DT_FLOAT8_E4M3FNUZ",
    "DT_FLOAT8_E4M3B11FNUZ",
    "DT_FLOAT8_E5M2FNUZ",
    "DT_INT4",
    "DT_UINT4",
    "DT_INT2",
    "DT_UINT2",
    "DT_FLOAT4_E2M1FN",
]

_SERVING = """
ModelSpec
  1 name string
  2 version google.protobuf.Int64Value @version_choice
  3 signature_name string
  4 version_label string @version_choice
StatusProto
  1 error_code tensorflow.error.Code
  2 error_message string
GetModelStatusRequest
  1 model_spec ModelSpec
ModelVersionStatus
  1 version int64
  2 state State
  3 status StatusProto
GetModelStatusResponse
  1 model_version_status ModelVersionStatus*
ReloadConfigRequest
  1 config ModelServerConfig
  2 metric_names string*
ReloadConfigResponse
  1 status StatusProto
  2 metric Metric*
Metric
  1 name string
  2 int64_value_increase int64 @value_increase
ModelServerConfig
  1 model_config_list ModelConfigList @config
  2 custom_model_config google.protobuf.Any @config
ModelConfigList
  1 config ModelConfig*
ModelConfig
  1 name string
  2 base_path string
  3 model_type ModelType
  4 model_platform string
  6 logging_config LoggingConfig
  7 model_version_policy FileSystemStoragePathSourceConfig.ServableVersionPolicy
  8 version_labels {string: int64}
FileSystemStoragePathSourceConfig
FileSystemStoragePathSourceConfig.ServableVersionPolicy
  100 latest Latest @policy_choice
  101 all All @policy_choice
  102 specific Specific @policy_choice
FileSystemStoragePathSourceConfig.ServableVersionPolicy.Latest
  1 num_versions uint32
FileSystemStoragePathSourceConfig.ServableVersionPolicy.All
FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific
  1 versions int64*
LoggingConfig
  1 log_collector_config LogCollectorConfig
  2 sampling_config SamplingConfig
  3 custom_logging_config google.protobuf.Any
LogCollectorConfig
  1 type string
  2 filename_prefix string
SamplingConfig
  1 sampling_rate double
  2 attributes int32
PredictRequest
  1 model_spec ModelSpec
  2 inputs {string: TensorProto}
  3 output_filter string*
  5 predict_streamed_options PredictStreamedOptions
  6 client_id bytes?
  7 request_options RequestOptions?
PredictRequest.RequestOptions
PredictStreamedOptions
PredictResponse
  1 outputs {string: TensorProto}
  2 model_spec ModelSpec
Input
ClassificationRequest
  1 model_spec ModelSpec
  2 input Input
Class
  1 label string
  2 score float
Classifications
  1 classes Class*
ClassificationResult
  1 classifications Classifications*
ClassificationResponse
  1 result ClassificationResult
  2 model_spec ModelSpec
RegressionRequest
  1 model_spec ModelSpec
  2 input Input
Regression
  1 value float
RegressionResult
  1 regressions Regression*
RegressionResponse
  1 result RegressionResult
  2 model_spec ModelSpec
InferenceTask
  1 model_spec ModelSpec
  2 method_name string
InferenceResult
  1 model_spec ModelSpec
  2 classification_result ClassificationResult @result
  3 regression_result RegressionResult @result
MultiInferenceRequest
  1 tasks InferenceTask*
  2 input Input
MultiInferenceResponse
  1 results InferenceResult*
GetModelMetadataRequest
  1 model_spec ModelSpec
  2 metadata_field string*
GetModelMetadataResponse
  1 model_spec ModelSpec
  2 metadata {string: google.protobuf.Any}
SignatureDefMap
  1 signature_def {string: tensorflow.SignatureDef}
LogMetadata
  1 model_spec ModelSpec
  2 sampling_config SamplingConfig
  3 saved_model_tags string*
  4 timestamp_secs int64
  5 dc string
  6 request_origin string
  7 request_criticality string
  8 safe_aggregation_privacy_key int64
ClassifyLog
  1 request ClassificationRequest
  2 response ClassificationResponse
RegressLog
  1 request RegressionRequest
  2 response RegressionResponse
PredictLog
  1 request PredictRequest
  2 response PredictResponse
PredictStreamedLog
  1 request PredictRequest*
  2 response PredictResponse*
MultiInferenceLog
  1 request MultiInferenceRequest
  2 response MultiInferenceResponse
SessionRunLog
PredictionLog
  1 log_metadata LogMetadata
  2 classify_log ClassifyLog @log_type
  3 regress_log RegressLog @log_type
  4 multi_inference_log MultiInferenceLog @log_type
  5 session_run_log SessionRunLog @log_type
  6 predict_log PredictLog @log_type
  7 predict_streamed_log PredictStreamedLog @log_type
"""


class State(IntEnum):
    """State of a version in a server."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Code(IntEnum):
    """Code of a status; the numbers are gRPC's."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_ENUMS: dict[str, dict[str, int]] = {
    "tensorflow.DataType": {
        **{name: number for number, name in enumerate(_TYPES)},
        **{f"{name}_REF": 100 + number for number, name in enumerate(_TYPES) if number},
    },
    "tensorflow.error.Code": {code.name: code.value for code in Code},
    "tensorflow.serving.ModelVersionStatus.State": {
        state.name: state.value for state in State
    },
    "tensorflow.serving.ModelType": {
        "MODEL_TYPE_UNSPECIFIED": 0,
        "TENSORFLOW": 1,
        "OTHER": 2,
    },
    "tensorflow.serving.SamplingConfig.Attributes": {
        "ATTR_DEFAULT": 0,
        "ATTR_REQUEST_ORIGIN": 1,
        "ATTR_REQUEST_CRITICALITY": 2,
    },
}

_FIELD = re.compile(r"(\d+) (\w+) (?:\{(\w+): ([\w.]+)\}|([\w.]+)([*?]?))(?: @(\w+))?")
_Field = descriptor_pb2.FieldDescriptorProto


def message_pool() -> Any:
    """Return a descriptor pool that holds the messages of this module and no other."""
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    files = ["google/protobuf/any.proto", "google/protobuf/wrappers.proto"]
    known = {"google.protobuf.Any", "google.protobuf.Int64Value", *_ENUMS}
    tables = {
        "tensorflow": _TENSORFLOW,
        "tensorflow.error": "",
        "tensorflow.serving": _SERVING,
    }
    for package, table in tables.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto3", dependency=files
        )
        made = {package: file}
        fields: list[tuple[str, str]] = []
        name = package
        for line in filter(None, table.split("\n")):
            if line.startswith(" "):
                fields.append((name, line.strip()))
            else:
                name = f"{package}.{line}"
                parent, _, last = name.rpartition(".")
                siblings = getattr(made[parent], "message_type", None)
                if siblings is None:
                    siblings = made[parent].nested_type
                made[name] = siblings.add(name=last)
        known |= set(made)
        for name, field in fields:
            _add_field(made[name], name, field, known)
        for name, values in _ENUMS.items():
            parent, _, last = name.rpartition(".")
            if parent in made:
                enum = made[parent].enum_type.add(name=last)
                for value, number in values.items():
                    enum.value.add(name=value, number=number)
        pool.Add(file)
        files.append(file.name)
    return pool


def _add_field(message: Any, scope: str, line: str, known: set[str]) -> None:
    match = _FIELD.fullmatch(line)
    assert match is not None, line
    number, name, key, value, kind, mark, oneof = match.groups()
    field = message.field.add(
        name=name, number=int(number), label=_Field.LABEL_OPTIONAL
    )
    if key:
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, scope, f"1 key {key}", known)
        _add_field(entry, scope, f"2 value {value}", known)
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{scope}.{entry_name}"
    else:
        _set_type(field, scope, kind, known)
    if key or mark == "*":
        field.label = _Field.LABEL_REPEATED
    # protoc keeps the presence of an optional field in a oneof of its own.
    if mark == "?":
        field.proto3_optional = True
        oneof = f"_{name}"
    if oneof:
        oneofs = [known_oneof.name for known_oneof in message.oneof_decl]
        if oneof not in oneofs:
            message.oneof_decl.add(name=oneof)
            oneofs.append(oneof)
        field.oneof_index = oneofs.index(oneof)


def _set_type(field: Any, scope: str, kind: str, known: set[str]) -> None:
    scalar = f"TYPE_{kind.upper()}"
    if scalar in (kind.name for kind in _Field.Type.DESCRIPTOR.values):
        field.type = _Field.Type.Value(scalar)
        return
    parts = scope.split(".")
    places = [".".join([*parts[:n], kind]) for n in range(len(parts), -1, -1)]
    full = next(place for place in places if place in known)
    field.type = _Field.TYPE_ENUM if full in _ENUMS else _Field.TYPE_MESSAGE
    field.type_name = f".{full}"
