from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelVersion(_message.Message):
    __slots__ = ("model", "version", "parent", "run_id", "partition", "own_digest", "peer_digest", "champion", "algorithm")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OWN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PEER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    parent: int
    run_id: str
    partition: str
    own_digest: str
    peer_digest: str
    champion: bool
    algorithm: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., parent: _Optional[int] = ..., run_id: _Optional[str] = ..., partition: _Optional[str] = ..., own_digest: _Optional[str] = ..., peer_digest: _Optional[str] = ..., champion: _Optional[bool] = ..., algorithm: _Optional[str] = ...) -> None: ...

class ChampionChange(_message.Message):
    __slots__ = ("version", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    reason: str
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...
