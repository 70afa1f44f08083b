from google.rpc import status_pb2 as _status_pb2
from modelready.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_SPOOLED: _ClassVar[Durability]
    DURABILITY_PRIMARY: _ClassVar[Durability]
    DURABILITY_REPLICATED: _ClassVar[Durability]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_STORED: _ClassVar[Outcome]
    OUTCOME_DUPLICATE: _ClassVar[Outcome]
    OUTCOME_SPOOLED: _ClassVar[Outcome]
DURABILITY_UNSPECIFIED: Durability
DURABILITY_SPOOLED: Durability
DURABILITY_PRIMARY: Durability
DURABILITY_REPLICATED: Durability
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_STORED: Outcome
OUTCOME_DUPLICATE: Outcome
OUTCOME_SPOOLED: Outcome

class Receipt(_message.Message):
    __slots__ = ("event_id", "correlation_id", "outcome", "stream", "entry_id", "replicas")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    correlation_id: str
    outcome: Outcome
    stream: str
    entry_id: str
    replicas: int
    def __init__(self, event_id: _Optional[str] = ..., correlation_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., stream: _Optional[str] = ..., entry_id: _Optional[str] = ..., replicas: _Optional[int] = ...) -> None: ...

class PublishResult(_message.Message):
    __slots__ = ("receipt", "error")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    error: _status_pb2.Status
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("event", "durability")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    event: _event_pb2.ModelReadyToDeploy
    durability: Durability
    def __init__(self, event: _Optional[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class PublishBatchRequest(_message.Message):
    __slots__ = ("events", "durability")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.ModelReadyToDeploy]
    durability: Durability
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class PublishBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PublishResult]
    def __init__(self, results: _Optional[_Iterable[_Union[PublishResult, _Mapping]]] = ...) -> None: ...

class PublishStreamRequest(_message.Message):
    __slots__ = ("sequence", "events", "durability")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.ModelReadyToDeploy]
    durability: Durability
    def __init__(self, sequence: _Optional[int] = ..., events: _Optional[_Iterable[_Union[_event_pb2.ModelReadyToDeploy, _Mapping]]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class PublishStreamResponse(_message.Message):
    __slots__ = ("sequence", "results")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    results: _containers.RepeatedCompositeFieldContainer[PublishResult]
    def __init__(self, sequence: _Optional[int] = ..., results: _Optional[_Iterable[_Union[PublishResult, _Mapping]]] = ...) -> None: ...
