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
    """ReplayTarget says which consumers a replayed event reaches."""
    __slots__ = ()
    REPLAY_TARGET_UNSPECIFIED: _ClassVar[ReplayTarget]
    """The same as REPLAY_TARGET_ORIGIN."""
    REPLAY_TARGET_ORIGIN: _ClassVar[ReplayTarget]
    """Only the group that gave it up; all groups if the sidecar gave it up."""
    REPLAY_TARGET_ALL: _ClassVar[ReplayTarget]
    """All groups, and the mirror lists."""
REPLAY_TARGET_UNSPECIFIED: ReplayTarget
REPLAY_TARGET_ORIGIN: ReplayTarget
REPLAY_TARGET_ALL: ReplayTarget

class GetQueueStatusRequest(_message.Message):
    """GetQueueStatusRequest asks for the status; it has no parameters."""
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQueueStatusResponse(_message.Message):
    """GetQueueStatusResponse is the status of one queue."""
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
    """The queue's name, QUEUE_NAME."""
    stream: str
    """The key of the stream."""
    redis_up: bool
    """Whether Redis answered this call."""
    redis_error: str
    """What is wrong with Redis, in one line; empty when it is up."""
    stream_length: int
    """Entries in the stream; 0 while Redis is away."""
    dead_letters: int
    """Entries in the dead-letter stream; 0 while Redis is away."""
    groups: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    """The consumer groups; none while Redis is away."""
    spool: SpoolStatus
    """The spool on this task's disk."""
    list: ListStatus
    """The first mirror list; unset without QUEUE_LIST."""
    redis: RedisStatus
    """The server that answered; unset while Redis is away."""
    dead_letter_reasons: _containers.RepeatedCompositeFieldContainer[DeadLetterCount]
    """The dead letters by reason, the most frequent first. Only the oldest 10,000 are counted."""
    oldest_dead_letter_at: _timestamp_pb2.Timestamp
    """When the oldest dead letter was written; unset when there is none."""
    dedup_keys: int
    """About how many dedup keys there are: one for each event appended within QUEUE_DEDUP_SECONDS."""
    promise: PromiseStatus
    """What this sidecar does with a new event at this moment."""
    trim: TrimStatus
    """The state of trimming; unset while Redis is away."""
    lists: _containers.RepeatedCompositeFieldContainer[ListStatus]
    """All mirror lists, in the order of QUEUE_LIST; none while Redis is away."""
    outbox: OutboxStatus
    """The registry's outbox that this sidecar empties; unset without OUTBOX_URL."""
    def __init__(self, queue: _Optional[str] = ..., stream: _Optional[str] = ..., redis_up: bool = ..., redis_error: _Optional[str] = ..., stream_length: _Optional[int] = ..., dead_letters: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ..., spool: _Optional[_Union[SpoolStatus, _Mapping]] = ..., list: _Optional[_Union[ListStatus, _Mapping]] = ..., redis: _Optional[_Union[RedisStatus, _Mapping]] = ..., dead_letter_reasons: _Optional[_Iterable[_Union[DeadLetterCount, _Mapping]]] = ..., oldest_dead_letter_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., dedup_keys: _Optional[int] = ..., promise: _Optional[_Union[PromiseStatus, _Mapping]] = ..., trim: _Optional[_Union[TrimStatus, _Mapping]] = ..., lists: _Optional[_Iterable[_Union[ListStatus, _Mapping]]] = ..., outbox: _Optional[_Union[OutboxStatus, _Mapping]] = ...) -> None: ...

class RedisStatus(_message.Message):
    """RedisStatus describes the Redis node that holds the queue."""
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
    """"redis" or "valkey"."""
    version: str
    """The engine's version, such as "8.0.2"."""
    role: str
    """"master" or "slave", as Redis calls them; empty if the sidecar's ACL user may not ask."""
    latency: _duration_pb2.Duration
    """How long one authenticated round trip took."""
    used_memory_bytes: int
    """Memory in use, in bytes."""
    max_memory_bytes: int
    """The memory limit in bytes; 0 for none."""
    eviction_policy: str
    """What Redis does at the limit. With any policy but "noeviction" it may delete keys of the queue."""
    replicas: int
    """Replicas connected to the node."""
    cluster: bool
    """Whether the node is part of a cluster."""
    def __init__(self, engine: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[str] = ..., latency: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., used_memory_bytes: _Optional[int] = ..., max_memory_bytes: _Optional[int] = ..., eviction_policy: _Optional[str] = ..., replicas: _Optional[int] = ..., cluster: bool = ...) -> None: ...

