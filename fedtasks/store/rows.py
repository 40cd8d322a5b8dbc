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
        True: this party granted it; false: it holds it.
    grant, acceptance, revocation
        The signed texts (JWS).
    issued_ms
        When it came to be.
    synced
        The peer has the latest version.
    declination
        The signed text with which the holder has said no.
    """

    ticket_id: str
    peer: str
    granted: bool
    grant: str
    acceptance: str | None
    revocation: str | None
    issued_ms: int
    synced: bool = False
    declination: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it waits for the holder's answer, as far as no time has passed."""
        return self.acceptance is None and self.declination is None and self.revocation is None


@dataclass(frozen=True)
class RunRow:
    """A run as this party knows it: the local half, and the peer's half as last told.

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
        The local half: ``running``, ``succeeded`` or ``failed``.
    peer_state, peer_failure, peer_receipt
        The peer's half.
    version, acked_version, peer_version
        Version of the local half (rises with every change that the peer must learn), the newest one that the peer
        has confirmed, and the newest version of the peer's half that is known here.
    note
        Last note shown on the DAG run.
    opened_ms, closed_ms
        When it began and ended.
    reason
        Why it was asked for.
    at_rest
        Whether it has ended and its DAG run too: only a task that somebody clears lets it go on.
    dataset_digest
        Digest of this party's dataset as it was declared when the run opened; a worker that reads another
        declaration refuses to begin. Empty for a run of a release before 0.3.0.
    triggered
        Whether this side's DAG run is known to be there: False from when a peer's run is entered until it has been
        triggered. What ends before that has cost nothing.
    removed_ms
        When this party has removed its files by policy; None while it keeps them. Such a run never goes on.
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
    at_rest: bool = False
    dataset_digest: str = ""
    triggered: bool = True
    removed_ms: int | None = None


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
    announced_ms, started_ms
        When this attempt was there, and when it began to work (0 if it has not).
    paid
        Of the local half: the last attempt that an earlier charge of the run has paid for, or that people of this
        party have decided on by letting the ended run go on; 0 before that. One higher for each attempt that only went
        on from what was kept.
    leased
        Whether this attempt's worker renews a lease while it works, so that its end is noticed.
    quiet_since_ms, awaits_peer
        Since when a half that works has made no progress (0 while it makes some), and whether it waits for the other
        half meanwhile.
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
    announced_ms: int = 0
    started_ms: int = 0
    paid: int = 0
    leased: bool = False
    quiet_since_ms: int = 0
    awaits_peer: bool = False


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
class DisclosureRow:
    """What one attempt of one task has sent under one name.

    Parameters
    ----------
    run_id, task, attempt
        Which half, and which try of it.
    name
        What the messages are called; ``blinded-00003`` counts as ``blinded``.
    messages, items, bytes
        How many there were, how many rows they held where they are arrays or tables, and their size.
    """

    run_id: str
    task: str
    attempt: int
    name: str
    messages: int
    items: int
    bytes: int


@dataclass(frozen=True)
class RefusalRow:
    """A DAG run that came to no run.

    Parameters
    ----------
    dag_id, dag_run_id
        The DAG run.
    pipeline
        Which of its runs it is, where the DAG holds several: ``dag.run``; else named as the DAG.
    partition, peer
        What it asked for, as far as that was known.
    failure
        Why: ``code``, ``text``, ``party``, ``task``, ``at_ms``.
    at_ms
        When.
    """

    dag_id: str
    dag_run_id: str
    pipeline: str
    partition: str
    peer: str
    failure: Mapping[str, Any]
    at_ms: int


@dataclass(frozen=True)
class ApprovalRow:
    """A person's say in a run whose ticket asks for one of the granting side.

    Parameters
    ----------
    run_id
        Which run.
    state
        ``asked``, ``approved``, ``rejected`` or ``expired``.
    clause
        The clause of the ticket that asks for a person.
    asked_ms, until_ms, decided_ms
        When it was asked, until when it may be answered (0 before a task has asked), and when it was.
    decided_by, reason
        Who answered, and what they said; the other side learns of a reason only when the answer is no.
    """

    run_id: str
    state: str
    clause: str
    asked_ms: int
    until_ms: int
    decided_ms: int | None = None
    decided_by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class PeerRow:
    """How a peer's gateway was last seen.

    Parameters
    ----------
    name
        The peer.
    connected, since_ms
        Whether a conversation stands, and since when that is so.
    seen_ms
        When this party's gateway last looked: if that is long ago, it does not run.
    version, clock_skew_s
        Its release, and how far its clock is from this party's.
    failure
        Why it is not connected; of one that is, that a second gateway of it calls.
    checks, checked_ms
        What the last preflight found, a list of ``{name, ok, code, text}``, and when. Under this party's own name, the
        parts of its Airflow that do not run (``{part, since_ms}``), and since when the gateway knows.
    store_id, store_runs
        Which store it was last known to have, and how many runs with this party that had; empty before it has said so.
    restored_ms
        When its store was last found to have lost runs; None if it never was.
    """

    name: str
    connected: bool
    version: str
    clock_skew_s: float
    failure: Mapping[str, Any] | None
    since_ms: int
    seen_ms: int
    checks: list[dict[str, Any]] | None = None
    checked_ms: int | None = None
    store_id: str = ""
    store_runs: int = 0
    restored_ms: int | None = None


@dataclass(frozen=True)
class LostRunRow:
    """A run that a peer remembers and this store does not.

    Parameters
    ----------
    run_id, peer, ticket_id
        The run, and what the peer says of it.
    at_ms
        When that was found.
    """

    run_id: str
    peer: str
    ticket_id: str
    at_ms: int


@dataclass(frozen=True)
class TicketRequestRow:
    """A ticket that one party would like the other to grant.

    Parameters
    ----------
    request_id, peer
        Its name, and the other party.
    own
        True: this party asks; false: the peer does.
    asked
        What for: ``pipelines``, ``dataset``, ``role``, ``days``, ``reason``.
    state
        ``open``, ``granted`` or ``declined``.
    at_ms
        When it was asked.
    """

    request_id: str
    peer: str
    own: bool
    asked: Mapping[str, Any]
    state: str
    at_ms: int


@dataclass(frozen=True)
class LandingRow:
    """A partition of a dataset that is complete.

    Parameters
    ----------
    party, dataset, partition
        Whose, which one, and its key.
    rows
        How many it has; 0 for a peer's, who does not say.
    landed_ms
        When that became known.
    synced
        This party's Airflow knows, and of a partition of this party the peers that may.
    """

    party: str
    dataset: str
    partition: str
    rows: int
    landed_ms: int
    synced: bool = False


@dataclass(frozen=True)
class ModelRow:
    """A version of a model that both sides have published.

    Parameters
    ----------
    model, version
        Its name, and 1, 2, 3, …, equal on both sides.
    peer, run_id, partition
        With whom, by which run and up to which partition it was trained.
    parent
        The version that it went on from; None if it began anew.
    own_digest, peer_digest
        SHA-256 (hex) of this party's half, and of the peer's as the peer says.
    metrics
        What this party knows of its quality, and of the champion's on the same rows.
    consumed
        This party's dataset → the partitions that it has learnt from beyond its parent.
    champion
        Whether it is the version in use.
    published_ms
        When it came to be.
    algorithm
        Which one has trained it; empty if an earlier release has.
    removed_ms
        When this party has given up its half by policy; None while it keeps it. Such a version is never used again.
    """

    model: str
    version: int
    peer: str
    run_id: str
    partition: str
    parent: int | None
    own_digest: str
    peer_digest: str
    metrics: Mapping[str, Any] | None
    consumed: Mapping[str, list[str]]
    champion: bool
    published_ms: int
    algorithm: str = ""
    removed_ms: int | None = None


@dataclass(frozen=True)
class JoinRow:
    """The last commit of a shard of a stream that is joined with a peer.

    Parameters
    ----------
    peer, stream, shard
        Of what.
    number
        1, 2, 3, …, equal on both sides.
    digest
        SHA-256 of this party's account of it, which names its blocks and the order of their rows.
    run_id
        Which run has made it.
    at_ms
        When.
    """

    peer: str
    stream: str
    shard: int
    number: int
    digest: str
    run_id: str
    at_ms: int


@dataclass(frozen=True)
class JoinWindowRow:
    """What became of this party's rows of one window of event time, in one shard and by one run's commits.

    Parameters
    ----------
    peer, stream, shard
        Of what.
    start_ms
        Where the window begins.
    run_id
        Whose commits have counted them.
    joined
        Rows in committed blocks together with rows of the peer, in time.
    corrected
        Rows that were joined late, in correction blocks.
    late, too_late
        Rows that came later than the lateness and were kept, and those that came too late even for that, left out.
    unmatched
        Rows to which none of the peer's belongs.
    duplicates, rejected
        Rows of an id that was there before, and rows without a usable id or time.
    lag_ms
        Of all joined and corrected rows together: how long after its event time each was committed.
    """

    peer: str
    stream: str
    shard: int
    start_ms: int
    run_id: str
    joined: int = 0
    corrected: int = 0
    late: int = 0
    too_late: int = 0
    unmatched: int = 0
    duplicates: int = 0
    rejected: int = 0
    lag_ms: int = 0


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


@dataclass(frozen=True)
class Labels:
    """A column of labels of this party's, as one peer may be told of it.

    Parameters
    ----------
    peer
        Who is told.
    dataset, label
        The dataset by its name in party.yaml, and its label column.
    """

    peer: str
    dataset: str
    label: str


@dataclass(frozen=True)
class LabelSpendRow:
    """What a peer is told of labels.

    Parameters
    ----------
    labels
        Of which labels who.
    item
        What is told, by a name that is one over all runs.
    epsilon
        How much, in millionths of a nat.
    run_id, task
        Which task of which run tells it.
    """

    labels: Labels
    item: str
    epsilon: int
    run_id: str
    task: str


@dataclass(frozen=True)
class TermRow:
    """Which gateway of the party is the active one.

    Parameters
    ----------
    term
        How many have been it so far, this one too.
    began_ms
        Since when it is.
    host
        Where it runs, and as which process.
    addresses
        Field of ``gateway`` in party.yaml → ``host:port`` where the party's other gateways reach it.
    """

    term: int
    began_ms: int
    host: str
    addresses: Mapping[str, str]


@dataclass(frozen=True)
class LabelsTold:
    """All that a peer was told of a column of labels.

    Parameters
    ----------
    labels
        Of which labels who.
    epsilon
        How much, in millionths of a nat.
    runs
        By how many runs.
    last_ms
        When last.
    """

    labels: Labels
    epsilon: int
    runs: int
    last_ms: int
