from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PayloadKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAYLOAD_KIND_UNSPECIFIED: _ClassVar[PayloadKind]
    PAYLOAD_KIND_BYTES: _ClassVar[PayloadKind]
    PAYLOAD_KIND_ARRAY: _ClassVar[PayloadKind]
    PAYLOAD_KIND_RECORD_BATCH: _ClassVar[PayloadKind]
    PAYLOAD_KIND_PROTOBUF: _ClassVar[PayloadKind]
PAYLOAD_KIND_UNSPECIFIED: PayloadKind
PAYLOAD_KIND_BYTES: PayloadKind
PAYLOAD_KIND_ARRAY: PayloadKind
PAYLOAD_KIND_RECORD_BATCH: PayloadKind
PAYLOAD_KIND_PROTOBUF: PayloadKind

class Frame(_message.Message):
    __slots__ = ("hello", "data", "ack", "heartbeat", "close", "tunnel_offer")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_OFFER_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    data: Data
    ack: Ack
    heartbeat: Heartbeat
    close: Close
    tunnel_offer: TunnelOffer
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., tunnel_offer: _Optional[_Union[TunnelOffer, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version_min", "version_max", "incarnation", "received", "facts", "takes_tunnels", "default_facts", "release")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    TAKES_TUNNELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FACTS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    version_min: int
    version_max: int
    incarnation: str
    received: int
    facts: _containers.ScalarMap[str, str]
    takes_tunnels: bool
    default_facts: _containers.RepeatedScalarFieldContainer[str]
    release: str
    def __init__(self, version_min: _Optional[int] = ..., version_max: _Optional[int] = ..., incarnation: _Optional[str] = ..., received: _Optional[int] = ..., facts: _Optional[_Mapping[str, str]] = ..., takes_tunnels: _Optional[bool] = ..., default_facts: _Optional[_Iterable[str]] = ..., release: _Optional[str] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("sequence", "name", "last", "payload_kind", "chunk")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_KIND_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    name: str
    last: bool
    payload_kind: PayloadKind
    chunk: bytes
    def __init__(self, sequence: _Optional[int] = ..., name: _Optional[str] = ..., last: _Optional[bool] = ..., payload_kind: _Optional[_Union[PayloadKind, str]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("received", "consumed_bytes")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received: int
    consumed_bytes: int
    def __init__(self, received: _Optional[int] = ..., consumed_bytes: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("is_blocked",)
    IS_BLOCKED_FIELD_NUMBER: _ClassVar[int]
    is_blocked: bool
    def __init__(self, is_blocked: _Optional[bool] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TunnelOffer(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...
