"""What all parts of the gateway stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedtasks.clock import Clock
from fedtasks.config import Party
from fedtasks.errors import FedtasksError
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.gateway.airflow_health import AirflowHealth
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.ledger import Ledger
from fedtasks.gateway.locks import Locks
from fedtasks.gateway.notes import refused, together
from fedtasks.gateway.party_file import PartyFile
from fedtasks.gateway.tickets import Tickets
from fedtasks.gateway.unshown_notes import UnshownNotes
from fedtasks.store import RefusalRow, Store


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

    Notes
    -----
    ``health`` is which parts of this party's Airflow do not run.
    """

    file: PartyFile
    store: Store
    tickets: Tickets
    airflow: AirflowApi
    clock: Clock
    changes: Changes
    connections: Mapping[str, PeerConnection]
    ledger: Ledger
    health: AirflowHealth = field(default_factory=AirflowHealth, init=False)
    _noting: Locks = field(default_factory=Locks, init=False)
    _unshown: UnshownNotes = field(default_factory=UnshownNotes, init=False)

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

    async def look_at_airflow(self, *, at_once: bool = False) -> bool:
        """See whether all parts of this party's Airflow run, if it is time to; return whether that has changed."""
        return await self.health.look(self.airflow, self.store, self.party.name, self.clock, at_once=at_once)

    async def require_startable(self) -> None:
        """Check that a DAG run of this party's would begin if it were started.

        Raises
        ------
        PeerAirflowUnreachable
            As for `AirflowHealth.require_startable`; nothing that was seen some seconds ago refuses.
        """
        if not self.health.is_startable:
            await self.look_at_airflow(at_once=True)
        self.health.require_startable()

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
            It could not be shown yet; without a run it is tried again by `show_again`.
        """
        try:
            await self._show(dag_id, dag_run_id, pipeline, note, run_id)
        except FedtasksError:
            if not run_id:  # a run's note is compared with what is shown at every pass of the reconciler
                self._unshown.add((dag_id, dag_run_id, pipeline), note, self.clock())
            raise
        self._unshown.remove((dag_id, dag_run_id, pipeline))

    def forget_note(self, dag_id: str, dag_run_id: str, pipeline: str) -> None:
        """Show no more what could not be shown of a DAG run: it has come to a run, whose note counts."""
        self._unshown.remove((dag_id, dag_run_id, pipeline))

    def note_later(self, refusal: RefusalRow) -> None:
        """Have a refusal shown by `show_again`: whether it was is not known."""
        place = refusal.dag_id, refusal.dag_run_id, refusal.pipeline
        note = refused(refusal, self.party.name, self.airflow.page(refusal.dag_id, refusal.dag_run_id))
        self._unshown.add(place, note, self.clock())

    async def show_again(self) -> None:
        """Show what Airflow has not taken before, as far as it is time to.

        Raises
        ------
        FedtasksError
            It takes none of it now either; the others are tried later.
        """
        for place, note in list(self._unshown.due(self.clock())):
            if self._unshown.has(place, note):  # nothing newer has been said meanwhile
                await self.show_note(*place, note)

    async def _show(self, dag_id: str, dag_run_id: str, pipeline: str, note: str, run_id: str) -> None:
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
