"""A local Airflow's files and its early refusals; that it runs is shown by the two-party test."""

from __future__ import annotations

import configparser
import json
import socket
import stat
from pathlib import Path

import httpx
import pytest

from fedtasks.doctor.airflow_settings import SETTINGS
from fedtasks.errors import AirflowUnreachable, PortInUse
from fedtasks.laptop.airflow import LocalAirflow


def make(folder: Path, **arguments: object) -> LocalAirflow:
    return LocalAirflow(folder / "airflow", dags=folder, party_file=folder / "party.yaml", **arguments)  # type: ignore[arg-type]


def read(airflow: LocalAirflow) -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(airflow.folder / "airflow.cfg")
    return config


def test_local_airflow_files_are_for_their_owner_only(tmp_path: Path) -> None:
    airflow = make(tmp_path)
    airflow.configure()
    files = [path for path in airflow.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"airflow.cfg", "password", "passwords.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(airflow.folder.stat().st_mode) == 0o700


def test_local_airflow_second_start_keeps_secrets(tmp_path: Path) -> None:
    airflow = make(tmp_path)
    airflow.configure()
    first, password = read(airflow), airflow.password_file.read_text()
    airflow.configure()
    second = read(airflow)
    for section, option in (("core", "fernet_key"), ("api", "secret_key"), ("api_auth", "jwt_secret")):
        assert second.get(section, option) == first.get(section, option)
    assert airflow.password_file.read_text() == password


def test_local_airflows_share_no_secret(tmp_path: Path) -> None:
    two = [make(tmp_path / name) for name in ("bank", "shop")]
    for airflow in two:
        airflow.configure()
    secrets = [{read(airflow).get("core", "fernet_key"), airflow.password_file.read_text()} for airflow in two]
    assert not secrets[0] & secrets[1]


def test_local_airflow_takes_a_given_password(tmp_path: Path) -> None:
    given = tmp_path / "keys" / "airflow.password"
    given.parent.mkdir()
    given.touch(0o600)
    given.write_text("correct horse\n")
    airflow = make(tmp_path, password_file=given)
    airflow.configure()
    assert json.loads((airflow.folder / "passwords.json").read_text()) == {"admin": "correct horse"}


def test_local_airflow_environment_has_no_secrets_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "theirs")
    monkeypatch.setenv("A_TOKEN", "secret")
    airflow = make(tmp_path, env={"EXTRA": "1"})
    assert not {"AIRFLOW__CORE__FERNET_KEY", "A_TOKEN"} & set(airflow._env)
    assert airflow._env["EXTRA"] == "1"
    assert airflow._env["FEDTASKS_PARTY"] == str(tmp_path / "party.yaml")


def test_local_airflow_on_a_taken_port_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        airflow = make(tmp_path, port=server.getsockname()[1])
        with pytest.raises(PortInUse, match=str(airflow.port)):
            airflow.start()
    assert not airflow.folder.exists()


def test_local_airflow_that_does_not_run_is_unreachable(tmp_path: Path) -> None:
    airflow = make(tmp_path)
    airflow.configure()
    with pytest.raises(AirflowUnreachable, match="ConnectError"):
        airflow.rest("GET", "/api/v2/dags")


@pytest.mark.parametrize(("method", "n_asked"), [("GET", 3), ("PATCH", 3), ("POST", 1)])
def test_local_airflow_whose_database_is_taken_is_asked_again_for_what_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, n_asked: int
) -> None:
    monkeypatch.setattr("fedtasks.laptop.airflow._POLL_S", 0.0)
    airflow, asked = make(tmp_path), 0
    airflow.configure()

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        asked += 1
        return httpx.Response(200, json={"asked": asked}) if asked == 3 else httpx.Response(500, text="taken")

    monkeypatch.setattr(airflow, "_client", httpx.Client(base_url=airflow.url, transport=httpx.MockTransport(answer)))
    if method == "POST":
        with pytest.raises(AirflowUnreachable, match="500: taken"):
            airflow.rest(method, "/api/v2/dags/d/dagRuns", {})
    else:
        assert airflow.rest(method, "/api/v2/dags") == {"asked": 3}
    assert asked == n_asked
    airflow.close()


def test_local_airflow_notices_a_dead_worker_or_scheduler_within_a_minute(tmp_path: Path) -> None:
    airflow = make(tmp_path)
    airflow.configure()
    config = read(airflow)
    for setting in SETTINGS:
        if config.has_option(setting.section, setting.option):  # the others are Airflow's defaults, which will do
            assert config.getfloat(setting.section, setting.option) <= float(setting.good)
    found, _, _ = (config.get("scheduler", setting.option) for setting in SETTINGS[:3])
    interval, most = (config.getfloat("workers", name) for name in ("min_heartbeat_interval", "max_failed_heartbeats"))
    assert interval < float(found) < 60
    assert interval * most > 10  # an api-server that is started again costs nothing
