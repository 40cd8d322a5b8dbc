"""What all parts of the gateway stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedtasks.clock import Clock
from fedtasks.config import Party
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.ledger import Ledger
from fedtasks.gateway.locks import Locks
from fedtasks.gateway.notes import refused, together
from fedtasks.gateway.party_file import PartyFile
from fedtasks.gateway.tickets import Tickets
from fedtasks.store import Store


@dataclass(frozen=True, kw_only=True)
class Base:
    """This party, where it keeps what it knows, and whom it can speak with.

    Parameters
    ----------
    file
        Its configuration, which is looked at again while the gateway runs.
    store, tickets
        Where everything is kept; the tickets in it as far as their signatures prove them.
    airflow
        This party's Airflow.
    clock
        The one clock of the gateway.
    changes
        Wakes who watches a run.
    connections
        Peer name → connection, of every peer in party.yaml.
    ledger
        Audits what peers cause.
    """

    file: PartyFile
    store: Store
    tickets: Tickets
    airflow: AirflowApi
    clock: Clock
    changes: Changes
    connections: Mapping[str, PeerConnection]
    ledger: Ledger
    _noting: Locks = field(default_factory=Locks, init=False)

    @property
    def party(self) -> Party:
        """This party's configuration as it counts now: ask each time, unless for what is `READ_ONCE`."""
        return self.file.party

    def connection(self, peer: str) -> PeerConnection:
        """Return the connection with a peer.

        Raises
        ------
        PeerUnknown
            There is no such peer.
        GatewayOutdated
            It was added, changed or removed after the gateway had started.
        """
        self.file.require_current(peer)
        return self.connections[peer]

    async def show_note(self, dag_id: str, dag_run_id: str, pipeline: str, note: str, run_id: str = "") -> None:
        """Show at the top of a DAG run's page how its run of a pipeline stands, beside those of its other pipelines.

        Parameters
        ----------
        dag_id, dag_run_id, pipeline
            Where it is shown, and of which pipeline that is said.
        note
            A line of Markdown.
        run_id
            The run with which it is kept once it is shown.

        Raises
        ------
        AirflowUnreachable
            It could not be shown.
        """
        # One at a time: what is said of another pipeline meanwhile would be overwritten by what was known before.
        async with self._noting.hold(dag_id, dag_run_id):
            notes = await asyncio.to_thread(self._notes, dag_id, dag_run_id)
            notes[pipeline] = note
            await self.airflow.set_note(dag_id, dag_run_id, together(notes.values()))
            if run_id:
                await asyncio.to_thread(lambda: self.store.runs.change(run_id, note=note))

    def _notes(self, dag_id: str, dag_run_id: str) -> dict[str, str]:
        """Return what was last said of a DAG run's pipelines, those first whose runs were opened first."""
        notes = {run.pipeline: run.note for run in self.store.runs.list_of_dag_run(dag_id, dag_run_id)}
        link = self.airflow.page(dag_id, dag_run_id)
        for refusal in self.store.refusals.of_dag_run(dag_id, dag_run_id):
            notes[refusal.pipeline] = refused(refusal, self.party.name, link)
        return notes
