from fedtasks.wire.v1 import failure_pb2 as _failure_pb2
from fedtasks.wire.v1 import lookup_pb2 as _lookup_pb2
from fedtasks.wire.v1 import model_pb2 as _model_pb2
from fedtasks.wire.v1 import run_pb2 as _run_pb2
from fedtasks.wire.v1 import ticket_pb2 as _ticket_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ControlRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: Envelope
    def __init__(self, envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class ControlResponse(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: Envelope
    def __init__(self, envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("id", "reply_to", "greeting", "start_run", "run_started", "run_update", "ticket_update", "done", "failure", "lookup", "answers", "preflight", "preflight_report", "ticket_request", "landed", "champion_change", "ticket_request_declined", "clock", "remembered", "recalled", "probe")
    ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    GREETING_FIELD_NUMBER: _ClassVar[int]
    START_RUN_FIELD_NUMBER: _ClassVar[int]
    RUN_STARTED_FIELD_NUMBER: _ClassVar[int]
    RUN_UPDATE_FIELD_NUMBER: _ClassVar[int]
    TICKET_UPDATE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    PREFLIGHT_FIELD_NUMBER: _ClassVar[int]
    PREFLIGHT_REPORT_FIELD_NUMBER: _ClassVar[int]
    TICKET_REQUEST_FIELD_NUMBER: _ClassVar[int]
    LANDED_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_CHANGE_FIELD_NUMBER: _ClassVar[int]
    TICKET_REQUEST_DECLINED_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    RECALLED_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    id: int
    reply_to: int
    greeting: Greeting
    start_run: StartRun
    run_started: RunStarted
    run_update: RunUpdate
    ticket_update: TicketUpdate
    done: Done
    failure: _failure_pb2.Failure
    lookup: _lookup_pb2.Lookup
    answers: _lookup_pb2.Answers
    preflight: Preflight
    preflight_report: PreflightReport
    ticket_request: _ticket_pb2.TicketRequest
    landed: Landed
    champion_change: _model_pb2.ChampionChange
    ticket_request_declined: _ticket_pb2.TicketRequestDeclined
    clock: Clock
    remembered: Remembered
    recalled: Recalled
    probe: Probe
    def __init__(self, id: _Optional[int] = ..., reply_to: _Optional[int] = ..., greeting: _Optional[_Union[Greeting, _Mapping]] = ..., start_run: _Optional[_Union[StartRun, _Mapping]] = ..., run_started: _Optional[_Union[RunStarted, _Mapping]] = ..., run_update: _Optional[_Union[RunUpdate, _Mapping]] = ..., ticket_update: _Optional[_Union[TicketUpdate, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., lookup: _Optional[_Union[_lookup_pb2.Lookup, _Mapping]] = ..., answers: _Optional[_Union[_lookup_pb2.Answers, _Mapping]] = ..., preflight: _Optional[_Union[Preflight, _Mapping]] = ..., preflight_report: _Optional[_Union[PreflightReport, _Mapping]] = ..., ticket_request: _Optional[_Union[_ticket_pb2.TicketRequest, _Mapping]] = ..., landed: _Optional[_Union[Landed, _Mapping]] = ..., champion_change: _Optional[_Union[_model_pb2.ChampionChange, _Mapping]] = ..., ticket_request_declined: _Optional[_Union[_ticket_pb2.TicketRequestDeclined, _Mapping]] = ..., clock: _Optional[_Union[Clock, _Mapping]] = ..., remembered: _Optional[_Union[Remembered, _Mapping]] = ..., recalled: _Optional[_Union[Recalled, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ...) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("party", "version", "protocol_min", "protocol_max", "clock_ms", "instance", "store_id", "term")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    party: str
    version: str
    protocol_min: int
    protocol_max: int
    clock_ms: int
    instance: str
    store_id: str
    term: int
    def __init__(self, party: _Optional[str] = ..., version: _Optional[str] = ..., protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., clock_ms: _Optional[int] = ..., instance: _Optional[str] = ..., store_id: _Optional[str] = ..., term: _Optional[int] = ...) -> None: ...

class StartRun(_message.Message):
    __slots__ = ("ticket_id", "pipeline", "dag_id", "steps", "partition", "config_json", "force", "reason", "number", "within_ms")
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    ticket_id: str
    pipeline: str
    dag_id: str
    steps: _containers.RepeatedCompositeFieldContainer[_run_pb2.Step]
    partition: str
    config_json: str
    force: bool
    reason: str
    number: int
    within_ms: int
    def __init__(self, ticket_id: _Optional[str] = ..., pipeline: _Optional[str] = ..., dag_id: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[_run_pb2.Step, _Mapping]]] = ..., partition: _Optional[str] = ..., config_json: _Optional[str] = ..., force: _Optional[bool] = ..., reason: _Optional[str] = ..., number: _Optional[int] = ..., within_ms: _Optional[int] = ...) -> None: ...

class RunStarted(_message.Message):
    __slots__ = ("run_id", "number", "already_done", "crossed")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ALREADY_DONE_FIELD_NUMBER: _ClassVar[int]
    CROSSED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    number: int
    already_done: bool
    crossed: bool
    def __init__(self, run_id: _Optional[str] = ..., number: _Optional[int] = ..., already_done: _Optional[bool] = ..., crossed: _Optional[bool] = ...) -> None: ...

class RunUpdate(_message.Message):
    __slots__ = ("run_id", "version", "state", "failure", "tasks", "receipt")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    version: int
    state: _run_pb2.State
    failure: _failure_pb2.Failure
    tasks: _containers.RepeatedCompositeFieldContainer[_run_pb2.Half]
    receipt: str
    def __init__(self, run_id: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[_run_pb2.State, str]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[_run_pb2.Half, _Mapping]]] = ..., receipt: _Optional[str] = ...) -> None: ...

class TicketUpdate(_message.Message):
    __slots__ = ("ticket_id", "grant", "acceptance", "revocation", "declination")
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_FIELD_NUMBER: _ClassVar[int]
    DECLINATION_FIELD_NUMBER: _ClassVar[int]
    ticket_id: str
    grant: str
    acceptance: str
    revocation: str
    declination: str
    def __init__(self, ticket_id: _Optional[str] = ..., grant: _Optional[str] = ..., acceptance: _Optional[str] = ..., revocation: _Optional[str] = ..., declination: _Optional[str] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Probe(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProbeFrame(_message.Message):
    __slots__ = ("answer_bytes", "at_us", "padding")
    ANSWER_BYTES_FIELD_NUMBER: _ClassVar[int]
    AT_US_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    answer_bytes: int
    at_us: int
    padding: bytes
    def __init__(self, answer_bytes: _Optional[int] = ..., at_us: _Optional[int] = ..., padding: _Optional[bytes] = ...) -> None: ...

class Clock(_message.Message):
    __slots__ = ("clock_ms",)
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    clock_ms: int
    def __init__(self, clock_ms: _Optional[int] = ...) -> None: ...

class Preflight(_message.Message):
    __slots__ = ("pipeline",)
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    pipeline: str
    def __init__(self, pipeline: _Optional[str] = ...) -> None: ...

class PreflightReport(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[_run_pb2.Check]
    def __init__(self, checks: _Optional[_Iterable[_Union[_run_pb2.Check, _Mapping]]] = ...) -> None: ...

class Landed(_message.Message):
    __slots__ = ("dataset", "partition")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    partition: str
    def __init__(self, dataset: _Optional[str] = ..., partition: _Optional[str] = ...) -> None: ...

class StoreMark(_message.Message):
    __slots__ = ("store_id", "runs")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    store_id: str
    runs: int
    def __init__(self, store_id: _Optional[str] = ..., runs: _Optional[int] = ...) -> None: ...

class Remembered(_message.Message):
    __slots__ = ("store", "runs", "complete")
    STORE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    store: StoreMark
    runs: _containers.RepeatedCompositeFieldContainer[RememberedRun]
    complete: bool
    def __init__(self, store: _Optional[_Union[StoreMark, _Mapping]] = ..., runs: _Optional[_Iterable[_Union[RememberedRun, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class RememberedRun(_message.Message):
    __slots__ = ("run_id", "ticket_id", "version", "opened_ms", "running")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TICKET_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OPENED_MS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    ticket_id: str
    version: int
    opened_ms: int
    running: bool
    def __init__(self, run_id: _Optional[str] = ..., ticket_id: _Optional[str] = ..., version: _Optional[int] = ..., opened_ms: _Optional[int] = ..., running: _Optional[bool] = ...) -> None: ...

class Recalled(_message.Message):
    __slots__ = ("store", "unknown")
    STORE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    store: StoreMark
    unknown: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, store: _Optional[_Union[StoreMark, _Mapping]] = ..., unknown: _Optional[_Iterable[str]] = ...) -> None: ...
