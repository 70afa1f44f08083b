from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetQueueStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQueueStatusResponse(_message.Message):
    __slots__ = ("queue", "stream", "redis_up", "redis_error", "stream_length", "dead_letters", "groups", "spool", "list")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    REDIS_UP_FIELD_NUMBER: _ClassVar[int]
    REDIS_ERROR_FIELD_NUMBER: _ClassVar[int]
    STREAM_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SPOOL_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    queue: str
    stream: str
    redis_up: bool
    redis_error: str
    stream_length: int
    dead_letters: int
    groups: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    spool: SpoolStatus
    list: ListStatus
    def __init__(self, queue: _Optional[str] = ..., stream: _Optional[str] = ..., redis_up: bool = ..., redis_error: _Optional[str] = ..., stream_length: _Optional[int] = ..., dead_letters: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ..., spool: _Optional[_Union[SpoolStatus, _Mapping]] = ..., list: _Optional[_Union[ListStatus, _Mapping]] = ...) -> None: ...

class GroupStatus(_message.Message):
    __slots__ = ("name", "depth", "pending", "consumers", "oldest_unacknowledged_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_UNACKNOWLEDGED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    depth: int
    pending: int
    consumers: int
    oldest_unacknowledged_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., depth: _Optional[int] = ..., pending: _Optional[int] = ..., consumers: _Optional[int] = ..., oldest_unacknowledged_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SpoolStatus(_message.Message):
    __slots__ = ("depth", "bytes", "max_bytes", "oldest_at")
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AT_FIELD_NUMBER: _ClassVar[int]
    depth: int
    bytes: int
    max_bytes: int
    oldest_at: _timestamp_pb2.Timestamp
    def __init__(self, depth: _Optional[int] = ..., bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ..., oldest_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListStatus(_message.Message):
    __slots__ = ("name", "depth", "processing", "dead_letters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    depth: int
    processing: int
    dead_letters: int
    def __init__(self, name: _Optional[str] = ..., depth: _Optional[int] = ..., processing: _Optional[int] = ..., dead_letters: _Optional[int] = ...) -> None: ...
