"""Commands as a person would run them, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import DATASETS, Result, Run, invoke
from tests.support.stores import make_empty_store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDTASKS_PARTY", raising=False)

    def run_command(*arguments: str, stdin: str | None = None, expect: int | None = 0) -> Result:
        done = invoke(*arguments, stdin=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if expect is not None:
            assert done.exit_code == expect, done.output
        return Result(done.exit_code, done.stdout, done.stderr)

    return run_command


@pytest.fixture
def bank(run: Run, tmp_path: Path) -> Path:
    run("init", "bank", "--folder", "bank", "--listen", "127.0.0.1:7500")
    make_empty_store(tmp_path / "bank" / "store.db")
    return tmp_path / "bank"


@pytest.fixture
def shop(run: Run, tmp_path: Path) -> Path:
    run("init", "shop", "--folder", "shop")
    make_empty_store(tmp_path / "shop" / "store.db")
    file = tmp_path / "shop" / "party.yaml"
    text = file.read_text(encoding="utf-8").replace("datasets: []\n", DATASETS)
    file.write_text(text, encoding="utf-8")
    return tmp_path / "shop"


@pytest.fixture
def met(run: Run, bank: Path, shop: Path) -> tuple[str, str]:
    """Two parties that know each other; returns the paths of their files."""
    files = str(bank / "party.yaml"), str(shop / "party.yaml")
    run("peer", "add", str(shop / "shop.card.yaml"), "--yes", "--party", files[0])
    run("peer", "add", str(bank / "bank.card.yaml"), "--yes", "--party", files[1])
    return files


@pytest.fixture
def ticket_id(run: Run, met: tuple[str, str]) -> str:
    """A ticket that the shop has granted to the bank and that has crossed by file."""
    _, shop = met
    run(
        "ticket",
        "issue",
        "--to",
        "bank",
        "--dataset",
        "customers",
        "--pipeline",
        "train",
        "--out",
        "t",
        "--party",
        shop,
    )
    return str(run("ticket", "list", "--json", "--party", shop).json()[0]["ticket_id"])
