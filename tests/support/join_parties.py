"""Two parties with gateways who join their streams: laid out, started as processes, and what they have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from fedtasks.dataclass_io import to_plain
from fedtasks.errors import FedtasksError, PeerFailed, ProcessFailed
from fedtasks.join.settings import JoinSettings
from fedtasks.join.state import Commit, ShardState, stream_uri
from fedtasks.link.client import GatewayClient
from fedtasks.runtime.task_config import FAILURE, OUTCOME, TaskConfig
from fedtasks.store import JoinRow
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, ROOT, Member, grant_ticket, make_members, set_address
from tests.support.join_logs import FOLLOWER_PLACE, LEADER_PLACE
from tests.support.runs import open_run, wait_for

ENTRY = "fedtasks.join.half:run"
BANK, SHOP = "bank", "shop"
PEER = {BANK: SHOP, SHOP: BANK}
PLACE = {BANK: LEADER_PLACE, SHOP: FOLLOWER_PLACE}
DATASET = {BANK: "loans", SHOP: "customers"}

_STREAM = """datasets:
  - name: {name}
    uri: log
    id: id
    features: {{{place}: numeric, {features}}}
{label}    event_time: {{column: time, unit: ms, offset_s: {offset_s}}}
    settle_s: 0
"""


def stream_text(name: str, *, features: int = 3, offset_s: float = 0.0) -> str:
    """Return a party's declaration of its log, as `tests.support.join_logs` writes it into its folder ``log``."""
    others = ", ".join(f"x{number}: numeric" for number in range(1, features))
    label = "    label: y\n" if name == BANK else ""
    return _STREAM.format(name=DATASET[name], place=PLACE[name], features=others, label=label, offset_s=offset_s)


def declare_stream(member: Member, text: str) -> None:
    """Let a party have this stream and nothing else."""
    file = member.folder / "party.yaml"
    file.write_text(file.read_text().partition("datasets:")[0] + text)


# ----------------------------------------------------------------------------------------------------------- processes
@dataclass(frozen=True)
class Ended:
    """How a half ended: with an outcome, or with an error's code and what it says."""

    outcome: dict[str, Any] | None
    code: str = ""
    text: str = ""


class Half:
    """The folder of one half, and its process once it has begun.

    Parameters
    ----------
    member
        Whose half.
    config
        What it is to do.
    folder
        Where its configuration and what it leaves lie.
    """

    def __init__(self, member: Member, config: TaskConfig, folder: Path) -> None:
        self.name, self.folder = member.name, folder
        folder.mkdir(parents=True)
        self.config_file = folder / "config.json"
        self.config_file.write_text(json.dumps(to_plain(config)))
        self.log = folder / "log"

    def start(self) -> subprocess.Popen[bytes]:
        """Start it as a new process, as an operator does."""
        argv = [sys.executable, "-m", "fedtasks.runtime", ENTRY, str(self.config_file)]
        with self.log.open("wb") as output:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            return subprocess.Popen(argv, stdout=output, stderr=output, env=environment)

    def ended(self) -> Ended:
        """Return how it ended; without an outcome and without a code it was killed."""
        outcome, failure = self.folder / OUTCOME, self.folder / FAILURE
        if outcome.exists():
            return Ended(json.loads(outcome.read_text()))
        if not failure.exists():
            return Ended(None)
        said = json.loads(failure.read_text())
        return Ended(None, said["code"], f"{said['detail']} {said['where']} {said['public']}")


