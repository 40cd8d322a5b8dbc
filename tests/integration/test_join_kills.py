"""Two processes that join their logs through two gateways; what befalls one changes no byte of a block."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fedtasks.join.settings import JoinSettings, Late
from tests.support import mishaps
from tests.support.gateways import Member
from tests.support.join_logs import Shape, expect, generate, write_log
from tests.support.join_parties import (
    BANK,
    ENTRY,
    PEER,
    SHOP,
    Ended,
    Half,
    Joining,
    block_bytes,
    joining,
    places,
    stream_text,
)
from tests.support.mishaps import MOMENTS, Mishap, What
from tests.support.postgres import PostgresServer
from tests.support.runs import wait_for

pytestmark = pytest.mark.timeout(200)

KILLS = 50
QUICK_KILLS = 4
ZOMBIES, QUICK_ZOMBIES = 12, 2
SHAPE = Shape(3000, rate=5, disorder_s=20, late=0.03, late_s=100, apart_s=4, duplicates=0.03, offset_s=5.5, seed=2)
SETTINGS = JoinSettings(
    "undisturbed",
    within_s=4,
    lateness_s=20,
    late=Late.CORRECT,
    correct_within_s=60,
    block_rows=150,
    block_s=86_400,
    final=True,
)
# A handful of rows is read at a time, so that there are many commits.
NUMBERS = {
    "fedtasks.join.units.UNIT": 64,
    "fedtasks.join.follower._MOST_ROWS": 1024,
    "fedtasks.join.leader.ROUND_ROWS": 128,
    "fedtasks.join.log.ROUND_ROWS": 128,
}
UNDISTURBED = "undisturbed"
OTHERS = (
    *(f"{what}-{name}" for what in ("full", "restored") for name in (BANK, SHOP)),
    *(f"restored-{name}-again" for name in (BANK, SHOP)),
    *(f"zombie-{number}" for number in range(ZOMBIES)),
)


@dataclass
class World:
    """Both parties over one kind of store, and what a join without interruption has left there."""

    joined: Joining
    blocks: dict[str, dict[str, bytes]] = field(default_factory=dict)
    counts: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0

    def settings(self, stream: str) -> JoinSettings:
        """Return the settings of a stream of its own, whose tags are those of the undisturbed one."""
        for name in (BANK, SHOP):
            of_all, own = (
                Path(f"{self.joined.stream_uri(name, each)}/secret.key".removeprefix("file://"))
                for each in (UNDISTURBED, stream)
            )
            if of_all.exists() and not own.exists():
                own.parent.mkdir(mode=0o700, parents=True)
                own.touch(mode=0o600)
                own.write_bytes(of_all.read_bytes())
        return replace(SETTINGS, stream=stream)

    def begin(self, stream: str, befalls: Mapping[str, Mishap], task: str = "") -> Attempt:
        """Start both halves of the next attempt at a task, by default that which is called as the stream."""
        halves = self.joined.prepare(task or stream, self.settings(stream))
        processes = {
            name: mishaps.start(ENTRY, half.config_file, f"/joins/{stream}~", befalls.get(name, Mishap()), NUMBERS)
            for name, half in halves.items()
        }
        return Attempt(self.joined, task or stream, halves, processes)

    def finish(self, stream: str) -> Attempt:
        """Join to the end; both halves must end well."""
        attempt = self.begin(stream, {})
        ended = attempt.end()
        assert all(end.outcome is not None for end in ended.values()), ended
        return attempt

    def check(self, stream: str) -> None:
        """Compare what a stream has become with the undisturbed one."""
        for name in (BANK, SHOP):
            assert block_bytes(self.joined.commits(name, stream)) == self.blocks[name]
            assert self.windows(name, stream) == self.counts[name]

    def windows(self, name: str, stream: str) -> list[tuple[int, ...]]:
        with self.joined.members[name].store() as store:
            found = store.joins.windows(peer=PEER[name], stream=stream)
        counts = ("joined", "corrected", "late", "too_late", "unmatched", "duplicates", "rejected")
        return [(row.start_ms, *(getattr(row, count) for count in counts)) for row in found]


@dataclass
class Attempt:
    """Both halves of one attempt at a join."""

    joined: Joining
    task: str
    halves: Mapping[str, Half]
    processes: Mapping[str, BaseProcess]

    @property
    def number(self) -> int:
        return int(self.halves[BANK].folder.name)

    def end(self) -> dict[str, Ended]:
        """Wait for both; tell the gateways how they ended, as they do."""
        found: dict[str, Ended] = {}
        names = {process.sentinel: name for name, process in self.processes.items()}
        while left := [sentinel for sentinel, name in names.items() if name not in found]:
            ready = wait(left, 90)
            assert ready, [half.log.read_text() for half in self.halves.values()]
            found |= {names[sentinel]: self.end_of(names[sentinel]) for sentinel in ready}
        return found

    def end_of(self, name: str) -> Ended:
        """Wait for one half; tell its gateway how it ended."""
        self.processes[name].join(90)
        code = self.processes[name].exitcode
        assert code is not None, self.halves[name].log.read_text()
        ended = self.halves[name].ended() if code >= 0 else Ended(None)
        self.joined.tell(self.task, self.number, {name: ended})
        return ended


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@contextmanager
def world(folder: Path, store_text: str | PostgresServer = "") -> Iterator[World]:
    logs = generate(SHAPE)

    def text_of(_: Member) -> str:
        if isinstance(store_text, str):
            return store_text
        return f"store: {{url: '{store_text.create_database()}', password_file: '{store_text.password_file}'}}\n"

    def start(member: Member, _: ExitStack) -> None:
        log = logs[0] if member.name == BANK else logs[1]
        write_log(log, member.folder / "log", is_leader=member.name == BANK, rows_per_file=300)
        member.start()

    texts = {BANK: stream_text(BANK), SHOP: stream_text(SHOP, offset_s=-SHAPE.offset_s)}
    tasks = [UNDISTURBED, *OTHERS, *(f"kill-{number}" for number in range(KILLS))]
    with joining(folder, tasks, start, texts=texts, store_text=text_of) as joined:
        found = World(joined)
        attempt = found.finish(UNDISTURBED)
        expected = expect(*logs, SETTINGS)
        shards = {name: joined.commits(name, UNDISTURBED) for name in (BANK, SHOP)}
        columns = [places(shards[name], name).tolist() for name in (BANK, SHOP)]
        assert set(zip(*columns, strict=True)) == set(expected.pairs)
        assert len(columns[0]) == len(expected.pairs) > 1000
        for name in (BANK, SHOP):
            found.blocks[name] = block_bytes(shards[name])
            found.counts[name] = found.windows(name, UNDISTURBED)
            found.moments[name] = int((attempt.halves[name].folder / MOMENTS).read_text())
        assert joined.known(BANK, UNDISTURBED).number > 5
        yield found


@pytest.fixture(scope="module")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("sqlite")) as found:
        yield found


@pytest.fixture(scope="module")
def postgres_world(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("postgresql"), postgres) as found:
        yield found


@pytest.mark.parametrize(
    "number", [pytest.param(each, marks=[pytest.mark.slow] if each >= QUICK_KILLS else []) for each in range(KILLS)]
)
def test_join_of_a_half_killed_at_any_instant_gives_the_blocks_of_an_undisturbed_one(
    request: pytest.FixtureRequest, number: int
) -> None:
    found: World = request.getfixturevalue(("sqlite_world", "postgres_world")[number % 2])
    victim, stream = (BANK, SHOP)[number // 2 % 2], f"kill-{number}"
    moment = random.Random(number).randrange(1, found.moments[victim] + 1)
    print(f"{victim} is killed at moment {moment} of {found.moments[victim]}")
    attempt = found.begin(stream, {victim: Mishap(moment=moment)})
    ended = attempt.end()
    assert attempt.processes[victim].exitcode == -signal.SIGKILL
    # The other may have had all that it needed before.
    assert ended[PEER[victim]].outcome or ended[PEER[victim]].code in ("PEER_FAILED", "PEER_RESTARTED"), ended
    found.finish(stream)
    found.check(stream)


@pytest.mark.parametrize(
    "number",
    [pytest.param(each, marks=[pytest.mark.slow] if each >= QUICK_ZOMBIES else []) for each in range(ZOMBIES)],
)
def test_join_of_a_half_that_was_taken_for_dead_is_not_disturbed_when_it_wakes(
    sqlite_world: World, number: int
) -> None:
    victim, stream = (BANK, SHOP)[number % 2], f"zombie-{number}"
    moment = random.Random(number).randrange(1, sqlite_world.moments[victim] * 3 // 4)
    print(f"{victim} sleeps at moment {moment} of {sqlite_world.moments[victim]}")
    attempt = sqlite_world.begin(stream, {victim: Mishap(What.STOP, moment)})
    sleeper = attempt.processes[victim]
    wait_for(lambda: state_of(sleeper) == "T")
    try:
        sqlite_world.joined.tell(stream, attempt.number, {victim: Ended(None)})
        attempt.end_of(PEER[victim])
        sqlite_world.finish(stream)
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    sleeper.join(60)
    assert attempt.halves[victim].ended().outcome is None
    assert attempt.halves[victim].ended().code  # nobody hears it, and what it was at is gone
    sqlite_world.check(stream)


def state_of(process: BaseProcess) -> str:
    """Return the letter by which the kernel says what a process does."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("victim", [BANK, SHOP])
