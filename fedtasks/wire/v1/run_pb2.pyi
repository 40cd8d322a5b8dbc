from fedtasks.wire.v1 import failure_pb2 as _failure_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_WAITING: _ClassVar[State]
    STATE_RUNNING: _ClassVar[State]
    STATE_SUCCEEDED: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_WAITING: State
STATE_RUNNING: State
STATE_SUCCEEDED: State
STATE_FAILED: State

class Run(_message.Message):
    __slots__ = ("run_id", "pipeline", "partition", "number", "initiator", "responder", "ticket_id", "config_json", "dag_id", "dag_run_id", "state", "failure", "peer_state", "receipt", "peer_receipt", "opened_ms", "closed_ms", "reason", "approval", "steps")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INITIATOR_FIELD_NUMBER: _ClassVar[int]
    RESPONDER_FIELD_NUMBER: _ClassVar[int]
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    DAG_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PEER_STATE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    PEER_RECEIPT_FIELD_NUMBER: _ClassVar[int]
    OPENED_MS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    pipeline: str
    partition: str
    number: int
    initiator: str
    responder: str
    ticket_id: str
    config_json: str
    dag_id: str
    dag_run_id: str
    state: State
    failure: _failure_pb2.Failure
    peer_state: State
    receipt: str
    peer_receipt: str
    opened_ms: int
    closed_ms: int
    reason: str
    approval: Approval
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    def __init__(self, run_id: _Optional[str] = ..., pipeline: _Optional[str] = ..., partition: _Optional[str] = ..., number: _Optional[int] = ..., initiator: _Optional[str] = ..., responder: _Optional[str] = ..., ticket_id: _Optional[str] = ..., config_json: _Optional[str] = ..., dag_id: _Optional[str] = ..., dag_run_id: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., peer_state: _Optional[_Union[State, str]] = ..., receipt: _Optional[str] = ..., peer_receipt: _Optional[str] = ..., opened_ms: _Optional[int] = ..., closed_ms: _Optional[int] = ..., reason: _Optional[str] = ..., approval: _Optional[_Union[Approval, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("state", "clause", "until_ms")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CLAUSE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    state: str
    clause: str
    until_ms: int
    def __init__(self, state: _Optional[str] = ..., clause: _Optional[str] = ..., until_ms: _Optional[int] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("name", "digest", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    kind: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class Half(_message.Message):
    __slots__ = ("task", "attempt", "state", "since_ms", "until_ms", "failure", "outcome_json", "progress_json", "announced_ms", "started_ms", "leased", "quiet_since_ms", "awaits_peer")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_JSON_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_JSON_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCED_MS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    QUIET_SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    AWAITS_PEER_FIELD_NUMBER: _ClassVar[int]
    task: str
    attempt: int
    state: State
    since_ms: int
    until_ms: int
    failure: _failure_pb2.Failure
    outcome_json: str
    progress_json: str
    announced_ms: int
    started_ms: int
    leased: bool
    quiet_since_ms: int
    awaits_peer: bool
    def __init__(self, task: _Optional[str] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., since_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., outcome_json: _Optional[str] = ..., progress_json: _Optional[str] = ..., announced_ms: _Optional[int] = ..., started_ms: _Optional[int] = ..., leased: _Optional[bool] = ..., quiet_since_ms: _Optional[int] = ..., awaits_peer: _Optional[bool] = ...) -> None: ...

class Meeting(_message.Message):
    __slots__ = ("run", "own", "peer", "ready", "bounds_json", "dataset_digest")
    RUN_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_JSON_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run: Run
    own: Half
    peer: Half
    ready: bool
    bounds_json: str
    dataset_digest: str
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., own: _Optional[_Union[Half, _Mapping]] = ..., peer: _Optional[_Union[Half, _Mapping]] = ..., ready: _Optional[bool] = ..., bounds_json: _Optional[str] = ..., dataset_digest: _Optional[str] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("task", "name", "step", "value", "at_ms")
    TASK_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    task: str
    name: str
    step: int
    value: float
    at_ms: int
    def __init__(self, task: _Optional[str] = ..., name: _Optional[str] = ..., step: _Optional[int] = ..., value: _Optional[float] = ..., at_ms: _Optional[int] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("name", "ok", "code", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    ok: bool
    code: str
    text: str
    def __init__(self, name: _Optional[str] = ..., ok: _Optional[bool] = ..., code: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
