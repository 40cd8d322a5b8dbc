from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TicketRequest(_message.Message):
    __slots__ = ("request_id", "pipelines", "dataset", "role", "days", "runs", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINES_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    pipelines: _containers.RepeatedScalarFieldContainer[str]
    dataset: str
    role: str
    days: int
    runs: int
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., pipelines: _Optional[_Iterable[str]] = ..., dataset: _Optional[str] = ..., role: _Optional[str] = ..., days: _Optional[int] = ..., runs: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class TicketRequestDeclined(_message.Message):
    __slots__ = ("request_id", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
