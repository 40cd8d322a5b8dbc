"""The parties of a simulation, with real keys and tickets, made once for all schedules of a process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fedtasks import identity, tickets
from fedtasks.config import Party, load_party
from fedtasks.store import TicketRow

EPOCH_MS = 1_795_248_000_000
"""When every simulation begins: 2026-11-21 08:00 UTC."""

NAMES = ("bank", "shop", "mill")

PIPELINE = "train"

_PARTY = """
name: {name}
gateway:
  listen: 127.0.0.1:1
  certificate: keys/gateway.pem
  private_key: keys/gateway.key
  authority: keys/authority.pem
  ticket_key: keys/ticket.key
  worker_secret_file: keys/worker.secret
airflow: {{url: "http://simulated", user: gateway, password_file: keys/worker.secret}}
storage: storage
max_clock_skew_s: 60
peers:
{peers}
datasets:
  - name: {name}_rows
    uri: rows.parquet
    id: customer
    features: {{x: numeric}}
"""

_PEER = """  - name: {name}
    authority: {folder}/keys/authority.pem
    ticket_key: {ticket_key}
    address: simulated:1
"""


@dataclass(frozen=True)
class Member:
    """One party as it is before anything has happened.

    Parameters
    ----------
    party
        Its configuration.
    certificate
        By which its peers know it, in PEM.
    """

    party: Party
    certificate: bytes


def dataset(party: str) -> str:
    """Return the name of a party's dataset."""
    return f"{party}_rows"


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fedtasks-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def members(names: tuple[str, ...] = NAMES[:2]) -> dict[str, Member]:
    """Return parties that know each other; whose name comes first is dialled by the others."""
    root = _folder() / "-".join(names)
    for name in names:
        identity.create_identity(root / name / "keys", name)
    keys = {name: tickets.load_ticket_key(root / name / "keys" / "ticket.key") for name in names}
    found = {}
    for name in names:
        peers = "".join(
            _PEER.format(name=peer, folder=root / peer, ticket_key=tickets.public_text(keys[peer].public_key()))
            for peer in names
            if peer != name
        )
        file = root / name / "party.yaml"
        file.write_text(_PARTY.format(name=name, peers=peers))
        found[name] = Member(load_party(file), (root / name / "keys" / "gateway.pem").read_bytes())
    return found


@cache
def ticket(names: tuple[str, ...], grantor: str, holder: str, runs: int, at_once: int, person: bool) -> TicketRow:
    """Return a ticket with both signatures, as its grantor keeps it."""
    cast = members(names)
    keys = {name: tickets.load_ticket_key(member.party.gateway.ticket_key) for name, member in cast.items()}
    dataset, now_s = cast[grantor].party.datasets[0], EPOCH_MS // 1000
    grant = tickets.Grant(
        ticket_id=f"{grantor}-{holder}-{runs}-{at_once}-{int(person)}",
        grantor=grantor,
        holder=holder,
        datasets=(tickets.DatasetScope(dataset.name, dataset.schema_digest, tuple(dataset.features)),),
        pipelines=(PIPELINE,),
        roles=("leader", "follower"),
        not_before_s=now_s - 3600,
        expires_s=now_s + 7 * 86_400,
        limits={"runs": runs, "concurrent_runs": at_once},
        floor={"label_protection": "none"},
        approval="person" if person else "automatic",
    )
    token = tickets.issue(grant, keys[grantor])
    acceptance = tickets.accept(token, keys[holder], holder, now_s)
    return TicketRow(grant.ticket_id, holder, True, token, acceptance, None, EPOCH_MS, True)
