from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelready.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplayTarget(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLAY_TARGET_UNSPECIFIED: _ClassVar[ReplayTarget]
    REPLAY_TARGET_ORIGIN: _ClassVar[ReplayTarget]
    REPLAY_TARGET_ALL: _ClassVar[ReplayTarget]
REPLAY_TARGET_UNSPECIFIED: ReplayTarget
REPLAY_TARGET_ORIGIN: ReplayTarget
REPLAY_TARGET_ALL: ReplayTarget

class GetQueueStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQueueStatusResponse(_message.Message):
    __slots__ = ("queue", "stream", "redis_up", "redis_error", "stream_length", "dead_letters", "groups", "spool", "list", "redis", "dead_letter_reasons", "oldest_dead_letter_at", "dedup_keys", "promise", "trim", "lists", "outbox")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    REDIS_UP_FIELD_NUMBER: _ClassVar[int]
    REDIS_ERROR_FIELD_NUMBER: _ClassVar[int]
    STREAM_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SPOOL_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    REDIS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_REASONS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_DEAD_LETTER_AT_FIELD_NUMBER: _ClassVar[int]
    DEDUP_KEYS_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    TRIM_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    queue: str
    stream: str
    redis_up: bool
    redis_error: str
    stream_length: int
    dead_letters: int
    groups: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    spool: SpoolStatus
    list: ListStatus
    redis: RedisStatus
    dead_letter_reasons: _containers.RepeatedCompositeFieldContainer[DeadLetterCount]
    oldest_dead_letter_at: _timestamp_pb2.Timestamp
    dedup_keys: int
    promise: PromiseStatus
    trim: TrimStatus
    lists: _containers.RepeatedCompositeFieldContainer[ListStatus]
    outbox: OutboxStatus
    def __init__(self, queue: _Optional[str] = ..., stream: _Optional[str] = ..., redis_up: bool = ..., redis_error: _Optional[str] = ..., stream_length: _Optional[int] = ..., dead_letters: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ..., spool: _Optional[_Union[SpoolStatus, _Mapping]] = ..., list: _Optional[_Union[ListStatus, _Mapping]] = ..., redis: _Optional[_Union[RedisStatus, _Mapping]] = ..., dead_letter_reasons: _Optional[_Iterable[_Union[DeadLetterCount, _Mapping]]] = ..., oldest_dead_letter_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., dedup_keys: _Optional[int] = ..., promise: _Optional[_Union[PromiseStatus, _Mapping]] = ..., trim: _Optional[_Union[TrimStatus, _Mapping]] = ..., lists: _Optional[_Iterable[_Union[ListStatus, _Mapping]]] = ..., outbox: _Optional[_Union[OutboxStatus, _Mapping]] = ...) -> None: ...

class RedisStatus(_message.Message):
    __slots__ = ("engine", "version", "role", "latency", "used_memory_bytes", "max_memory_bytes", "eviction_policy", "replicas", "cluster")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    USED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    EVICTION_POLICY_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    engine: str
    version: str
    role: str
    latency: _duration_pb2.Duration
    used_memory_bytes: int
    max_memory_bytes: int
    eviction_policy: str
    replicas: int
    cluster: bool
    def __init__(self, engine: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[str] = ..., latency: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., used_memory_bytes: _Optional[int] = ..., max_memory_bytes: _Optional[int] = ..., eviction_policy: _Optional[str] = ..., replicas: _Optional[int] = ..., cluster: bool = ...) -> None: ...

class DeadLetterCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    count: int
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class PromiseStatus(_message.Message):
    __slots__ = ("summary", "accepting", "spooling", "pending", "reason")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTING_FIELD_NUMBER: _ClassVar[int]
    SPOOLING_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    summary: str
    accepting: bool
    spooling: bool
    pending: int
    reason: str
    def __init__(self, summary: _Optional[str] = ..., accepting: bool = ..., spooling: bool = ..., pending: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class TrimStatus(_message.Message):
    __slots__ = ("retention", "oldest_entry_at", "held_back_by", "max_depth")
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_ENTRY_AT_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_BY_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    retention: _duration_pb2.Duration
    oldest_entry_at: _timestamp_pb2.Timestamp
    held_back_by: str
    max_depth: int
    def __init__(self, retention: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., oldest_entry_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., held_back_by: _Optional[str] = ..., max_depth: _Optional[int] = ...) -> None: ...

class GroupStatus(_message.Message):
    __slots__ = ("name", "depth", "pending", "consumers", "oldest_unacknowledged_at", "undelivered", "idle")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_UNACKNOWLEDGED_AT_FIELD_NUMBER: _ClassVar[int]
    UNDELIVERED_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    depth: int
    pending: int
    consumers: int
    oldest_unacknowledged_at: _timestamp_pb2.Timestamp
    undelivered: int
    idle: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., depth: _Optional[int] = ..., pending: _Optional[int] = ..., consumers: _Optional[int] = ..., oldest_unacknowledged_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., undelivered: _Optional[int] = ..., idle: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SpoolStatus(_message.Message):
    __slots__ = ("depth", "bytes", "max_bytes", "oldest_at", "free_bytes", "error")
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AT_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    depth: int
    bytes: int
    max_bytes: int
    oldest_at: _timestamp_pb2.Timestamp
    free_bytes: int
    error: str
    def __init__(self, depth: _Optional[int] = ..., bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ..., oldest_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., free_bytes: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class OutboxStatus(_message.Message):
    __slots__ = ("depth", "oldest_age", "refused", "error")
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    depth: int
    oldest_age: _duration_pb2.Duration
    refused: int
    error: str
    def __init__(self, depth: _Optional[int] = ..., oldest_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., refused: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class ListStatus(_message.Message):
    __slots__ = ("name", "depth", "processing", "dead_letters", "processing_key", "dead_letters_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_KEY_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    depth: int
    processing: int
    dead_letters: int
    processing_key: str
    dead_letters_key: str
    def __init__(self, name: _Optional[str] = ..., depth: _Optional[int] = ..., processing: _Optional[int] = ..., dead_letters: _Optional[int] = ..., processing_key: _Optional[str] = ..., dead_letters_key: _Optional[str] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("id", "event_id", "reason", "detail", "origin", "attempts", "first_at", "last_at", "dead_at", "entry_id", "subject", "correlation_id", "event", "data", "content_type")
    ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    DEAD_AT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    id: str
    event_id: str
    reason: str
    detail: str
    origin: str
    attempts: int
    first_at: _timestamp_pb2.Timestamp
    last_at: _timestamp_pb2.Timestamp
    dead_at: _timestamp_pb2.Timestamp
    entry_id: str
    subject: str
    correlation_id: str
    event: _event_pb2.ModelReadyToDeploy
    data: bytes
    content_type: str
    def __init__(self, id: _Optional[str] = ..., event_id: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., origin: _Optional[str] = ..., attempts: _Optional[int] = ..., first_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., dead_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., entry_id: _Optional[str] = ..., subject: _Optional[str] = ..., correlation_id: _Optional[str] = ..., event: _Optional[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]] = ..., data: _Optional[bytes] = ..., content_type: _Optional[str] = ...) -> None: ...

class DeadLetterFilter(_message.Message):
    __slots__ = ("reason", "model", "origin", "older_than", "newer_than")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    NEWER_THAN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    model: str
    origin: str
    older_than: _duration_pb2.Duration
    newer_than: _duration_pb2.Duration
    def __init__(self, reason: _Optional[str] = ..., model: _Optional[str] = ..., origin: _Optional[str] = ..., older_than: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., newer_than: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListDeadLettersRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: DeadLetterFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeadLettersResponse(_message.Message):
    __slots__ = ("dead_letters", "next_page_token")
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    dead_letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    next_page_token: str
    def __init__(self, dead_letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetDeadLetterRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetDeadLetterResponse(_message.Message):
    __slots__ = ("dead_letter",)
    DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    dead_letter: DeadLetter
    def __init__(self, dead_letter: _Optional[_Union[DeadLetter, _Mapping]] = ...) -> None: ...

class DeadLetterIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSelection(_message.Message):
    __slots__ = ("name", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    limit: int
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ReplayDeadLettersRequest(_message.Message):
    __slots__ = ("ids", "filter", "list", "target", "dry_run", "max_per_second")
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ids: DeadLetterIds
    filter: DeadLetterFilter
    list: ListSelection
    target: ReplayTarget
    dry_run: bool
    max_per_second: float
    def __init__(self, ids: _Optional[_Union[DeadLetterIds, _Mapping]] = ..., filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., list: _Optional[_Union[ListSelection, _Mapping]] = ..., target: _Optional[_Union[ReplayTarget, str]] = ..., dry_run: bool = ..., max_per_second: _Optional[float] = ...) -> None: ...

class ReplayDeadLettersResponse(_message.Message):
    __slots__ = ("replayed", "missing", "skipped")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    replayed: int
    missing: int
    skipped: int
    def __init__(self, replayed: _Optional[int] = ..., missing: _Optional[int] = ..., skipped: _Optional[int] = ...) -> None: ...

class DiscardDeadLettersRequest(_message.Message):
    __slots__ = ("ids", "filter", "dry_run")
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ids: DeadLetterIds
    filter: DeadLetterFilter
    dry_run: bool
    def __init__(self, ids: _Optional[_Union[DeadLetterIds, _Mapping]] = ..., filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., dry_run: bool = ...) -> None: ...

class DiscardDeadLettersResponse(_message.Message):
    __slots__ = ("discarded", "missing")
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    discarded: int
    missing: int
    def __init__(self, discarded: _Optional[int] = ..., missing: _Optional[int] = ...) -> None: ...

class TailEventsRequest(_message.Message):
    __slots__ = ("last", "group")
    LAST_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    last: int
    group: str
    def __init__(self, last: _Optional[int] = ..., group: _Optional[str] = ...) -> None: ...

class TailEventsResponse(_message.Message):
    __slots__ = ("entry_id", "event")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    event: _event_pb2.ModelReadyToDeploy
    def __init__(self, entry_id: _Optional[str] = ..., event: _Optional[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]] = ...) -> None: ...
