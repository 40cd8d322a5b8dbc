"""The metrics of a gateway: their names, what they say, and their labels.

A label is a name of party.yaml, a pipeline or a step of this party's DAGs, a ticket in force, a clause, or a word of a
fixed set: so there are few series, and none is chosen by a peer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fedtasks import __version__
from fedtasks.gateway.observed.pulse import Now
from fedtasks.reports.figures import Place, RunFigures, SlowFigures

PREFIX = "fedtasks_"

STRANGERS = "(strangers)"
"""Stands for whoever is no peer; no peer can be called so."""


@dataclass(frozen=True)
class Declared:
    """One metric.

    Parameters
    ----------
    name
        With its unit, without `PREFIX`.
    text
        What it says.
    labels
        The names of its labels.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as it is asked for."""
        return PREFIX + self.name

    def of(self, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        """Return it with its values, by the values of its labels."""
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        family: Metric = kind(self.full_name, self.text, labels=self.labels)
        for labels, value in samples:
            family.add_metric(labels, value)  # type: ignore[attr-defined]  # of both kinds
        return family

    def is_(self, value: float) -> Metric:
        """Return it with its one value."""
        return self.of([((), value)])


_PLACE = ("pipeline", "peer", "task")

INFO = Declared("build_info", "1, with the release of the gateway.", ("version",))
READY = Declared("ready", "1 while /readyz says so, else 0.")
ACTIVE = Declared("active", "1 while this gateway is its party's active one, 0 while it stands by.")
LOOP_LAG = Declared("loop_lag_seconds", "By how much later than it should the event loop got to its last beat.")
STORE_UP = Declared("store_up", "1 if the store has answered, else 0; without an answer its figures are left out.")
STORE_ANSWER = Declared("store_answer_seconds", "How long the store took for one small query.")
RUNS = Declared("runs", "Runs that go on, by what they are at.", ("state",))
RUNS_ENDED = Declared(
    "runs_ended_last_day", "Runs that ended within 24 hours, by how and by the code of the failure.", ("state", "code")
)
WAITS = Declared("runs_held_up", "Runs that something holds up, by where and by its cause.", (*_PLACE, "cause"))
WAITS_SINCE = Declared(
    "runs_held_up_since_timestamp_seconds", "Since when the first of these is held up.", (*_PLACE, "cause")
)
ROWS = Declared("rows_per_second", "Rows that this party's halves pass, as they say themselves.", _PLACE)
UNTOLD = Declared("news_untold", "Runs of which a peer has not confirmed the latest news.", ("peer",))
WATCHED = Declared("reconciler_runs", "Runs that the reconciler looks after.")
PASSED = Declared("reconciler_pass_timestamp_seconds", "When the reconciler has last looked after all of them.")
CONNECTED = Declared("peer_connected", "1 while a conversation with the peer's gateway stands, else 0.", ("peer",))
CONNECTED_SINCE = Declared("peer_changed_timestamp_seconds", "Since when that is so.", ("peer",))
SKEW = Declared("peer_clock_skew_seconds", "How far the peer's clock is ahead of this one.", ("peer",))
WORKERS = Declared("sessions", "Workers of this party that are attached to meet the peer's.", ("peer",))
TUNNELS = Declared("tunnels", "Sessions that go through tunnels.")
BYTES = Declared(
    "session_bytes_total", "Bytes of sessions that have crossed since the gateway began.", ("peer", "direction")
)
CALLS = Declared("peer_calls", "Calls that a peer, or strangers, have open.", ("peer",))
ANSWERING = Declared("peer_requests", "Requests of the peer that are being answered.", ("peer",))
THREADS = Declared("peer_requests_waiting", "Work for the peer that waits for a thread.", ("peer",))
OWN_THREADS = Declared("threads_waiting", "Work whose turn has come and that waits for a thread.")
REFUSALS = Declared("refusals_total", "What peers, or strangers, were refused, by code.", ("peer", "code"))
AIRFLOW = Declared("airflow_part_silent", "1 for each part of this party's Airflow that does not run.", ("part",))
TICKET_LEFT = Declared(
    "ticket_uses_left", "What is left of a ticket in force, by clause.", ("ticket", "peer", "side", "clause")
)
TICKET_ENDS = Declared("ticket_expiry_timestamp_seconds", "When a ticket in force ends.", ("ticket", "peer", "side"))
CERTIFICATE_ENDS = Declared(
    "certificate_expiry_timestamp_seconds", "When the first of a party's certificates ends.", ("party",)
)
JOIN_COMMIT = Declared(
    "join_commit_timestamp_seconds", "When the last commit of a stream was made.", ("stream", "peer")
)
JOIN_LAG = Declared(
    "join_lag_seconds", "How long after its event time a row of a stream was committed, on average.", ("stream", "peer")
)
JOIN_MARK = Declared(
    "join_watermark_timestamp_seconds", "Up to which event time all of a stream is decided.", ("stream", "peer")
)

METRICS = tuple(value for value in list(vars().values()) if isinstance(value, Declared))
"""All of them."""


def of_process(lag_s: float, *, is_ready: bool, is_active: bool) -> Iterator[Metric]:
    """Yield what any gateway says of itself: how late its loop is, whether it serves, and whether it stands by."""
    yield INFO.of([((__version__,), 1)])
    yield READY.is_(is_ready)
    yield ACTIVE.is_(is_active)
    yield LOOP_LAG.is_(lag_s)


def of_active(now: Now, answer_s: float | None) -> Iterator[Metric]:
    """Yield what the active gateway knows of itself.

    Parameters
    ----------
    now
        How it is.
    answer_s
        How long the store took; None if it has not answered.
    """
    peers = now.peers.items()
    yield STORE_UP.is_(answer_s is not None)
    if answer_s is not None:
        yield STORE_ANSWER.is_(answer_s)
    yield WATCHED.is_(now.watched)
    yield PASSED.is_(now.passed_ms / 1000)
    yield CONNECTED.of(((name,), peer.is_connected) for name, peer in peers)
    yield CONNECTED_SINCE.of(((name,), peer.since_ms / 1000) for name, peer in peers)
    yield SKEW.of(((name,), peer.skew_s) for name, peer in peers)
    yield WORKERS.of(((name,), peer.workers) for name, peer in peers)
    yield TUNNELS.is_(now.tunnels)
    yield BYTES.of(
        ((name, direction), n_bytes)
        for name, peer in peers
        for direction, n_bytes in (("sent", peer.sent), ("received", peer.received))
    )
    yield CALLS.of([*(((name,), peer.calls) for name, peer in peers), ((STRANGERS,), now.strangers)])
    yield ANSWERING.of(((name,), peer.answering) for name, peer in peers)
    yield THREADS.of(((name,), peer.waiting) for name, peer in peers)
    yield OWN_THREADS.is_(now.waiting)
    refused: Counter[tuple[str, str]] = Counter()
    for (who, code), n_times in now.refusals.items():
        refused[who if who in now.peers else STRANGERS, code] += n_times
    yield REFUSALS.of(sorted(refused.items()))
    yield AIRFLOW.of(((part,), 1) for part in now.silent)


def of_runs(found: RunFigures) -> Iterator[Metric]:
    """Yield how runs stand."""
    yield RUNS.of(((state,), n) for state, n in sorted(found.going_on.items()))
    yield RUNS_ENDED.of((key, n) for key, n in sorted(found.ended.items()))
    waits = [((*_labels(wait.place), wait.cause), held) for wait, held in found.waits.items()]
    yield WAITS.of((labels, held.runs) for labels, held in waits)
    yield WAITS_SINCE.of((labels, held.since_ms / 1000) for labels, held in waits)
    yield ROWS.of((_labels(place), rate) for place, rate in found.rows_per_s.items())
    yield UNTOLD.of(((peer,), n) for peer, n in sorted(found.untold.items()))


def of_slow(found: SlowFigures) -> Iterator[Metric]:
    """Yield what changes slowly."""
    names = [((each.ticket_id, each.peer, "granted" if each.granted else "held"), each) for each in found.tickets]
    yield TICKET_LEFT.of(((*name, clause), left) for name, each in names for clause, left in each.left.items())
    yield TICKET_ENDS.of((name, each.expires_ms / 1000) for name, each in names)
    yield CERTIFICATE_ENDS.of(((party,), ends_ms / 1000) for party, ends_ms in found.certificates.items())
    streams = [((each.stream, each.peer), each) for each in found.streams]
    yield JOIN_COMMIT.of((name, each.committed_ms / 1000) for name, each in streams)
    yield JOIN_LAG.of((name, each.lag_s) for name, each in streams if each.lag_s is not None)
    yield JOIN_MARK.of((name, each.watermark_ms / 1000) for name, each in streams if each.watermark_ms is not None)


def _labels(place: Place) -> tuple[str, str, str]:
    return place.pipeline, place.peer, place.task
