from fedtasks.wire.v1 import failure_pb2 as _failure_pb2
from fedtasks.wire.v1 import lookup_pb2 as _lookup_pb2
from fedtasks.wire.v1 import model_pb2 as _model_pb2
from fedtasks.wire.v1 import run_pb2 as _run_pb2
from fedtasks.wire.v1 import ticket_pb2 as _ticket_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Opening(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPENING_UNSPECIFIED: _ClassVar[Opening]
    OPENING_STARTED: _ClassVar[Opening]
    OPENING_RESUMED: _ClassVar[Opening]
    OPENING_ALREADY_RUNNING: _ClassVar[Opening]
    OPENING_ALREADY_DONE: _ClassVar[Opening]
OPENING_UNSPECIFIED: Opening
OPENING_STARTED: Opening
OPENING_RESUMED: Opening
OPENING_ALREADY_RUNNING: Opening
OPENING_ALREADY_DONE: Opening

class OpenRunRequest(_message.Message):
    __slots__ = ("dag_id", "dag_run_id", "pipeline", "steps", "partition", "config_json", "peer", "ticket_id", "force", "reason", "failure", "wait_until_ms", "waits_since_ms")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    DAG_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    WAIT_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    WAITS_SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    dag_run_id: str
    pipeline: str
    steps: _containers.RepeatedCompositeFieldContainer[_run_pb2.Step]
    partition: str
    config_json: str
    peer: str
    ticket_id: str
    force: bool
    reason: str
    failure: _failure_pb2.Failure
    wait_until_ms: int
    waits_since_ms: int
    def __init__(self, dag_id: _Optional[str] = ..., dag_run_id: _Optional[str] = ..., pipeline: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[_run_pb2.Step, _Mapping]]] = ..., partition: _Optional[str] = ..., config_json: _Optional[str] = ..., peer: _Optional[str] = ..., ticket_id: _Optional[str] = ..., force: _Optional[bool] = ..., reason: _Optional[str] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., wait_until_ms: _Optional[int] = ..., waits_since_ms: _Optional[int] = ...) -> None: ...

class OpenRunResponse(_message.Message):
    __slots__ = ("run", "opening")
    RUN_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    opening: Opening
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ..., opening: _Optional[_Union[Opening, str]] = ...) -> None: ...

class AwaitOpeningRequest(_message.Message):
    __slots__ = ("dag_id", "dag_run_id", "pipeline")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    DAG_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    dag_run_id: str
    pipeline: str
    def __init__(self, dag_id: _Optional[str] = ..., dag_run_id: _Optional[str] = ..., pipeline: _Optional[str] = ...) -> None: ...

class AwaitOpeningResponse(_message.Message):
    __slots__ = ("is_due",)
    IS_DUE_FIELD_NUMBER: _ClassVar[int]
    is_due: bool
    def __init__(self, is_due: _Optional[bool] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run", "own", "peer", "bytes_sent", "bytes_received", "metrics")
    RUN_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    own: _containers.RepeatedCompositeFieldContainer[_run_pb2.Half]
    peer: _containers.RepeatedCompositeFieldContainer[_run_pb2.Half]
    bytes_sent: int
    bytes_received: int
    metrics: _containers.RepeatedCompositeFieldContainer[_run_pb2.Metric]
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ..., own: _Optional[_Iterable[_Union[_run_pb2.Half, _Mapping]]] = ..., peer: _Optional[_Iterable[_Union[_run_pb2.Half, _Mapping]]] = ..., bytes_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ..., metrics: _Optional[_Iterable[_Union[_run_pb2.Metric, _Mapping]]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_run_pb2.Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[_run_pb2.Run, _Mapping]]] = ...) -> None: ...

class AnnounceTaskRequest(_message.Message):
    __slots__ = ("run_id", "task", "token", "wait_s", "renewed")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    token: str
    wait_s: float
    renewed: bool
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., token: _Optional[str] = ..., wait_s: _Optional[float] = ..., renewed: _Optional[bool] = ...) -> None: ...

class AnnounceTaskResponse(_message.Message):
    __slots__ = ("meeting",)
    MEETING_FIELD_NUMBER: _ClassVar[int]
    meeting: _run_pb2.Meeting
    def __init__(self, meeting: _Optional[_Union[_run_pb2.Meeting, _Mapping]] = ...) -> None: ...

class WatchTaskRequest(_message.Message):
    __slots__ = ("run_id", "task")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class WatchTaskResponse(_message.Message):
    __slots__ = ("meeting",)
    MEETING_FIELD_NUMBER: _ClassVar[int]
    meeting: _run_pb2.Meeting
    def __init__(self, meeting: _Optional[_Union[_run_pb2.Meeting, _Mapping]] = ...) -> None: ...

class StartTaskRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "leased")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    leased: bool
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., leased: _Optional[bool] = ...) -> None: ...

class StartTaskResponse(_message.Message):
    __slots__ = ("meeting",)
    MEETING_FIELD_NUMBER: _ClassVar[int]
    meeting: _run_pb2.Meeting
    def __init__(self, meeting: _Optional[_Union[_run_pb2.Meeting, _Mapping]] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "idle_ms", "awaits_peer")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    AWAITS_PEER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    idle_ms: int
    awaits_peer: bool
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., idle_ms: _Optional[int] = ..., awaits_peer: _Optional[bool] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportTaskRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "progress_json", "metrics", "disclosures")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_JSON_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DISCLOSURES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    progress_json: str
    metrics: _containers.RepeatedCompositeFieldContainer[_run_pb2.Metric]
    disclosures: _containers.RepeatedCompositeFieldContainer[Disclosure]
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., progress_json: _Optional[str] = ..., metrics: _Optional[_Iterable[_Union[_run_pb2.Metric, _Mapping]]] = ..., disclosures: _Optional[_Iterable[_Union[Disclosure, _Mapping]]] = ...) -> None: ...

class Disclosure(_message.Message):
    __slots__ = ("name", "messages", "items", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    messages: int
    items: int
    bytes: int
    def __init__(self, name: _Optional[str] = ..., messages: _Optional[int] = ..., items: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class ReportTaskResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CountUseRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "kind", "amounts")
    class AmountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AMOUNTS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    kind: str
    amounts: _containers.ScalarMap[str, int]
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., kind: _Optional[str] = ..., amounts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class CountUseResponse(_message.Message):
    __slots__ = ("used", "charged")
    USED_FIELD_NUMBER: _ClassVar[int]
    CHARGED_FIELD_NUMBER: _ClassVar[int]
    used: int
    charged: int
    def __init__(self, used: _Optional[int] = ..., charged: _Optional[int] = ...) -> None: ...

class SpendLabelLeakRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "item", "epsilon")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    item: str
    epsilon: int
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., item: _Optional[str] = ..., epsilon: _Optional[int] = ...) -> None: ...

class SpendLabelLeakResponse(_message.Message):
    __slots__ = ("spent",)
    SPENT_FIELD_NUMBER: _ClassVar[int]
    spent: int
    def __init__(self, spent: _Optional[int] = ...) -> None: ...

class FinishTaskRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "outcome_json", "failure", "final")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_JSON_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    outcome_json: str
    failure: _failure_pb2.Failure
    final: bool
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., outcome_json: _Optional[str] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., final: _Optional[bool] = ...) -> None: ...

class FinishTaskResponse(_message.Message):
    __slots__ = ("meeting",)
    MEETING_FIELD_NUMBER: _ClassVar[int]
    meeting: _run_pb2.Meeting
    def __init__(self, meeting: _Optional[_Union[_run_pb2.Meeting, _Mapping]] = ...) -> None: ...

class CloseRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class CloseRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("run_id", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ...) -> None: ...

class ListPeersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeerStatus(_message.Message):
    __slots__ = ("name", "connected", "version", "clock_skew_s", "failure")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SKEW_S_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    name: str
    connected: bool
    version: str
    clock_skew_s: float
    failure: _failure_pb2.Failure
    def __init__(self, name: _Optional[str] = ..., connected: _Optional[bool] = ..., version: _Optional[str] = ..., clock_skew_s: _Optional[float] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class ListPeersResponse(_message.Message):
    __slots__ = ("party", "version", "peers")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    party: str
    version: str
    peers: _containers.RepeatedCompositeFieldContainer[PeerStatus]
    def __init__(self, party: _Optional[str] = ..., version: _Optional[str] = ..., peers: _Optional[_Iterable[_Union[PeerStatus, _Mapping]]] = ...) -> None: ...

class LookUpRequest(_message.Message):
    __slots__ = ("peer", "lookup")
    PEER_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_FIELD_NUMBER: _ClassVar[int]
    peer: str
    lookup: _lookup_pb2.Lookup
    def __init__(self, peer: _Optional[str] = ..., lookup: _Optional[_Union[_lookup_pb2.Lookup, _Mapping]] = ...) -> None: ...

class LookUpResponse(_message.Message):
    __slots__ = ("answers", "ticket_id", "dataset")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    answers: _lookup_pb2.Answers
    ticket_id: str
    dataset: str
    def __init__(self, answers: _Optional[_Union[_lookup_pb2.Answers, _Mapping]] = ..., ticket_id: _Optional[str] = ..., dataset: _Optional[str] = ...) -> None: ...

class ServeLookupsRequest(_message.Message):
    __slots__ = ("offer", "answered")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    offer: Offer
    answered: Answered
    def __init__(self, offer: _Optional[_Union[Offer, _Mapping]] = ..., answered: _Optional[_Union[Answered, _Mapping]] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("peer", "dataset", "key_id", "policy", "columns")
    PEER_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    peer: str
    dataset: str
    key_id: str
    policy: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, peer: _Optional[str] = ..., dataset: _Optional[str] = ..., key_id: _Optional[str] = ..., policy: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ...) -> None: ...

class Answered(_message.Message):
    __slots__ = ("id", "answers", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: int
    answers: _lookup_pb2.Answers
    failure: _failure_pb2.Failure
    def __init__(self, id: _Optional[int] = ..., answers: _Optional[_Union[_lookup_pb2.Answers, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class ServeLookupsResponse(_message.Message):
    __slots__ = ("id", "tags")
    ID_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    id: int
    tags: bytes
    def __init__(self, id: _Optional[int] = ..., tags: _Optional[bytes] = ...) -> None: ...

class PreflightRequest(_message.Message):
    __slots__ = ("peer", "pipeline")
    PEER_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    peer: str
    pipeline: str
    def __init__(self, peer: _Optional[str] = ..., pipeline: _Optional[str] = ...) -> None: ...

class PreflightResponse(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[_run_pb2.Check]
    def __init__(self, checks: _Optional[_Iterable[_Union[_run_pb2.Check, _Mapping]]] = ...) -> None: ...

class ProbeNetworkRequest(_message.Message):
    __slots__ = ("peer", "idle_s")
    PEER_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    peer: str
    idle_s: int
    def __init__(self, peer: _Optional[str] = ..., idle_s: _Optional[int] = ...) -> None: ...

class ProbeNetworkResponse(_message.Message):
    __slots__ = ("rtt_ms", "worst_rtt_ms", "held_out_ms", "held_back_ms", "largest_out", "largest_back", "out_per_s", "back_per_s", "idle_s", "cut", "broken_at", "dialled")
    RTT_MS_FIELD_NUMBER: _ClassVar[int]
    WORST_RTT_MS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_MS_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_MS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_OUT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_BACK_FIELD_NUMBER: _ClassVar[int]
    OUT_PER_S_FIELD_NUMBER: _ClassVar[int]
    BACK_PER_S_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    BROKEN_AT_FIELD_NUMBER: _ClassVar[int]
    DIALLED_FIELD_NUMBER: _ClassVar[int]
    rtt_ms: float
    worst_rtt_ms: float
    held_out_ms: float
    held_back_ms: float
    largest_out: int
    largest_back: int
    out_per_s: float
    back_per_s: float
    idle_s: float
    cut: bool
    broken_at: str
    dialled: bool
    def __init__(self, rtt_ms: _Optional[float] = ..., worst_rtt_ms: _Optional[float] = ..., held_out_ms: _Optional[float] = ..., held_back_ms: _Optional[float] = ..., largest_out: _Optional[int] = ..., largest_back: _Optional[int] = ..., out_per_s: _Optional[float] = ..., back_per_s: _Optional[float] = ..., idle_s: _Optional[float] = ..., cut: _Optional[bool] = ..., broken_at: _Optional[str] = ..., dialled: _Optional[bool] = ...) -> None: ...

class DecideApprovalRequest(_message.Message):
    __slots__ = ("run_id", "approved", "decided_by", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    approved: bool
    decided_by: str
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., approved: _Optional[bool] = ..., decided_by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DecideApprovalResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RevokeTicketRequest(_message.Message):
    __slots__ = ("ticket_id", "reason", "actor")
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ticket_id: str
    reason: str
    actor: str
    def __init__(self, ticket_id: _Optional[str] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class RevokeTicketResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeclineTicketRequest(_message.Message):
    __slots__ = ("ticket_id", "reason", "actor")
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ticket_id: str
    reason: str
    actor: str
    def __init__(self, ticket_id: _Optional[str] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class DeclineTicketResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcceptTicketRequest(_message.Message):
    __slots__ = ("ticket_id", "actor")
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ticket_id: str
    actor: str
    def __init__(self, ticket_id: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class AcceptTicketResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GrantTicketRequest(_message.Message):
    __slots__ = ("request_id", "ticket_id", "dataset", "columns", "days", "approval", "bounds_json", "actor")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_JSON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    ticket_id: str
    dataset: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    days: int
    approval: str
    bounds_json: str
    actor: str
    def __init__(self, request_id: _Optional[str] = ..., ticket_id: _Optional[str] = ..., dataset: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ..., days: _Optional[int] = ..., approval: _Optional[str] = ..., bounds_json: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class GrantTicketResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeclineRequestRequest(_message.Message):
    __slots__ = ("request_id", "reason", "actor")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: str
    actor: str
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class DeclineRequestResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestTicketRequest(_message.Message):
    __slots__ = ("peer", "request", "actor")
    PEER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    peer: str
    request: _ticket_pb2.TicketRequest
    actor: str
    def __init__(self, peer: _Optional[str] = ..., request: _Optional[_Union[_ticket_pb2.TicketRequest, _Mapping]] = ..., actor: _Optional[str] = ...) -> None: ...

class RequestTicketResponse(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class LandPartitionRequest(_message.Message):
    __slots__ = ("dataset", "partition", "rows")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    partition: str
    rows: int
    def __init__(self, dataset: _Optional[str] = ..., partition: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...

class LandPartitionResponse(_message.Message):
    __slots__ = ("is_new",)
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    is_new: bool
    def __init__(self, is_new: _Optional[bool] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("version", "consumed_json", "newest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_JSON_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    version: _model_pb2.ModelVersion
    consumed_json: str
    newest: int
    def __init__(self, version: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., consumed_json: _Optional[str] = ..., newest: _Optional[int] = ...) -> None: ...

class PublishModelRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "version", "consumed_json", "metrics_json")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_JSON_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    version: _model_pb2.ModelVersion
    consumed_json: str
    metrics_json: str
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., version: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., consumed_json: _Optional[str] = ..., metrics_json: _Optional[str] = ...) -> None: ...

class PublishModelResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _model_pb2.ModelVersion
    def __init__(self, version: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ...) -> None: ...

class ChangeChampionRequest(_message.Message):
    __slots__ = ("model", "version", "reason", "actor")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    reason: str
    actor: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class ChangeChampionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _model_pb2.ModelVersion
    def __init__(self, version: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ...) -> None: ...

class GetJoinRequest(_message.Message):
    __slots__ = ("peer", "stream", "shard", "windows")
    PEER_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    peer: str
    stream: str
    shard: int
    windows: int
    def __init__(self, peer: _Optional[str] = ..., stream: _Optional[str] = ..., shard: _Optional[int] = ..., windows: _Optional[int] = ...) -> None: ...

class JoinCommit(_message.Message):
    __slots__ = ("stream", "shard", "number", "digest", "run_id", "at_ms")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    stream: str
    shard: int
    number: int
    digest: str
    run_id: str
    at_ms: int
    def __init__(self, stream: _Optional[str] = ..., shard: _Optional[int] = ..., number: _Optional[int] = ..., digest: _Optional[str] = ..., run_id: _Optional[str] = ..., at_ms: _Optional[int] = ...) -> None: ...

class GetJoinResponse(_message.Message):
    __slots__ = ("commit", "windows")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    commit: JoinCommit
    windows: _containers.RepeatedCompositeFieldContainer[JoinWindow]
    def __init__(self, commit: _Optional[_Union[JoinCommit, _Mapping]] = ..., windows: _Optional[_Iterable[_Union[JoinWindow, _Mapping]]] = ...) -> None: ...

class JoinWindow(_message.Message):
    __slots__ = ("start_ms", "joined", "corrected", "late", "too_late", "unmatched", "duplicates", "rejected", "lag_ms")
    START_MS_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    TOO_LATE_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    start_ms: int
    joined: int
    corrected: int
    late: int
    too_late: int
    unmatched: int
    duplicates: int
    rejected: int
    lag_ms: int
    def __init__(self, start_ms: _Optional[int] = ..., joined: _Optional[int] = ..., corrected: _Optional[int] = ..., late: _Optional[int] = ..., too_late: _Optional[int] = ..., unmatched: _Optional[int] = ..., duplicates: _Optional[int] = ..., rejected: _Optional[int] = ..., lag_ms: _Optional[int] = ...) -> None: ...

class CommitJoinRequest(_message.Message):
    __slots__ = ("run_id", "task", "attempt", "stream", "shard", "number", "digest", "windows")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    attempt: int
    stream: str
    shard: int
    number: int
    digest: str
    windows: _containers.RepeatedCompositeFieldContainer[JoinWindow]
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., stream: _Optional[str] = ..., shard: _Optional[int] = ..., number: _Optional[int] = ..., digest: _Optional[str] = ..., windows: _Optional[_Iterable[_Union[JoinWindow, _Mapping]]] = ...) -> None: ...

class CommitJoinResponse(_message.Message):
    __slots__ = ("commit",)
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    commit: JoinCommit
    def __init__(self, commit: _Optional[_Union[JoinCommit, _Mapping]] = ...) -> None: ...