class DeadLetterCount(_message.Message):
    """DeadLetterCount is the number of dead letters with one reason."""
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    """The reason, a constant such as "TOO_OLD"."""
    count: int
    """How many have it."""
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class PromiseStatus(_message.Message):
    """PromiseStatus is what a caller of Publish gets at this moment."""
    __slots__ = ("summary", "accepting", "spooling", "pending", "reason")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTING_FIELD_NUMBER: _ClassVar[int]
    SPOOLING_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    summary: str
    """One line for people, such as "acknowledged by the Redis primary"."""
    accepting: bool
    """Whether an event is accepted at all."""
    spooling: bool
    """Whether events go to the spool instead of to Redis."""
    pending: int
    """Events that wait in memory for their acknowledgement."""
    reason: str
    """Why the Redis primary does not acknowledge them, a constant such as "REDIS_AUTH_FAILED"; empty while it does."""
    def __init__(self, summary: _Optional[str] = ..., accepting: bool = ..., spooling: bool = ..., pending: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class TrimStatus(_message.Message):
    """TrimStatus is the state of trimming, which removes entries that every group has acknowledged."""
    __slots__ = ("retention", "oldest_entry_at", "held_back_by", "max_depth")
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_ENTRY_AT_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_BY_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    retention: _duration_pb2.Duration
    """How long acknowledged entries are kept, QUEUE_RETENTION_SECONDS; 0 if nothing is ever removed."""
    oldest_entry_at: _timestamp_pb2.Timestamp
    """When the oldest entry of the stream was appended; unset when there is none."""
    held_back_by: str
    """The group that has not acknowledged entries older than the retention; empty if there is none."""
    max_depth: int
    """The most unacknowledged entries, QUEUE_MAX_DEPTH; 0 for no limit."""
    def __init__(self, retention: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., oldest_entry_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., held_back_by: _Optional[str] = ..., max_depth: _Optional[int] = ...) -> None: ...

class GroupStatus(_message.Message):
    """GroupStatus is the progress of one consumer group."""
    __slots__ = ("name", "depth", "pending", "consumers", "oldest_unacknowledged_at", "undelivered", "idle")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_UNACKNOWLEDGED_AT_FIELD_NUMBER: _ClassVar[int]
    UNDELIVERED_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    """The group's name."""
    depth: int
    """Entries that the group has not acknowledged: undelivered and pending."""
    pending: int
    """Entries delivered to a consumer and not yet acknowledged."""
    consumers: int
    """Consumers known to the group."""
    oldest_unacknowledged_at: _timestamp_pb2.Timestamp
    """When its oldest unacknowledged entry was appended; unset when there is none."""
    undelivered: int
    """Entries not yet delivered to any of its consumers."""
    idle: _duration_pb2.Duration
    """How long ago one of its consumers last asked Redis for something; unset if the group has no consumer."""
    def __init__(self, name: _Optional[str] = ..., depth: _Optional[int] = ..., pending: _Optional[int] = ..., consumers: _Optional[int] = ..., oldest_unacknowledged_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., undelivered: _Optional[int] = ..., idle: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SpoolStatus(_message.Message):
    """SpoolStatus is the state of the spool on this task's disk."""
    __slots__ = ("depth", "bytes", "max_bytes", "oldest_at", "free_bytes", "error")
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AT_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    depth: int
    """Events in the spool."""
    bytes: int
    """Their total size in bytes."""
    max_bytes: int
    """The most bytes that the spool may have, SPOOL_MAX_BYTES."""
    oldest_at: _timestamp_pb2.Timestamp
    """When the oldest of them was spooled; unset when there is none."""
    free_bytes: int
    """The free space on its disk in bytes."""
    error: str
    """Why the spool cannot take an event now, in one line; empty if it can."""
    def __init__(self, depth: _Optional[int] = ..., bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ..., oldest_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., free_bytes: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class OutboxStatus(_message.Message):
    """OutboxStatus is the state of a registry's outbox, as its database last said within some seconds."""
    __slots__ = ("depth", "oldest_age", "refused", "error")
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    depth: int
    """Rows that wait, counted up to 100,000."""
    oldest_age: _duration_pb2.Duration
    """How long the oldest of them has waited, and at least how long the database has not answered."""
    refused: int
    """Rows that broke a rule of the contract, and are kept until someone retries or discards them."""
    error: str
    """Why the outbox is not being emptied, in one line; empty while it is."""
    def __init__(self, depth: _Optional[int] = ..., oldest_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., refused: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class ListStatus(_message.Message):
    """ListStatus is the state of one mirror list."""
    __slots__ = ("name", "depth", "processing", "dead_letters", "processing_key", "dead_letters_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_KEY_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    """The list's key."""
    depth: int
    """Messages waiting in the list."""
    processing: int
    """Messages that consumers have in flight."""
    dead_letters: int
    """Messages that consumers have given up."""
    processing_key: str
    """The key of the list of messages in flight, from QUEUE_LIST_PROCESSING."""
    dead_letters_key: str
    """The key of the list of given-up messages, from QUEUE_LIST_DEAD_LETTERS."""
    def __init__(self, name: _Optional[str] = ..., depth: _Optional[int] = ..., processing: _Optional[int] = ..., dead_letters: _Optional[int] = ..., processing_key: _Optional[str] = ..., dead_letters_key: _Optional[str] = ...) -> None: ...

class DeadLetter(_message.Message):
    """DeadLetter is an event that will not be tried again, with what happened to it."""
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
    """The id of its entry in the dead-letter stream. The other calls name it by this id."""
    event_id: str
    """The event's id; empty if the entry could not be decoded."""
    reason: str
    """Why, a constant such as "HANDLER_FAILED" or "TOO_OLD"."""
    detail: str
    """Why, in words; from a consumer, the last line of the traceback."""
    origin: str
    """"sidecar", or "group:<name>" if a consumer group gave it up."""
    attempts: int
    """How often it was tried."""
    first_at: _timestamp_pb2.Timestamp
    """When it was first tried."""
    last_at: _timestamp_pb2.Timestamp
    """When it was last tried."""
    dead_at: _timestamp_pb2.Timestamp
    """When it became a dead letter."""
    entry_id: str
    """The id of its entry in the stream; empty if it never got there."""
    subject: str
    """The model and version, "<name>/<version>"."""
    correlation_id: str
    """The correlation id that followed it."""
    event: _event_pb2.ModelReadyToDeploy
    """The event; only in GetDeadLetter, and if the data can be decoded."""
    data: bytes
    """The entry's data, unchanged; only in GetDeadLetter."""
    content_type: str
    """The data's content type."""
    def __init__(self, id: _Optional[str] = ..., event_id: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., origin: _Optional[str] = ..., attempts: _Optional[int] = ..., first_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., dead_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., entry_id: _Optional[str] = ..., subject: _Optional[str] = ..., correlation_id: _Optional[str] = ..., event: _Optional[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]] = ..., data: _Optional[bytes] = ..., content_type: _Optional[str] = ...) -> None: ...

class DeadLetterFilter(_message.Message):
    """DeadLetterFilter selects the dead letters that match all of its fields. An empty field matches every one."""
    __slots__ = ("reason", "model", "origin", "older_than", "newer_than")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    NEWER_THAN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    """With this reason."""
    model: str
    """Of the model with this name."""
    origin: str
    """With this origin: "sidecar" or "group:<name>"."""
    older_than: _duration_pb2.Duration
    """Dead letters for at least this long."""
    newer_than: _duration_pb2.Duration
    """Dead letters for at most this long."""
    def __init__(self, reason: _Optional[str] = ..., model: _Optional[str] = ..., origin: _Optional[str] = ..., older_than: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., newer_than: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListDeadLettersRequest(_message.Message):
    """ListDeadLettersRequest asks for one page."""
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: DeadLetterFilter
    """Which dead letters; all if it is unset."""
    page_size: int
    """The most per page, 1 to 1000; 0 means 100. A page may have fewer and still not be the last."""
    page_token: str
    """The next_page_token of the previous page; empty for the first page."""
    def __init__(self, filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeadLettersResponse(_message.Message):
    """ListDeadLettersResponse is one page."""
    __slots__ = ("dead_letters", "next_page_token")
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    dead_letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    """The dead letters, the oldest first."""
    next_page_token: str
    """The page_token of the next page; empty on the last page."""
    def __init__(self, dead_letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetDeadLetterRequest(_message.Message):
    """GetDeadLetterRequest names one dead letter."""
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    """DeadLetter.id."""
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetDeadLetterResponse(_message.Message):
    """GetDeadLetterResponse is one dead letter with its event."""
    __slots__ = ("dead_letter",)
    DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    dead_letter: DeadLetter
    """The dead letter."""
    def __init__(self, dead_letter: _Optional[_Union[DeadLetter, _Mapping]] = ...) -> None: ...

class DeadLetterIds(_message.Message):
    """DeadLetterIds names dead letters."""
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    """DeadLetter.id of each; 1 to 1000."""
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSelection(_message.Message):
    """ListSelection selects messages that the consumers of a mirror list have given up."""
    __slots__ = ("name", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    """The list's name, one of QUEUE_LIST."""
    limit: int
    """The most messages, the oldest first; 0 for all that are there when the call begins."""
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ReplayDeadLettersRequest(_message.Message):
    """ReplayDeadLettersRequest says which dead letters to put back, and how."""
    __slots__ = ("ids", "filter", "list", "target", "dry_run", "max_per_second")
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ids: DeadLetterIds
    """The dead letters with these ids."""
    filter: DeadLetterFilter
    """The dead letters that match; an empty filter matches all."""
    list: ListSelection
    """Messages of a mirror list: each goes back to the list, the oldest first, with its attempts counted from 0."""
    target: ReplayTarget
    """Which consumers they reach; messages of a mirror list go to the list."""
    dry_run: bool
    """Only count, and change nothing."""
    max_per_second: float
    """The most to replay per second; 0 for no limit."""
    def __init__(self, ids: _Optional[_Union[DeadLetterIds, _Mapping]] = ..., filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., list: _Optional[_Union[ListSelection, _Mapping]] = ..., target: _Optional[_Union[ReplayTarget, str]] = ..., dry_run: bool = ..., max_per_second: _Optional[float] = ...) -> None: ...

class ReplayDeadLettersResponse(_message.Message):
    """ReplayDeadLettersResponse is the result. A call that ends early has replayed the oldest of them."""
    __slots__ = ("replayed", "missing", "skipped")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    replayed: int
    """How many were put back; with dry_run, how many would be."""
    missing: int
    """How many of the given ids were gone already."""
    skipped: int
    """How many cannot be put back, and stay: their data cannot be decoded, or their group is gone."""
    def __init__(self, replayed: _Optional[int] = ..., missing: _Optional[int] = ..., skipped: _Optional[int] = ...) -> None: ...

class DiscardDeadLettersRequest(_message.Message):
    """DiscardDeadLettersRequest says which dead letters to delete."""
    __slots__ = ("ids", "filter", "dry_run")
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ids: DeadLetterIds
    """The dead letters with these ids."""
    filter: DeadLetterFilter
    """The dead letters that match; an empty filter matches all."""
    dry_run: bool
    """Only count, and change nothing."""
    def __init__(self, ids: _Optional[_Union[DeadLetterIds, _Mapping]] = ..., filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., dry_run: bool = ...) -> None: ...

class DiscardDeadLettersResponse(_message.Message):
    """DiscardDeadLettersResponse is the result."""
    __slots__ = ("discarded", "missing")
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    discarded: int
    """How many were deleted; with dry_run, how many would be."""
    missing: int
    """How many of the given ids were gone already."""
    def __init__(self, discarded: _Optional[int] = ..., missing: _Optional[int] = ...) -> None: ...

class TailEventsRequest(_message.Message):
    """TailEventsRequest says where to begin."""
    __slots__ = ("last", "group")
    LAST_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    last: int
    """How many of the newest events to show first, at most 1000."""
    group: str
    """Show only what this group has not acknowledged when the call begins, then all new events; empty for no group."""
    def __init__(self, last: _Optional[int] = ..., group: _Optional[str] = ...) -> None: ...

class TailEventsResponse(_message.Message):
    """TailEventsResponse is one event."""
    __slots__ = ("entry_id", "event")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    """The id of its entry in the stream."""
    event: _event_pb2.ModelReadyToDeploy
    """The event; unset if the entry cannot be decoded."""
    def __init__(self, entry_id: _Optional[str] = ..., event: _Optional[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]] = ...) -> None: ...

class GroupConsumer(_message.Message):
    """GroupConsumer is one name in a consumer group."""
    __slots__ = ("name", "pending", "idle")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    """The consumer's name."""
    pending: int
    """Entries delivered to it and not yet acknowledged."""
    idle: _duration_pb2.Duration
    """How long ago it last asked Redis for something; unset for "waiting" and "replay", names that no process has."""
    def __init__(self, name: _Optional[str] = ..., pending: _Optional[int] = ..., idle: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Group(_message.Message):
    """Group is a consumer group with its consumers."""
    __slots__ = ("status", "consumers")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    status: GroupStatus
    """How far it is."""
    consumers: _containers.RepeatedCompositeFieldContainer[GroupConsumer]
    """Its consumers; none if the sidecar's ACL user may not ask."""
    def __init__(self, status: _Optional[_Union[GroupStatus, _Mapping]] = ..., consumers: _Optional[_Iterable[_Union[GroupConsumer, _Mapping]]] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    """ListGroupsRequest asks for groups."""
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    """Only the group with this name, NOT_FOUND if there is none; empty for all."""
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    """ListGroupsResponse has the groups."""
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    """The groups, by name."""
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class CreateGroupRequest(_message.Message):
    """CreateGroupRequest says which group to create."""
    __slots__ = ("name", "start")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    name: str
    """Its name, at most 256 printable characters."""
    start: str
    """What it gets first: "oldest", all that is in the stream, which is the default; "newest", what comes from now on;
    or an entry's id, what comes after that.
    """
    def __init__(self, name: _Optional[str] = ..., start: _Optional[str] = ...) -> None: ...

class CreateGroupResponse(_message.Message):
    """CreateGroupResponse is the group that was created."""
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: GroupStatus
    """Its state."""
    def __init__(self, group: _Optional[_Union[GroupStatus, _Mapping]] = ...) -> None: ...

class RemoveGroupRequest(_message.Message):
    """RemoveGroupRequest says which group to remove."""
    __slots__ = ("name", "force", "dry_run")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    name: str
    """Its name."""
    force: bool
    """Also while it is being read, that is if a consumer asked for something within the last five minutes. A consumer
    that still runs may create the group again.
    """
    dry_run: bool
    """Only check, and change nothing."""
    def __init__(self, name: _Optional[str] = ..., force: bool = ..., dry_run: bool = ...) -> None: ...

class RemoveGroupResponse(_message.Message):
    """RemoveGroupResponse is the result."""
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: GroupStatus
    """The group as it was."""
    def __init__(self, group: _Optional[_Union[GroupStatus, _Mapping]] = ...) -> None: ...

class ResetGroupRequest(_message.Message):
    """ResetGroupRequest says which group begins again, and where."""
    __slots__ = ("name", "start", "force", "dry_run")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    name: str
    """Its name."""
    start: str
    """What it gets next, as in CreateGroupRequest. Required."""
    force: bool
    """As in RemoveGroupRequest."""
    dry_run: bool
    """Only check, and change nothing."""
    def __init__(self, name: _Optional[str] = ..., start: _Optional[str] = ..., force: bool = ..., dry_run: bool = ...) -> None: ...

class ResetGroupResponse(_message.Message):
    """ResetGroupResponse is the result."""
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: GroupStatus
    """The group as it was."""
    def __init__(self, group: _Optional[_Union[GroupStatus, _Mapping]] = ...) -> None: ...