class Joining:
    """One run of both parties, whose tasks are joins.

    Parameters
    ----------
    members
        Bank, which leads, and shop.
    clients
        Their gateways.
    run_id
        The run.
    """

    def __init__(self, members: Mapping[str, Member], clients: Mapping[str, GatewayClient], run_id: str) -> None:
        self.members, self.clients, self.run_id = members, clients, run_id
        self._token = 0

    def meet(self, half: str) -> int:
        """Announce both halves anew; return the attempt that both gateways have agreed on."""
        self._token += 1
        token, clients = str(self._token), list(self.clients.values())
        for client in clients:
            client.announce(self.run_id, half, token, 60)
        for client in clients:
            wait_for(lambda client=client: client.announce(self.run_id, half, token, 60).ready)  # type: ignore[misc]
        (attempt,) = {client.announce(self.run_id, half, token, 60).own.attempt for client in clients}
        for client in clients:
            client.start(self.run_id, half, attempt)
        return attempt

    def prepare(self, task: str, settings: JoinSettings, shard: int | None = None, **more: Any) -> dict[str, Half]:
        """Let both halves of the next attempt at a join, or at a shard of one, be ready to begin."""
        base = TaskConfig(
            party=Path(),
            run_id=self.run_id,
            task=task,
            attempt=0,
            peer="",
            leader=BANK,
            datasets=DATASET,
            settings=to_plain(settings),
            shared_digest="s",
            stage="" if shard is None else "shard",
            shard=shard,
            kind="join",
            **more,
        )
        attempt = self.meet(base.half)
        halves = {}
        for name, member in self.members.items():
            config = replace(base, party=member.folder / "party.yaml", attempt=attempt, peer=PEER[name])
            halves[name] = Half(member, config, member.folder / "work" / base.half / str(attempt))
        return halves

    def tell(self, half: str, attempt: int, ended: Mapping[str, Ended]) -> None:
        """Tell the gateways how both halves ended, as operators do."""
        for name, end in ended.items():
            if end.outcome is not None:
                self.clients[name].finish(self.run_id, half, attempt, outcome=end.outcome)
            else:
                failure: FedtasksError = PeerFailed(end.code) if end.code else ProcessFailed("killed")
                self.clients[name].finish(self.run_id, half, attempt, failure=failure)

    def stream_uri(self, name: str, stream: str) -> str:
        """Return where a party keeps what it has joined of a stream."""
        return stream_uri(self.members[name].party.storage, stream, PEER[name])

    def known(self, name: str, stream: str, shard: int = 0) -> JoinRow | None:
        """Return the last commit of a shard as a party's store knows it."""
        with self.members[name].store() as store:
            return store.joins.get(PEER[name], stream, shard)

    def commits(self, name: str, stream: str, shard: int = 0) -> list[tuple[Commit, list[Path]]]:
        """Return what counts of a shard at a party; see `commits`."""
        return commits(self.stream_uri(name, stream), shard, self.known(name, stream, shard))


@contextmanager
def joining(
    folder: Path,
    tasks: Sequence[str],
    start_gateways: Callable[[Member, ExitStack], None],
    *,
    texts: Mapping[str, str] | None = None,
    store_text: Callable[[Member], str] = lambda member: "",
) -> Iterator[Joining]:
    """Lay out both parties, start their gateways, and open a run with these tasks.

    Parameters
    ----------
    texts
        Declarations of both streams, by party; by default those of `stream_text`.
    store_text
        What a party's party.yaml says of its store; empty for SQLite.
    """
    with ExitStack() as stack:
        bank, shop, listen = make_members(folder)
        set_address(shop, listen)
        members = {BANK: bank, SHOP: shop}
        for name, member in members.items():
            declare_stream(member, (texts or {}).get(name) or stream_text(name))
            file = member.folder / "party.yaml"
            file.write_text(file.read_text() + store_text(member))
            stack.callback(member.close)
            start_gateways(member, stack)
        grant_ticket(shop, bank)
        clients = {name: stack.enter_context(member.client()) for name, member in members.items()}
        steps = [run_pb2.Step(name=name, digest="a", kind="join") for name in tasks]
        run_id = open_run(clients[BANK], steps=steps).run.run_id
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(clients[SHOP], run_id, config_json="", peer="", partition="", steps=steps)
        yield Joining(members, clients, run_id)


# -------------------------------------------------------------------------------------------------------------- blocks
def commits(uri: str, shard: int, known: JoinRow | None) -> list[tuple[Commit, list[Path]]]:
    """Return the commits of a shard that count, in order, and the files of their blocks.

    Parameters
    ----------
    uri
        Where the joined stream lies.
    known
        The last commit as the party's store knows it.
    """
    state = ShardState(uri, shard)
    last = state.committed(known.number, known.digest) if known else Commit()
    return [
        (commit, [Path(state.path(commit, block.name).removeprefix("file://")) for block in commit.blocks])
        for commit in state.commits(last)
    ]


def block_bytes(found: Sequence[tuple[Commit, Sequence[Path]]]) -> dict[str, bytes]:
    """Return the bytes of all blocks of a shard, by the number of the commit and the name."""
    return {f"{commit.number}/{file.name}": file.read_bytes() for commit, files in found for file in files}


def places(found: Sequence[tuple[Commit, Sequence[Path]]], name: str) -> npt.NDArray[np.int64]:
    """Return of every joined row, in the order of the blocks, its place in a party's log."""
    columns = [pq.read_table(file, columns=[PLACE[name]]).column(0).to_numpy() for _, files in found for file in files]
    return np.concatenate([np.empty(0), *columns]).astype(np.int64)
