"""The signer of an intersection against a client that announces less than it sends, or other files in each attempt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtasks.config import Dataset, FeatureType, Party
from fedtasks.crypto import cardinality, oprf, ristretto
from fedtasks.crypto.scheme import generate_key
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.row_files import RowFile
from fedtasks.dataclass_io import build
from fedtasks.errors import DataCorrupt, FedtasksError, ProtocolViolated
from fedtasks.exchange.files import announce
from fedtasks.link.link import Link
from fedtasks.psi import messages, offline
from fedtasks.psi.settings import PsiSettings
from fedtasks.psi.tag_sets import set_digest
from fedtasks.runtime.context import Outcome, TaskContext, facts_of
from fedtasks.runtime.memory import MemoryContext, run_halves
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.store import Store
from tests.integration.psi_halves import FOLLOWER, LEADER, make_party
from tests.support.stores import TICKET, Database, opened

pytestmark = pytest.mark.timeout(240)

RUN = "credit.2026-11-21.1"
KIND = "ids_blinded"


@dataclass(frozen=True)
class Asked:
    """A file of the client: what it holds, and how many rows it is announced with."""

    path: Path
    rows: int

    @property
    def announced(self) -> RowFile:
        return RowFile(0, self.rows, hashlib.sha256(self.path.read_bytes()).hexdigest(), f"file://{self.path}")


@dataclass(frozen=True)
class Ends:
    """How the signer's half ended, and how many ids were answered."""

    signer: Outcome | Exception
    answers: list[int]


class CountedContext(MemoryContext):
    """A half in memory whose uses are charged in a store, as its gateway would."""

    store: Store | None = None

    def count_use(self, kind: str, amounts: Any) -> int:
        assert self.store is not None
        return self.store.uses.count_items("t-1", self.config.run_id, kind, amounts, None).run


@dataclass
class Case:
    """A signer, its store, and a client that a test writes."""

    folder: Path
    store: Store
    settings: dict[str, Any]
    parties: dict[str, Party] = field(default_factory=dict)
    attempt: int = 0

    @property
    def state(self) -> Path:
        return self.folder / FOLLOWER / "runs" / RUN / "psi" / "state"

    @property
    def charged(self) -> int:
        return self.store.uses.total("t-1").get(KIND, 0)

    def guesses(self, name: str, n_rows: int) -> Path:
        """Write a file of blinded ids, as the protocol has it."""
        ids = [f"{name} {number}".encode() for number in range(n_rows)]
        if self.settings["learns"] == "size":
            rows = cardinality.blind(ids, ristretto.random_scalars(1))
            rows = rows[np.lexsort(rows.T[::-1])]
        else:
            rows, _ = oprf.blind(ids)
        path = self.folder / name
        path.write_bytes(rows.tobytes())
        return path

    def ask(self, *files: Asked, hangs_up: bool = False) -> Ends:
        """Ask by an attempt of its own, and take the answers if the signer gives any."""
        answers: list[int] = []
        self.attempt += 1
        return Ends(self._meet("", partial(self._ask, files, hangs_up, answers)), answers)

    def stage(self, name: str, client: Callable[[Link], None] | None = None, shard: int | None = None) -> Any:
        """Run one stage of the signer against what the client does then."""
        return self._meet(name, client, shard)

    def _meet(self, stage: str, client: Callable[[Link], None] | None, shard: int | None = None) -> Any:
        def half(context: TaskContext) -> Outcome:
            if context.party.name == FOLLOWER:
                return offline.run(context)
            if client is not None:
                settings = build(PsiSettings, self.settings, path="settings")
                with context.open_link(facts_of(settings, **context.dataset.id_facts)) as link:
                    client(link)
            return Outcome()

        contexts = {}
        for name, party in self.parties.items():
            other = LEADER if name == FOLLOWER else FOLLOWER
            config = TaskConfig(
                party=Path("party.yaml"),
                run_id=RUN,
                task="psi",
                attempt=max(self.attempt, 1),
                stage=stage,
                shard=shard,
                peer=other,
                leader=LEADER,
                datasets={LEADER: "people", FOLLOWER: "people"},
                settings=self.settings,
            )
            contexts[name] = CountedContext(config, party)
            contexts[name].store = self.store
        return run_halves(half, contexts, deadline_s=200)[FOLLOWER]

    def offer(self, link: Link, files: Sequence[Asked]) -> dict[str, Any]:
        """Say what is asked, and hear what the signer says of it."""
        if self.settings["learns"] != "size":
            messages.KEY.receive(link)
            messages.KEY_PROOF.receive(link)
        messages.OFFER.send(link, {"blinded": announce([file.announced for file in files]), "tags": [], "common": []})
        return messages.ACCEPTED.receive(link)

    def _ask(self, files: Sequence[Asked], hangs_up: bool, answers: list[int], link: Link) -> None:
        self.offer(link, files)
        if hangs_up:
            raise ProtocolViolated("enough for today")
        for file in files:
            messages.BLINDED.numbered(0).send(link, file.announced)
        message = messages.ANSWERS.numbered(0)
        for _ in files:
            answers += [file.rows for file in message.announced(link, 1)]
            message.wanted.send(link, {"wanted": False})
        tags = messages.TAGS if self.settings["learns"] == "size" else messages.TAGS_ADDED
        tags.numbered(0).wanted.send(link, {"wanted": False})
        messages.COMMON.send(link, {"n": 0, "added": [], "gone": [], "now": set_digest([])})


