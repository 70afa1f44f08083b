from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelReadyToDeploy(_message.Message):
    """ModelReadyToDeploy says that one version of a model is ready to be deployed.

    model.name, model.version and artifact.uri are required; everything else is optional. The sidecar fills in
    event_id, correlation_id, source and occurred_at if the caller leaves them empty.
    """
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
    """The idempotency key: an event with the same id is not queued again within the dedup window.
    1 to 128 visible ASCII characters. If it is empty, the sidecar generates a UUIDv7. A retry is not safe
    then, so the clients always set it.
    """
    correlation_id: str
    """Follows the event through logs, entries, receipts and dead letters. If it is empty, the sidecar takes the
    gRPC metadata key x-correlation-id, or generates one.
    """
    source: str
    """The registry that publishes, as a URI reference, e.g. "//registry.prod". If it is empty: SIDECAR_SOURCE."""
    occurred_at: _timestamp_pb2.Timestamp
    """When the version became ready. If it is empty: the time when the sidecar accepted the event."""
    model: ModelVersion
    """The model version that is ready."""
    artifact: Artifact
    """Where the files of the version are."""
    evaluation: Evaluation
    """Why it is ready: the metric that was compared."""
    promotion: Promotion
    """Where it shall be deployed, and who approved it."""
    runtime: Runtime
    """What it needs to run."""
    provenance: Provenance
    """Where it comes from."""
    metrics: _containers.ScalarMap[str, float]
    """Further metrics by name. At most 100, each finite."""
    labels: _containers.ScalarMap[str, str]
    """Free labels, e.g. team or token_symbol. At most 64. Never credentials: consumers and logs see them."""
    traceparent: str
    """The W3C trace context of the caller, "00-<trace id>-<parent id>-<flags>". If it is empty, the sidecar takes
    the gRPC metadata key traceparent, if there is one.
    """
    def __init__(self, event_id: _Optional[str] = ..., correlation_id: _Optional[str] = ..., source: _Optional[str] = ..., occurred_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., artifact: _Optional[_Union[Artifact, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., promotion: _Optional[_Union[Promotion, _Mapping]] = ..., runtime: _Optional[_Union[Runtime, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., labels: _Optional[_Mapping[str, str]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class ModelVersion(_message.Message):
    """ModelVersion names one version of a model."""
    __slots__ = ("name", "version", "uri")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    name: str
    """The model's name. Events of one name stay in order. 1 to 256 characters, no control characters."""
    version: str
    """The version: a string, since registries disagree about what a version is. 1 to 128 characters, no control
    characters.
    """
    uri: str
    """Where the registry shows this version, e.g. "models:/fraud/7". No password and no pre-signed query."""
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., uri: _Optional[str] = ...) -> None: ...

class Artifact(_message.Message):
    """Artifact says where the files of a model version are."""
    __slots__ = ("uri", "digest", "media_type", "size_bytes")
    URI_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    uri: str
    """The location, e.g. "s3://models/fraud/7/". No password and no pre-signed query: the event is kept for longer
    than they are valid, and every consumer reads it.
    """
    digest: str
    """The digest of the content, "sha256:" and 64 lower-case hexadecimal digits."""
    media_type: str
    """The media type, e.g. "application/vnd.mlflow.model"."""
    size_bytes: int
    """The size in bytes; 0 if it is not known."""
    def __init__(self, uri: _Optional[str] = ..., digest: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    """Evaluation is the comparison that made the version ready."""
    __slots__ = ("metric_name", "baseline_value", "current_value")
    METRIC_NAME_FIELD_NUMBER: _ClassVar[int]
    BASELINE_VALUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_VALUE_FIELD_NUMBER: _ClassVar[int]
    metric_name: str
    """The metric's name, e.g. "auc"."""
    baseline_value: float
    """The metric of the version that was in use before."""
    current_value: float
    """The metric of this version."""
    def __init__(self, metric_name: _Optional[str] = ..., baseline_value: _Optional[float] = ..., current_value: _Optional[float] = ...) -> None: ...

class Promotion(_message.Message):
    """Promotion says where the version shall be deployed."""
    __slots__ = ("environment", "alias", "previous_version", "approved_by", "reason")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    environment: str
    """The environment, e.g. "production"."""
    alias: str
    """The alias or stage that it gets, e.g. "champion"."""
    previous_version: str
    """The version to roll back to."""
    approved_by: str
    """Who approved it."""
    reason: str
    """Why, as free text."""
    def __init__(self, environment: _Optional[str] = ..., alias: _Optional[str] = ..., previous_version: _Optional[str] = ..., approved_by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Runtime(_message.Message):
    """Runtime says what the version needs to run."""
    __slots__ = ("framework", "framework_version", "image", "signature")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    framework: str
    """The framework, e.g. "xgboost"."""
    framework_version: str
    """The framework's version, e.g. "2.1.3"."""
    image: str
    """The container image to serve it with."""
    signature: str
    """The signature of inputs and outputs, as JSON. At most 32 KiB."""
    def __init__(self, framework: _Optional[str] = ..., framework_version: _Optional[str] = ..., image: _Optional[str] = ..., signature: _Optional[str] = ...) -> None: ...

class Provenance(_message.Message):
    """Provenance says where the version comes from."""
    __slots__ = ("run_id", "code_uri", "dataset_uris")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_URI_FIELD_NUMBER: _ClassVar[int]
    DATASET_URIS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    """The run that trained it, e.g. an MLflow run id."""
    code_uri: str
    """The code, e.g. a repository with its commit. No password and no pre-signed query."""
    dataset_uris: _containers.RepeatedScalarFieldContainer[str]
    """The data it was trained on. At most 32, none with a password or a pre-signed query."""
    def __init__(self, run_id: _Optional[str] = ..., code_uri: _Optional[str] = ..., dataset_uris: _Optional[_Iterable[str]] = ...) -> None: ...
