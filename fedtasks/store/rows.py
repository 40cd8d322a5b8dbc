"""What the store keeps, one frozen dataclass per table; the fields are the columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TicketRow:
    """A ticket with the signatures of both parties.

    Parameters
    ----------
    ticket_id, peer
        Its name and the other party.
    granted
        True: we granted it; false: we hold it.
    grant, acceptance, revocation
        The signed texts (JWS).
    issued_ms
        When it came to be.
    synced
        The peer has the latest version.
    """

    ticket_id: str
    peer: str
    granted: bool
    grant: str
    acceptance: str | None
    revocation: str | None
    issued_ms: int
    synced: bool = False


@dataclass(frozen=True)
class RunRow:
    """A run as this party knows it: its own half, and the peer's half as last told.

    Parameters
    ----------
    run_id, pipeline, partition, number
        The run's name and its three parts.
    peer, initiated
        The other party, and whether this side is the initiator.
    ticket_id
        The ticket it runs under.
    config_digest, config_json, steps_json
        What both sides agreed on.
    dag_id, dag_run_id
        The DAG run of this side.
    state, failure, receipt
        Own half: ``running``, ``succeeded`` or ``failed``.
    peer_state, peer_failure, peer_receipt
        The peer's half.
    version, acked_version, peer_version
        Version of our half (rises with every change that the peer must learn), the newest one that the peer has
        confirmed, and the newest version of the peer's half that we have.
    note
        Last note shown on the DAG run.
    opened_ms, closed_ms
        When it began and ended.
    reason
        Why it was asked for.
    """

    run_id: str
    pipeline: str
    partition: str
    number: int
    peer: str
    initiated: bool
    ticket_id: str
    config_digest: str
    config_json: str
    steps_json: str
    dag_id: str
    dag_run_id: str
    state: str = "running"
    failure: Mapping[str, Any] | None = None
    peer_state: str = "running"
    peer_failure: Mapping[str, Any] | None = None
    receipt: str = ""
    peer_receipt: str = ""
    version: int = 1
    acked_version: int = 0
    peer_version: int = 0
    note: str = ""
    opened_ms: int = field(kw_only=True)
    closed_ms: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class HalfRow:
    """One party's half of one task.

    Parameters
    ----------
    run_id, task, own
        Which half.
    attempt
        Which try; both sides count together.
    state
        ``waiting``, ``running``, ``succeeded`` or ``failed``.
    token
        Names the try in Airflow: the same token is the same attempt.
    since_ms, until_ms
        When the state began, and when waiting ends (0 if not waiting).
    failure, outcome, progress
        Why it failed; what it ended with; how far it is (display only).
    """

    run_id: str
    task: str
    own: bool
    attempt: int
    state: str
    token: str = ""
    since_ms: int = 0
    until_ms: int = 0
    failure: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class MetricRow:
    """One value of one metric at one step."""

    run_id: str
    task: str
    name: str
    step: int
    value: float
    at_ms: int


@dataclass(frozen=True)
class AuditRow:
    """One decision, chained to the one before it.

    Parameters
    ----------
    seq
        1, 2, 3, … without a gap.
    at_ms, actor, action
        When, who, what.
    decision
        ``allowed``, ``refused`` or ``noted``.
    detail
        Facts; a JSON object.
    previous, digest
        Digest of the row before, and of this one (SHA-256, hex).
    """

    seq: int
    at_ms: int
    actor: str
    action: str
    decision: str
    detail: Mapping[str, Any]
    previous: str
    digest: str


@dataclass(frozen=True)
class TagTableRow:
    """A tag table that is loaded for live lookups.

    Parameters
    ----------
    table_id
        Names its rows.
    dataset, key_id
        Whose ids, and under which signing key.
    generation
        Names its content.
    columns
        Whose values are kept beside the tags, as answers.
    rows
        How many ids it has.
    loaded_ms
        When it came to be.
    """

    table_id: int
    dataset: str
    key_id: str
    generation: str
    columns: tuple[str, ...]
    rows: int
    loaded_ms: int
