from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Failure(_message.Message):
    __slots__ = ("code", "text", "party", "task", "at_ms", "retry_at_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AT_MS_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    party: str
    task: str
    at_ms: int
    retry_at_ms: int
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., party: _Optional[str] = ..., task: _Optional[str] = ..., at_ms: _Optional[int] = ..., retry_at_ms: _Optional[int] = ...) -> None: ...