def test_join_on_a_full_disk_says_so_and_goes_on_once_there_is_room(sqlite_world: World, victim: str) -> None:
    stream = f"full-{victim}"
    moment = sqlite_world.moments[victim] // 2
    ended = sqlite_world.begin(stream, {victim: Mishap(What.FULL, moment)}).end()
    assert ended[victim].code == "DISK_FULL"
    assert ended[PEER[victim]].code in ("PEER_FAILED", "PEER_RESTARTED")
    sqlite_world.finish(stream)
    sqlite_world.check(stream)


@pytest.mark.parametrize("victim", [BANK, SHOP])
def test_join_over_a_store_restored_to_an_older_copy_is_refused(sqlite_world: World, victim: str) -> None:
    stream, member = f"restored-{victim}", sqlite_world.joined.members[victim]
    sqlite_world.begin(stream, {victim: Mishap(moment=sqlite_world.moments[victim] // 2)}).end()
    older, before = joins_in(member), sqlite_world.joined.known(victim, stream)
    sqlite_world.finish(stream)
    newest = sqlite_world.joined.known(victim, stream)
    assert before is not None
    assert newest is not None
    assert 0 < before.number < newest.number - 1
    put_joins(member, older)

    ended = sqlite_world.begin(stream, {}, f"{stream}-again").end()

    # One side's word may reach the other before it has looked itself.
    assert "JOIN_DIFFERS" in {end.code for end in ended.values()} <= {"JOIN_DIFFERS", "PEER_RESTARTED"}, ended
    assert sqlite_world.joined.known(victim, stream) == before


TABLES = ("joins", "join_windows")


def joins_in(member: Member) -> dict[str, list[tuple[object, ...]]]:
    """Return what a party's store knows of joins."""
    with closing(sqlite3.connect(member.folder / "store.db")) as store:
        return {table: store.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def put_joins(member: Member, rows: Mapping[str, list[tuple[object, ...]]]) -> None:
    """Let a party's store know of joins what it knew once."""
    with closing(sqlite3.connect(member.folder / "store.db", timeout=30)) as store, store:
        for table, known in rows.items():
            store.execute(f"DELETE FROM {table}")
            for row in known:
                store.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
