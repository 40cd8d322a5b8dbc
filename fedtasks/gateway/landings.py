"""Landed partitions: known to this party's Airflow, which may begin a run, and to peers that may use the dataset."""

from __future__ import annotations

import asyncio
import logging

from fedtasks.config import NAME, check_partition
from fedtasks.errors import ConfigError, FedtasksError, TicketScope
from fedtasks.gateway.backlogs import Backlogs
from fedtasks.gateway.base import Base
from fedtasks.names import asset_uri
from fedtasks.store import LandingRow
from fedtasks.text import plain_text
from fedtasks.wire.v1 import peer_pb2, worker_pb2

log = logging.getLogger(__name__)


class Landings:
    """What has landed here and at the peers, and who knows of it.

    Parameters
    ----------
    base
        This party, its Airflow and its connections.

    Notes
    -----
    A landing is entered in the store first and made known from there, again and again until everybody has it: neither
    an Airflow that is down nor a peer that is away loses one.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._party, self._store, self._tickets = base.party, base.store, base.tickets
        self._airflow, self._connections, self._clock = base.airflow, base.connections, base.clock
        # Spares asking again those that know, while another does not answer.
        self._told: set[tuple[str, LandingRow]] = set()
        self._backlogs: Backlogs[LandingRow] = Backlogs([base.party.name, *base.connections])

    def land(self, request: worker_pb2.LandPartitionRequest) -> bool:
        """Enter a partition of this party's dataset that is complete; False if it had landed before.

        Raises
        ------
        ConfigError
            This party declares no such dataset, or the partition has no plain key.

        Notes
        -----
        Reveals: the names of dataset and partition, to the peers that hold a ticket which names the dataset.
        """
        dataset = self._base.party.dataset(request.dataset)
        check_partition(request.partition)
        if request.rows < 0:
            raise ConfigError("a number of rows cannot be negative", field="rows")
        row = LandingRow(self._party.name, dataset.name, request.partition, request.rows, self._clock())
        is_new = self._store.landings.add(row)
        if is_new:
            facts = {"dataset": row.dataset, "partition": row.partition, "rows": row.rows}
            self._store.audit.add(self._party.name, "data.land", "noted", **facts)
        return is_new

    def learn(self, peer: str, landed: peer_pb2.Landed) -> None:
        """Enter a partition that has landed at `peer`.

        Raises
        ------
        TicketScope
            No ticket that this party holds names the dataset.
        ConfigError
            The partition has no plain key.
        """
        check_partition(landed.partition)
        granted = {scope.name for grant in self._tickets.held_now(peer) for scope in grant.datasets}
        if not NAME.fullmatch(landed.dataset) or landed.dataset not in granted:
            raise TicketScope(clause="datasets", asked=plain_text(landed.dataset, 64))
        self._store.landings.add(LandingRow(peer, landed.dataset, landed.partition, 0, self._clock()))

    async def spread(self) -> None:
        """See of every landing who has yet to learn of it; `tell` lets them know."""
        for row in await asyncio.to_thread(self._store.landings.unsynced):
            knowers = await asyncio.to_thread(self._knowers, row)
            unaware = [name for name in knowers if (name, row) not in self._told]
            for name in unaware:
                self._backlogs.add(name, row)
            if not unaware:
                await asyncio.to_thread(self._store.landings.mark_synced, row)
                self._told -= {(name, row) for name in knowers}

    async def tell(self) -> None:
        """Make known what `spread` finds, to all of them side by side, until cancelled."""
        await self._backlogs.work_off(self._tell)

    def _knowers(self, row: LandingRow) -> list[str]:
        """Return who shall know: this party's Airflow, and of what landed here the peers that may use the dataset."""
        if row.party != self._party.name:
            return [self._party.name]
        peers = [
            name
            for name in self._connections
            if any(row.dataset == scope.name for grant in self._tickets.granted_now(name) for scope in grant.datasets)
        ]
        return [self._party.name, *peers]

    async def _tell(self, name: str, row: LandingRow) -> None:
        """Tell one of them, now or at a later pass."""
        try:
            if name == self._party.name:
                for uri in (asset_uri(row.party), asset_uri(row.party, row.dataset)):
                    await self._airflow.update_asset(uri, row.partition)
            elif self._connections[name].is_connected:
                landed = peer_pb2.Landed(dataset=row.dataset, partition=row.partition)
                await self._connections[name].request(landed=landed)
            else:
                return
        except FedtasksError as error:
            log.warning("%s does not know yet that %s %s has landed: %s", name, row.dataset, row.partition, error)
            if error.retryable:
                return
        self._told.add((name, row))
