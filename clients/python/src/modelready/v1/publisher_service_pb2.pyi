from google.rpc import status_pb2 as _status_pb2
from modelready.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    """Durability is the least that must hold before an event is acknowledged."""
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    """The server's default, PUBLISH_DURABILITY."""
    DURABILITY_SPOOLED: _ClassVar[Durability]
    """Redis has the event or, while Redis is away, this task's disk has it. Survives a restart of the sidecar."""
    DURABILITY_PRIMARY: _ClassVar[Durability]
    """The Redis primary has the event; otherwise UNAVAILABLE. Survives the loss of the task, too."""
    DURABILITY_REPLICATED: _ClassVar[Durability]
    """REDIS_MIN_REPLICAS replicas have confirmed it, too; otherwise UNAVAILABLE with the reason OUTCOME_UNKNOWN.
    Survives a failover of Redis, too.
    """

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    """Outcome says where an acknowledged event is."""
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    """Never sent."""
    OUTCOME_STORED: _ClassVar[Outcome]
    """In the stream, by this call."""
    OUTCOME_DUPLICATE: _ClassVar[Outcome]
    """In the stream already, from an earlier attempt, whose entry_id this is."""
    OUTCOME_SPOOLED: _ClassVar[Outcome]
    """On this task's disk; it goes to the stream when Redis is back."""
DURABILITY_UNSPECIFIED: Durability
DURABILITY_SPOOLED: Durability
DURABILITY_PRIMARY: Durability
DURABILITY_REPLICATED: Durability
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_STORED: Outcome
OUTCOME_DUPLICATE: Outcome
OUTCOME_SPOOLED: Outcome

class Receipt(_message.Message):
    """Receipt acknowledges one event."""
    __slots__ = ("event_id", "correlation_id", "outcome", "stream", "entry_id", "replicas")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    """The event's id, as the caller sent it or as the sidecar generated it."""
    correlation_id: str
    """The correlation id, as the caller sent it or as the sidecar generated it."""
    outcome: Outcome
    """Where the event is."""
    stream: str
    """The key of the stream, e.g. "{model-ready}:events"."""
    entry_id: str
    """The id of the entry in the stream; empty while the event is spooled."""
    replicas: int
    """How many replicas confirmed the write; 0 if the durability does not need replicas."""
    def __init__(self, event_id: _Optional[str] = ..., correlation_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., stream: _Optional[str] = ..., entry_id: _Optional[str] = ..., replicas: _Optional[int] = ...) -> None: ...

class PublishResult(_message.Message):
    """PublishResult is the result for one event of a batch or a frame."""
    __slots__ = ("receipt", "error")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    """The acknowledgement."""
    error: _status_pb2.Status
    """The refusal, with the code and details that Publish would answer."""
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class PublishRequest(_message.Message):
    """PublishRequest carries one event."""
    __slots__ = ("event", "durability")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    event: _event_pb2.ModelReadyToDeploy
    """The event."""
    durability: Durability
    """The least durability that the caller accepts."""
    def __init__(self, event: _Optional[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class PublishResponse(_message.Message):
    """PublishResponse acknowledges one event."""
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    """The acknowledgement."""
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class PublishBatchRequest(_message.Message):
    """PublishBatchRequest carries events that are committed together, in order."""
    __slots__ = ("events", "durability")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.ModelReadyToDeploy]
    """1 to 1,000 events."""
    durability: Durability
    """The least durability that the caller accepts, for all of them."""
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class PublishBatchResponse(_message.Message):
    """PublishBatchResponse answers a batch."""
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PublishResult]
    """One result an event, in the order of the request."""
    def __init__(self, results: _Optional[_Iterable[_Union[PublishResult, _Mapping]]] = ...) -> None: ...

class PublishStreamRequest(_message.Message):
    """PublishStreamRequest is one frame of a stream."""
    __slots__ = ("sequence", "events", "durability")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    """Chosen by the sender; the answer repeats it."""
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.ModelReadyToDeploy]
    """1 to 1,000 events."""
    durability: Durability
    """The least durability that the caller accepts, for all of them."""
    def __init__(self, sequence: _Optional[int] = ..., events: _Optional[_Iterable[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class PublishStreamResponse(_message.Message):
    """PublishStreamResponse answers one frame."""
    __slots__ = ("sequence", "results")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    """The sequence of the frame that it answers."""
    results: _containers.RepeatedCompositeFieldContainer[PublishResult]
    """One result an event, in the order of the frame."""
    def __init__(self, sequence: _Optional[int] = ..., results: _Optional[_Iterable[_Union[PublishResult, _Mapping]]] = ...) -> None: ...