@pytest.fixture(params=["client", "size"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    key = tmp_path / "oprf.key"
    generate_key(Scheme.OPRF, key)
    pd.DataFrame({"id": ["a", "b", "c"], "age": [1.0, 2.0, 3.0]}).to_parquet(tmp_path / "people.parquet")
    dataset = Dataset(
        name="people", uri=f"file://{tmp_path}/people.parquet", id="id", features={"age": FeatureType.NUMERIC}
    )
    settings = {"scheme": "oprf", "learns": request.param, "shards": 1, "min_intersection": 0}
    with opened(Database(f"sqlite:///{tmp_path}/store.db", None)) as store:
        store.tickets.put(TICKET)
        case = Case(tmp_path, store, settings)
        for name in (LEADER, FOLLOWER):
            case.parties[name] = make_party(name, tmp_path, (dataset,), psi_oprf_key=key)
        yield case


def test_guesses_announced_as_one_id_are_not_answered_in_any_attempt(case: Case) -> None:
    asked = Asked(case.guesses("guesses", 5000), rows=1)
    for _ in range(2):
        ends = case.ask(asked)
        assert isinstance(ends.signer, ProtocolViolated), ends
        assert ends.answers == []
        assert not list(case.state.glob("blinded-*"))
        assert not list(case.state.glob("answers-*"))
    assert case.charged == 1


def test_attempts_that_announce_answered_files_with_fewer_ids_only_add(case: Case) -> None:
    first, second = (Asked(case.guesses(name, 991), rows=991) for name in ("first", "second"))
    assert isinstance(case.ask(first, hangs_up=True).signer, FedtasksError)
    assert isinstance(case.ask(replace(first, rows=1), hangs_up=True).signer, FedtasksError)
    assert case.charged == 991

    ends = case.ask(second)

    assert ends.answers == [991]
    assert isinstance(ends.signer, Outcome), ends
    # What the receipt of the last attempt says is what the run was charged in all.
    assert ends.signer.counts["ids_blinded"] == case.charged == 1982


def test_file_that_has_changed_since_it_was_charged_is_not_answered(case: Case) -> None:
    asked = Asked(case.guesses("honest", 991), rows=991)
    case.stage("prepare", lambda link: case.offer(link, [asked]) and None)
    case.stage("send", lambda link: messages.BLINDED.numbered(0).send(link, asked.announced), shard=0)
    (arrived,) = case.state.glob("blinded-*")
    arrived.write_bytes(case.guesses("others", 991).read_bytes())

    ended = case.stage("sign")

    assert isinstance(ended, DataCorrupt), ended
    assert not list(case.state.glob("answers-*.json"))
    assert case.charged == 991
    # Sent once more, it is what was charged, and is answered.
    case.stage("send", lambda link: messages.BLINDED.numbered(0).send(link, asked.announced), shard=0)
    assert case.stage("sign") == Outcome(counts={"ids_blinded": 991})
    assert list(case.state.glob("answers-*.json"))
