from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SplitOffer(_message.Message):
    __slots__ = ("candidates",)
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    candidates: int
    def __init__(self, candidates: _Optional[int] = ...) -> None: ...

class TreeStart(_message.Message):
    __slots__ = ("tree", "federated", "bag", "end", "label_alone")
    TREE_FIELD_NUMBER: _ClassVar[int]
    FEDERATED_FIELD_NUMBER: _ClassVar[int]
    BAG_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LABEL_ALONE_FIELD_NUMBER: _ClassVar[int]
    tree: int
    federated: bool
    bag: bytes
    end: bool
    label_alone: bool
    def __init__(self, tree: _Optional[int] = ..., federated: _Optional[bool] = ..., bag: _Optional[bytes] = ..., end: _Optional[bool] = ..., label_alone: _Optional[bool] = ...) -> None: ...

class LevelSplits(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeSplit]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeSplit, _Mapping]]] = ...) -> None: ...

class NodeSplit(_message.Message):
    __slots__ = ("left_rows", "candidates", "grow_left", "grow_right")
    LEFT_ROWS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    GROW_LEFT_FIELD_NUMBER: _ClassVar[int]
    GROW_RIGHT_FIELD_NUMBER: _ClassVar[int]
    left_rows: bytes
    candidates: Candidates
    grow_left: bool
    grow_right: bool
    def __init__(self, left_rows: _Optional[bytes] = ..., candidates: _Optional[_Union[Candidates, _Mapping]] = ..., grow_left: _Optional[bool] = ..., grow_right: _Optional[bool] = ...) -> None: ...

class Candidates(_message.Message):
    __slots__ = ("places",)
    PLACES_FIELD_NUMBER: _ClassVar[int]
    places: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, places: _Optional[_Iterable[int]] = ...) -> None: ...

class LevelSums(_message.Message):
    __slots__ = ("splits", "allowed", "sums", "distinct", "repeats")
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_FIELD_NUMBER: _ClassVar[int]
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    splits: _containers.RepeatedCompositeFieldContainer[OwnedSplit]
    allowed: _containers.RepeatedScalarFieldContainer[bytes]
    sums: _containers.RepeatedScalarFieldContainer[int]
    distinct: _containers.RepeatedScalarFieldContainer[bytes]
    repeats: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, splits: _Optional[_Iterable[_Union[OwnedSplit, _Mapping]]] = ..., allowed: _Optional[_Iterable[bytes]] = ..., sums: _Optional[_Iterable[int]] = ..., distinct: _Optional[_Iterable[bytes]] = ..., repeats: _Optional[_Iterable[int]] = ...) -> None: ...

class OwnedSplit(_message.Message):
    __slots__ = ("left_rows", "feature")
    LEFT_ROWS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    left_rows: bytes
    feature: int
    def __init__(self, left_rows: _Optional[bytes] = ..., feature: _Optional[int] = ...) -> None: ...
