from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Lookup(_message.Message):
    __slots__ = ("ticket_id", "dataset", "key_id", "stream", "sequence", "tags")
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ticket_id: str
    dataset: str
    key_id: str
    stream: str
    sequence: int
    tags: bytes
    def __init__(self, ticket_id: _Optional[str] = ..., dataset: _Optional[str] = ..., key_id: _Optional[str] = ..., stream: _Optional[str] = ..., sequence: _Optional[int] = ..., tags: _Optional[bytes] = ...) -> None: ...

class Answers(_message.Message):
    __slots__ = ("policy", "matched", "values")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    policy: str
    matched: bytes
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, policy: _Optional[str] = ..., matched: _Optional[bytes] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...
