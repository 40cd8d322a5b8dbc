"""`fedtasks worker`: identities are made, listed, given another secret and taken away; no secret is ever printed."""

from __future__ import annotations

from pathlib import Path

from fedtasks.config import load_party
from fedtasks.config.workers import May
from fedtasks.errors import ConfigError
from fedtasks.gateway.workers import Workers
from tests.support.command_line import Run


def test_identity_from_its_beginning_to_its_end(run: Run, bank: Path) -> None:
    party = str(bank / "party.yaml")
    workers = Workers(load_party(party).gateway)
    assert "Nobody" in run("worker", "list", "--party", party).out
    said = run("worker", "add", "spark", "--party", party).out
    said += run("worker", "add", "watcher", "--may", "read", "--out", "w.secret", "--json", "--party", party).out
    said += run("worker", "rotate", "spark", "--out", "spark-2.secret", "--party", party).out
    listed = run("worker", "list", "--json", "--party", party).json()
    assert listed == [{"name": "spark", "may": "work", "secrets": 2}, {"name": "watcher", "may": "read", "secrets": 1}]
    secrets = {name: Path(name).read_text().strip() for name in ("spark.secret", "spark-2.secret", "w.secret")}
    assert not any(secret in said for secret in secrets.values())
    assert {workers.require(secret, "GetRun") for secret in secrets.values()} == {"spark", "watcher"}
    run("worker", "revoke", "spark", "--old", "--party", party)
    assert workers.require(secrets["spark-2.secret"], "OpenRun") == "spark"
    run("worker", "revoke", "watcher", "--party", party)
    listed = run("worker", "list", "--json", "--party", party).json()
    assert listed == [{"name": "spark", "may": "work", "secrets": 1}]


def test_identity_that_cannot_be_is_refused_in_one_line(run: Run, bank: Path) -> None:
    party = str(bank / "party.yaml")
    for arguments, says in (
        (("add", "spark", "--may", "everything"), ", ".join(may.value for may in May)),
        (("add", "worker"), "choose another"),
        (("rotate", "spark"), "known are: none"),
        (("revoke", "spark"), "known are: none"),
    ):
        refused = run("worker", *arguments, "--party", party, expect=1)
        assert refused.err.startswith(ConfigError.code)
        assert says in refused.err
    assert not list(Path().glob("*.secret"))
