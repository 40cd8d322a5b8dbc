"""Live lookups from end to end: a real intersection, PostgreSQL stores, two gateways, both commands as processes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedtasks.online.declaration import PIPELINE as ONLINE
from tests.integration.psi_case import Case, Keys, bank, shop
from tests.integration.psi_halves import Halves
from tests.support.command_line import invoke
from tests.support.gateways import Member, grant_ticket, make_members, set_address
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.timeout(300)

DATASETS = {
    "bank": "{Amount: numeric}, label: Status, label_positive: good",
    "shop": "{Job: categorical}",
}


@dataclass
class Online:
    """Both parties after a day's intersection, their gateways up."""

    case: Case
    bank: Member
    shop: Member
    logs: list[Path] = field(default_factory=list)

    @contextmanager
    def command(self, member: Member, *words: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
        """Run a command of a party as a process of its own; its standard error goes to a log."""
        argv = [sys.executable, "-m", "fedtasks.cli", "psi", *words, "--party", str(member.folder / "party.yaml")]
        log = member.folder / f"command-{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("w") as stderr:
            options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams}
            process = subprocess.Popen(argv, stderr=stderr, text=True, env=os.environ, **options)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    @contextmanager
    def serving(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        with self.command(self.bank, "serve", "--dataset", "people", "--to", "shop", *words) as process:
            log = self.logs[-1]
            wait_for(lambda: "are ready for" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield process

    def ask(self, *ids: Any, words: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Pipe ids through `psi stream` and return what it answers."""
        lines = "".join(f"{json.dumps(each)}\n" for each in ids)
        argv = ("stream", "--dataset", "people", "--to", "bank", *words)
        with self.command(self.shop, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            out, _ = process.communicate(lines, timeout=120)
            assert process.returncode == 0, self.logs[-1].read_text()
        return [json.loads(line) for line in out.splitlines()]

    def grant(self, answers: str, **limits: int) -> str:
        columns = ("Amount",) if answers == "columns" else ()
        outputs = {"answers": answers, "answer_columns": columns}
        return grant_ticket(self.bank, self.shop, pipelines=(ONLINE,), outputs=outputs, limits=limits)


def said(log: Path) -> str:
    """Return what a log says, without the times, whose milliseconds may look like an id."""
    return re.sub(r"^\d{4}-\d\d-\d\d \S+", "", log.read_text(), flags=re.MULTILINE)


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def first_day(halves: Halves, root: Path, keys: Keys) -> Case:
    """What both parties' storage holds after an intersection."""
    (root / "first-day").mkdir()
    case = Case(halves, root / "first-day", keys, "")
    ended = case.next_day(bank(BANK), shop(SHOP), scheme="oprf")
    assert ended["bank"].outcome is not None, ended
    return case


@pytest.fixture
def online(first_day: Case, postgres: PostgresServer, tmp_path: Path) -> Iterator[Online]:
    case = dataclasses.replace(first_day, root=tmp_path / "storage", parties={})
    shutil.copytree(first_day.root, case.root)
    one, other, listen = make_members(tmp_path / "parties")
    set_address(other, listen)
    for member in (one, other):
        file = member.folder / "party.yaml"
        head = file.read_text().replace("storage: storage", f"storage: file://{case.root}/{member.name}")
        head = head.partition("datasets:")[0]
        people = f"name: people, uri: file://{case.root}/{member.name}.parquet, id: id"
        features = f"features: {DATASETS[member.name]}"
        store = f"url: '{postgres.create_database()}', password_file: '{postgres.password_file}'"
        file.write_text(f"{head}datasets: [{{{people}, {features}}}]\nstore: {{{store}}}\n")
        member.start()
    try:
        yield Online(case, one, other)
    finally:
        other.close()
        one.close()


BANK = [f"{number:03d}" for number in range(60)]
SHOP = [f"{number:03d}" for number in range(40, 90)]


def test_live_ids_are_answered_as_a_join_would_and_ids_stay_out_of_logs_and_gateways(online: Online) -> None:
    ticket_id = online.grant("matched")
    matches = online.bank.folder / "matches.jsonl"
    with online.serving("--matches", str(matches)):
        answers = online.ask(*SHOP, "999", "41", " 045 ", {"id": "046"}, 1.5)

    expected = {text: "matched" if text in BANK else "unmatched" for text in SHOP}
    assert {answer["id"]: answer["status"] for answer in answers[: len(SHOP)]} == expected
    rest = [answer["status"] for answer in answers[len(SHOP) :]]
    assert rest == ["untagged", "untagged", "matched", "matched", "invalid"]  # "41" is not "041"
    found = {json.loads(line)["id"] for line in matches.read_text().splitlines()}
    assert found == set(BANK) & set(SHOP)
    assert matches.stat().st_mode & 0o077 == 0
    with online.bank.store() as store:
        assert store.uses.total(ticket_id) == {"lookups": len(SHOP)}, "each tag is asked once in a batch"
        kept = json.dumps([vars(row) for row in store.audit.list()], default=str)
    for text in (*SHOP, "999"):
        assert f'"{text}"' not in kept
        assert not [log for log in online.logs if re.search(rf"\b{text}\b", said(log))]


def test_columns_that_the_ticket_names_are_answered_and_no_others(online: Online) -> None:
    online.grant("columns")
    with online.serving("--answer", "columns", "--columns", "Amount"):
        answers = online.ask("050", "080")
    assert answers == [
        {"id": "050", "status": "matched", "values": {"Amount": 50.0}},
        {"id": "080", "status": "unmatched"},
    ]


def test_service_that_would_answer_more_than_the_ticket_allows_is_refused(online: Online) -> None:
    online.grant("nothing")
    with online.serving("--answer", "matched"):
        words = ("stream", "--dataset", "people", "--to", "bank")
        with online.command(online.shop, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            out, _ = process.communicate('"050"\n', timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "TICKET_SCOPE" in online.logs[-1].read_text()
    with online.serving("--answer", "nothing"):
        assert online.ask("050") == [{"id": "050", "status": "sent"}]


def test_file_that_grows_is_followed_gone_on_with_and_survives_a_restart_of_everything(online: Online) -> None:
    online.grant("matched")
    visits, out = online.shop.folder / "visits.jsonl", online.shop.folder / "answers.jsonl"
    words = ("stream", "--dataset", "people", "--to", "bank", "--input", str(visits), "--follow")

    def answered() -> list[str]:
        return [json.loads(line)["id"] for line in out.read_text().splitlines()] if out.exists() else []

    def write(ids: list[str]) -> None:
        with visits.open("a") as file:
            file.writelines(f'"{each}"\n' for each in ids)

    write(SHOP[:10])
    with online.serving() as server:
        with out.open("w") as file, online.command(online.shop, *words, stdout=file):
            wait_for(lambda: len(answered()) == 10)
            write(SHOP[10:20])
            wait_for(lambda: len(answered()) == 20)
            server.terminate()
            server.wait(30)
            online.bank.stop()
            write(SHOP[20:30])
            online.bank.start()
            with online.serving():
                wait_for(lambda: len(answered()) == 30)
        write(SHOP[30:])
    with online.serving(), out.open("a") as file, online.command(online.shop, *words, stdout=file):
        wait_for(lambda: len(answered()) == len(SHOP))
    assert answered() == SHOP


def test_tags_of_a_newer_intersection_are_taken_up_while_serving(online: Online) -> None:
    online.grant("matched")
    with online.serving("--refresh-s", "1"):
        assert [answer["status"] for answer in online.ask("080", "777")] == ["unmatched", "untagged"]
        ended = online.case.next_day(bank([*BANK, "080", "777"]), shop([*SHOP, "777"]), scheme="oprf")
        assert ended["bank"].outcome is not None, ended
        log = online.logs[0]
        wait_for(lambda: log.read_text().count("tags asked") >= 3)
        wait_for(lambda: online.ask("080", "777", "050") == [
            {"id": each, "status": "matched"} for each in ("080", "777", "050")
        ])  # fmt: skip


def test_commands_without_tags_or_with_wrong_words_say_what_to_do(online: Online) -> None:
    for words, said in (
        (("serve", "--dataset", "people", "--to", "shop", "--answer", "all"), "is not one of: nothing, matched"),
        (("serve", "--dataset", "people", "--to", "shop", "--columns", "Amount"), "only answers of `columns`"),
        (("serve", "--dataset", "people", "--to", "shop", "--answer", "columns"), "name at least one"),
        (("serve", "--dataset", "people", "--to", "shop", "--key", "00"), "no intersection has left tags"),
        (("serve", "--dataset", "loans", "--to", "shop"), "not declared"),
        (("stream", "--dataset", "people", "--to", "shop", "--follow"), "named by --input"),
    ):
        done = invoke("psi", *words, "--party", str(online.bank.folder / "party.yaml"))
        assert done.exit_code == 1
        assert said in done.stderr
