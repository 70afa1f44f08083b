from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelReadyToDeploy(_message.Message):
    __slots__ = ("event_id", "correlation_id", "source", "occurred_at", "model", "artifact", "evaluation", "promotion", "runtime", "provenance", "metrics", "labels", "traceparent")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    correlation_id: str
    source: str
    occurred_at: _timestamp_pb2.Timestamp
    model: ModelVersion
    artifact: Artifact
    evaluation: Evaluation
    promotion: Promotion
    runtime: Runtime
    provenance: Provenance
    metrics: _containers.ScalarMap[str, float]
    labels: _containers.ScalarMap[str, str]
    traceparent: str
    def __init__(self, event_id: _Optional[str] = ..., correlation_id: _Optional[str] = ..., source: _Optional[str] = ..., occurred_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., artifact: _Optional[_Union[Artifact, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., promotion: _Optional[_Union[Promotion, _Mapping]] = ..., runtime: _Optional[_Union[Runtime, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., labels: _Optional[_Mapping[str, str]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("name", "version", "uri")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    uri: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., uri: _Optional[str] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("uri", "digest", "media_type", "size_bytes")
    URI_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    uri: str
    digest: str
    media_type: str
    size_bytes: int
    def __init__(self, uri: _Optional[str] = ..., digest: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("metric_name", "baseline_value", "current_value")
    METRIC_NAME_FIELD_NUMBER: _ClassVar[int]
    BASELINE_VALUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_VALUE_FIELD_NUMBER: _ClassVar[int]
    metric_name: str
    baseline_value: float
    current_value: float
    def __init__(self, metric_name: _Optional[str] = ..., baseline_value: _Optional[float] = ..., current_value: _Optional[float] = ...) -> None: ...

class Promotion(_message.Message):
    __slots__ = ("environment", "alias", "previous_version", "approved_by", "reason")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    environment: str
    alias: str
    previous_version: str
    approved_by: str
    reason: str
    def __init__(self, environment: _Optional[str] = ..., alias: _Optional[str] = ..., previous_version: _Optional[str] = ..., approved_by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Runtime(_message.Message):
    __slots__ = ("framework", "framework_version", "image", "signature")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    framework: str
    framework_version: str
    image: str
    signature: str
    def __init__(self, framework: _Optional[str] = ..., framework_version: _Optional[str] = ..., image: _Optional[str] = ..., signature: _Optional[str] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("run_id", "code_uri", "dataset_uris")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_URI_FIELD_NUMBER: _ClassVar[int]
    DATASET_URIS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    code_uri: str
    dataset_uris: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_id: _Optional[str] = ..., code_uri: _Optional[str] = ..., dataset_uris: _Optional[_Iterable[str]] = ...) -> None: ...
