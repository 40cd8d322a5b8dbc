"""Two operating-system processes, each with its own engine, that run the halves of a task and meet over a pipe."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fedtasks.config import Airflow as AirflowApi
from fedtasks.config import Dataset, Gateway, Party, Peer, Spark
from fedtasks.data.storage import read_json
from fedtasks.engines import open_engine
from fedtasks.errors import DataMissing, FedtasksError, PeerFailed
from fedtasks.link.conversation import Conversation
from fedtasks.link.endpoint import Endpoint
from fedtasks.runtime.context import Outcome, TaskContext
from fedtasks.runtime.memory import MemoryContext
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.wire.v1 import model_pb2, worker_pb2

LEADER, FOLLOWER = "bank", "shop"


@dataclass(frozen=True)
class Ended:
    """How a half ended: with an outcome, or with an error's code, detail and public text."""

    outcome: Outcome | None = None
    code: str = ""
    detail: str = ""
    where: str = ""
    public: str = ""


@dataclass(frozen=True)
class Cut:
    """A mishap that befalls a half when it has sent so many bytes: its connection breaks, or its process is killed."""

    after: int
    kills: bool = False


class PipeLink(Endpoint):
    """A link whose frames cross a pipe between two processes, up to a mishap."""

    def __init__(self, connection: Connection, peer: str, facts: Mapping[str, str], cut: Cut | None = None) -> None:
        self._cut, self._left = cut, cut.after if cut else 0
        conversation = Conversation(peer, facts)
        super().__init__(conversation, close_timeout_s=60)
        self._half, self._pipe = conversation, connection
        self._epoch = conversation.begin_stream()
        self._greeted = threading.Event()
        self._sender = threading.Thread(target=self._send_frames, daemon=True)
        self._sender.start()
        self._reader = threading.Thread(target=self._take_frames, daemon=True)
        self._reader.start()
        try:
            conversation.wait_met(30)
        except BaseException:
            self._greeted.wait(10)  # the other half refuses for the same reason, if it has read this half's Hello
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        super()._hang_up()
        self._sender.join()
        self._break()
        # The number of a closed pipe is soon another pipe's, of which this reader must not take anything.
        self._reader.join()

    def _break(self) -> None:
        # Closing alone would not end the read that another thread is in, nor tell the other process.
        with socket.fromfd(self._pipe.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as both_ways, suppress(OSError):
            both_ways.shutdown(socket.SHUT_RDWR)

    def _send_frames(self) -> None:
        try:
            for frame in self._half.outgoing(self._epoch):
                if self._cut is not None:
                    self._left -= len(frame)
                    if self._left < 0:
                        if self._cut.kills:
                            os.kill(os.getpid(), signal.SIGKILL)
                        self._break()
                        self._half.fail(PeerFailed("the connection was cut"))
                        return
                self._pipe.send_bytes(frame)
                self._greeted.set()
        except OSError:
            return  # the other process has hung up; the reader says so
        finally:
            self._greeted.set()  # or never will be

    def _take_frames(self) -> None:
        try:
            while True:
                self._half.feed(self._epoch, self._pipe.recv_bytes())
        except (EOFError, OSError):
            self._half.end_stream(self._epoch)
            # What was sent before the end was read before it: without a Close among that, the other half has failed.
            if not self._half.is_over:
                self._half.fail(PeerFailed("the other process hung up"))
        except FedtasksError:
            return  # the conversation holds it


class HalfContext(MemoryContext):
    """A context in memory that meets its peer, which is in another process, over a pipe."""

    def __init__(self, config: TaskConfig, party: Party, connection: Connection, cut: Cut | None) -> None:
        super().__init__(config, party)
        self.counted: list[tuple[str, int]] = []
        self.items: dict[str, int] = {}
        self.link: PipeLink | None = None
        self._connection, self._cut = connection, cut

    def open_link(self, facts: Mapping[str, str]) -> PipeLink:
        self.link = PipeLink(self._connection, self.config.peer, facts, self._cut)
        return self.link

    def count_use(self, kind: str, amounts: Mapping[str, int]) -> int:
        if amounts:
            self.counted.append((kind, sum(amounts.values())))
            self.items |= {f"{kind} {item}": amount for item, amount in amounts.items()}
        return super().count_use(kind, amounts)

    def _registered(self, name: str, version: int) -> worker_pb2.GetModelResponse:
        """Return what a test wrote as the version in use."""
        try:
            consumed = read_json(f"{self.party.storage}/{name}.json")
        except DataMissing:
            return worker_pb2.GetModelResponse()
        found = model_pb2.ModelVersion(model=name, version=1, run_id="credit.before.1")
        return worker_pb2.GetModelResponse(version=found, consumed_json=json.dumps(consumed), newest=1)


@dataclass(frozen=True)
class Account:
    """What a half did: progress as shown, uses as counted, in all and of each file, bytes and names as sent."""

    progress: list[Mapping[str, Any]]
    uses: list[tuple[str, int]]
    items: dict[str, int]
    bytes_sent: int
    names_sent: list[str]


def make_party(
    name: str,
    folder: Path,
    datasets: tuple[Dataset, ...],
    psi_key: Path | None = None,
    psi_oprf_key: Path | None = None,
) -> Party:
    """A party on this machine; its gateway and its Airflow are never asked."""
    nowhere = folder / "nowhere"
    peer = FOLLOWER if name == LEADER else LEADER
    return Party(
        name=name,
        gateway=Gateway(nowhere, nowhere, nowhere, nowhere, nowhere),
        airflow=AirflowApi("http://127.0.0.1", "nobody", nowhere),
        storage=f"file://{folder / name}",
        peers=(Peer(peer, nowhere, ""),),
        datasets=datasets,
        psi_key=psi_key,
        psi_oprf_key=psi_oprf_key,
    )


def _serve(control: Connection, party: Party) -> None:
    from fedtasks.psi import align, offline

    def train(context: TaskContext) -> Outcome:
        from fedtasks.models.split_nn import training  # imports TensorFlow, which takes long

        return training.train(context)

    algorithms: dict[str, Callable[[TaskContext], Outcome]] = {"psi": offline.run, "align": align.run, "train": train}
    # A Spark that runs already is used by all tasks of the process.
    with open_engine(party, "test", f"{party.storage}/engine"):
        control.send("ready")
        while (order := control.recv()) is not None:
            config, other, connection, cut = order
            control.send("taken")
            other.reach_buckets()  # `load_party` did so in another process
            context = HalfContext(config, replace(other, spark=party.spark), connection, cut)
            try:
                ended = {"outcome": algorithms[config.task](context)}
            except FedtasksError as error:
                ended = {"code": error.code, "detail": error.detail, "where": error.where, "public": error.public}
            except Exception as error:
                ended = {"code": "PROCESS_FAILED", "detail": repr(error)}  # as `fedtasks.runtime.process.run` does
            finally:
                connection.close()
            link = context.link
            account = {
                "progress": [shown or {} for shown, _ in context.reports],
                "uses": context.counted,
                "items": context.items,
                "bytes_sent": link.bytes_sent if link else 0,
                "names_sent": sorted(link.sent) if link else [],
            }
            control.send((ended, account))


class Halves:
    """The two processes, as a test sees them; one that was killed is started anew for the next task."""

    def __init__(self, folder: Path, sparks: Mapping[str, Spark]) -> None:
        self.accounts: dict[str, Account] = {}
        self._folder, self._sparks = folder, sparks
        self._controls: dict[str, Connection] = {}
        self._processes: dict[str, BaseProcess] = {}

    def start(self) -> None:
        """Start the processes that do not run."""
        # Here, since the processes that run this module cannot import it.
        from tests.support.forks import FORKS

        missing = [name for name in (LEADER, FOLLOWER) if name not in self._processes]
        for name in missing:
            self._controls[name], far = FORKS.Pipe()
            # By path: some package in site-packages calls itself `tests`, so a new process cannot import this module.
            party = replace(make_party(name, self._folder, ()), spark=self._sparks.get(name))
            process = FORKS.Process(target=runpy.run_path, args=(__file__, {"HALF": (far, party)}, "__main__"))
            process.start()
            far.close()
            self._processes[name] = process
        for name in missing:
            assert self._controls[name].recv() == "ready"

    def end(self) -> None:
        """End all of them."""
        for name in self._processes:
            self._controls[name].send(None)
        for process in self._processes.values():
            process.join(30)
            assert process.exitcode == 0

    def run(
        self,
        task: str,
        run_id: str,
        parties: Mapping[str, Party],
        settings: Mapping[str, Any],
        *,
        partition: str = "",
        attempt: int = 1,
        stage: str = "",
        shard: int | None = None,
        cut_after: Mapping[str, int] | None = None,
        kill_after: Mapping[str, int] | None = None,
        bounds: Mapping[str, Mapping[str, Any]] | None = None,
        kinds: tuple[str, ...] = (),
    ) -> dict[str, Ended]:
        """Run both halves of a task at the same time; each party's first dataset takes part.

        With `cut_after`, the connection breaks for good when a party has sent so many bytes; with `kill_after`, its
        process is killed, which is code ``KILLED``. `bounds` are those of the ticket as each party knows it, `kinds`
        those of the run's steps.
        """
        # Here, since the processes that run this module cannot import it.
        from tests.support.declared import assert_declared

        cuts = {name: Cut(after) for name, after in (cut_after or {}).items()}
        cuts |= {name: Cut(after, kills=True) for name, after in (kill_after or {}).items()}
        self.start()
        ends = dict(zip((LEADER, FOLLOWER), multiprocessing.Pipe(), strict=True))
        for name, party in parties.items():
            config = TaskConfig(
                party=Path("party.yaml"),
                run_id=run_id,
                task=task,
                partition=partition,
                attempt=attempt,
                stage=stage,
                shard=shard,
                peer=party.peers[0].name,
                leader=LEADER,
                datasets={each.name: each.datasets[0].name for each in parties.values()},
                settings=settings,
                bounds=(bounds or {}).get(name, {}),
                kinds=kinds,
            )
            self._controls[name].send((config, party, ends[name], cuts.get(name)))
        for name in parties:
            assert self._controls[name].recv() == "taken"
            # The pipe must break when the half ends, so no copy of its end may stay open here.
            ends[name].close()
        ended = {}
        for name in parties:
            try:
                fields, account = self._controls[name].recv()
            except EOFError:
                process = self._processes.pop(name)
                process.join(30)
                assert process.exitcode == -signal.SIGKILL
                ended[name] = Ended(code="KILLED")
                continue
            ended[name], self.accounts[name] = Ended(**fields), Account(**account)
            assert_declared(self.accounts[name].names_sent)
        return ended


@contextmanager
def two_halves(folder: Path, sparks: Mapping[str, Spark] | None = None) -> Iterator[Halves]:
    """Start both processes and end them; a party that `sparks` names runs on Spark, by default none does."""
    halves = Halves(folder, sparks or {})
    halves.start()
    try:
        yield halves
    finally:
        halves.end()


if __name__ == "__main__":
    _serve(*globals()["HALF"])
