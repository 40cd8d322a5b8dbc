"""The parts of a gateway, as its services and its reconciler use them."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks.gateway.admission import Admission
from fedtasks.gateway.base import Base
from fedtasks.gateway.dag_runs import DagRuns
from fedtasks.gateway.landings import Landings
from fedtasks.gateway.lookups import Lookups
from fedtasks.gateway.models import Models
from fedtasks.gateway.notifier import Notifier
from fedtasks.gateway.own_halves import OwnHalves
from fedtasks.gateway.peer_halves import PeerHalves
from fedtasks.gateway.preflight import Preflights
from fedtasks.gateway.probes import Probes
from fedtasks.gateway.recollections import Recollections
from fedtasks.gateway.relay import Relay
from fedtasks.gateway.requests import RequestAnswers
from fedtasks.gateway.runs import Runs


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One of each, all on the same base; `server` puts them together.

    Parameters
    ----------
    base
        What they stand on.
    runs, own_halves, peer_halves
        Every run, and both halves of its tasks.
    relay
        The sessions of their workers.
    admission
        Decides whether a run may begin.
    dag_runs
        Begins what peers have asked for in this party's Airflow.
    lookups, models, landings, preflights, probes
        What peers and workers ask beside runs.
    recollections
        What both parties remember, compared.
    requests
        What this party answers to peers that ask for tickets.
    notifier
        Tells people what needs them.
    """

    base: Base
    runs: Runs
    own_halves: OwnHalves
    peer_halves: PeerHalves
    relay: Relay
    admission: Admission
    dag_runs: DagRuns
    lookups: Lookups
    models: Models
    landings: Landings
    preflights: Preflights
    probes: Probes
    recollections: Recollections
    requests: RequestAnswers
    notifier: Notifier
