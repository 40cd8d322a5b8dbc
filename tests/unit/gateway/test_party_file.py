"""party.yaml changed under a running gateway: read again, said to wait for a restart, or kept out as broken."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.config import Party, load_party
from fedtasks.errors import GatewayOutdated, PeerUnknown
from fedtasks.gateway.party_file import READ_ONCE, FileState, PartyFile
from tests.support.gateways import Member


@pytest.fixture
def file(members: tuple[Member, Member], tmp_path: Path) -> Iterator[Path]:
    """The bank's party.yaml, to be changed."""
    copy = tmp_path / "party.yaml"
    shutil.copy(members[0].folder / "party.yaml", copy)
    copy.write_text(copy.read_text() + "\nschedules: []\n")
    return copy


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_file_that_has_not_changed_is_what_the_gateway_was_started_with(file: Path) -> None:
    watched = PartyFile(load_party(file), file)
    assert watched.party == load_party(file)
    assert watched.state == FileState()


def test_datasets_and_limits_count_as_soon_as_they_are_written(file: Path) -> None:
    watched = PartyFile(load_party(file), file)
    rewrite(file, "name: loans", "name: mortgages")
    rewrite(file, "max_clock_skew_s: 60", "max_clock_skew_s: 30")
    assert [dataset.name for dataset in watched.party.datasets] == ["mortgages"]
    assert watched.party.max_clock_skew_s == 30
    assert watched.state == FileState()


def test_change_before_the_first_look_is_not_missed(file: Path) -> None:
    started = load_party(file)
    rewrite(file, "name: loans", "name: mortgages")
    assert PartyFile(started, file).party.datasets[0].name == "mortgages"


def test_what_is_read_once_stays_and_is_said_to_wait_for_a_restart(file: Path) -> None:
    started = load_party(file)
    watched = PartyFile(started, file)
    rewrite(file, "user: admin", "user: eve")
    rewrite(file, "name: loans", "name: mortgages")
    assert watched.state == FileState(("airflow",))
    assert watched.party.airflow == started.airflow
    assert watched.party.datasets[0].name == "mortgages"
    rewrite(file, "user: eve", "user: admin")
    assert watched.state == FileState()


def test_peer_that_has_changed_is_refused_until_the_restart_and_no_other(file: Path) -> None:
    watched = PartyFile(load_party(file), file)
    watched.require_current("shop")
    with pytest.raises(PeerUnknown):
        watched.require_current("telco")
    rewrite(file, "- name: shop", "- name: telco")
    for peer in ("shop", "telco"):  # one was removed, one was added
        with pytest.raises(GatewayOutdated, match=f"another entry for `{peer}` than the running gateway"):
            watched.require_current(peer)
    with pytest.raises(PeerUnknown):
        watched.require_current("nobody")
    assert watched.state.restart_for == ("peers",)


@pytest.mark.parametrize("broken", ["", "datasets: 7", "name: [", "name: bank\x00", None])
def test_broken_file_leaves_what_was_read_before_and_says_so(file: Path, broken: str | None) -> None:
    watched, whole = PartyFile(load_party(file), file), file.read_text()
    before = watched.party
    file.unlink() if broken is None else file.write_text(broken)
    assert watched.party == before
    assert watched.state.problem.startswith("party.yaml cannot be used: ")
    watched.require_current("shop")
    file.write_text(whole)
    assert watched.state == FileState()


def test_file_that_no_one_may_read_leaves_what_was_read_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> Party:
        raise PermissionError(13, "Permission denied")

    watched = PartyFile(load_party(file), file)
    before = watched.party
    rewrite(file, "name: loans", "name: mortgages")
    monkeypatch.setattr("fedtasks.gateway.party_file.load_party", denied)
    assert watched.party == before
    assert watched.state.problem == "party.yaml cannot be used: Permission denied"


def test_every_field_is_read_once_or_again_and_is_there() -> None:
    assert set(READ_ONCE) < {field.name for field in dataclasses.fields(Party)}
