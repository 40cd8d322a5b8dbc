"""How a task and the file of its DAG find their party."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedtasks.airflow.hook import FedtasksHook, party_here
from fedtasks.errors import ConfigError, SecretRejected
from fedtasks.wire.v1 import failure_pb2, worker_pb2
from tests.support.airflow_fakes import PARTY, FakeGateway


def connected(monkeypatch: pytest.MonkeyPatch, party: Path | None) -> list[str]:
    """Let Airflow keep every connection, naming this file; returns the ids that it is asked for."""
    asked: list[str] = []

    def get_connection(conn_id: str) -> Any:
        asked.append(conn_id)
        return SimpleNamespace(extra_dejson={"party": str(party)} if party else {})

    monkeypatch.setattr(FedtasksHook, "get_connection", staticmethod(get_connection))
    return asked


def other_party(folder: Path) -> Path:
    path = folder / "other.yaml"
    path.write_text(PARTY.replace("name: bank", "name: bakery"))
    return path


def test_hook_default_connection_is_asked_for_only_where_nothing_in_the_environment_names_the_party(
    party_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = connected(monkeypatch, other_party(tmp_path))
    assert (FedtasksHook().party.name, asked) == ("bank", [])  # parsing a file costs no query
    monkeypatch.delenv("FEDTASKS_PARTY")
    assert (FedtasksHook().party.name, asked) == ("bakery", ["fedtasks_default"])


def test_hook_connection_of_the_environment_comes_before_its_variable(
    party_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = json.dumps({"conn_type": "fedtasks", "extra": {"party": str(other_party(tmp_path))}})
    monkeypatch.setenv("AIRFLOW_CONN_FEDTASKS_DEFAULT", extra)
    assert FedtasksHook().party.name == "bakery"
    monkeypatch.setenv("AIRFLOW_CONN_FEDTASKS_DEFAULT", json.dumps({"conn_type": "fedtasks"}))
    assert FedtasksHook().party_file == party_file


def test_hook_named_connection_must_be_there_and_is_no_other_party(
    party_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(monkeypatch, other_party(tmp_path))
    assert FedtasksHook("of_bakery").party.name == "bakery"
    connected(monkeypatch, None)
    with pytest.raises(ConfigError, match="no connection `of_bakery`"):
        _ = FedtasksHook("of_bakery").party
    assert party_here("of_bakery") is None


def test_hook_without_a_file_names_it(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDTASKS_PARTY", str(tmp_path / "absent.yaml"))
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        _ = FedtasksHook().party


def test_hook_test_connection_says_how_the_peers_are(gateway: FakeGateway) -> None:
    peers = [
        worker_pb2.PeerStatus(name="shop", connected=True),
        worker_pb2.PeerStatus(name="bakery", failure=failure_pb2.Failure(code="PEER_UNREACHABLE")),
    ]
    gateway.peers = lambda: worker_pb2.ListPeersResponse(party="bank", peers=peers)  # type: ignore[attr-defined]
    good, text = FedtasksHook().test_connection()
    assert good
    assert "shop connected" in text
    assert "bakery not connected: PEER_UNREACHABLE" in text


def test_hook_test_connection_of_a_refusing_gateway_tells_the_remedy(gateway: FakeGateway) -> None:
    def refuse() -> None:
        raise SecretRejected

    gateway.peers = refuse  # type: ignore[attr-defined]
    good, text = FedtasksHook().test_connection()
    assert not good
    assert SecretRejected.remedy in text
