"""The Compose file: that both parties are apart, and that nothing in it may do more than it must."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import tools

FILE = Path(__file__).resolve().parents[2] / "docker" / "compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PARTIES = ("bank", "shop")


def docker_compose() -> list[str]:
    """Return the command of Docker's Compose, of which no engine is asked; else podman's."""
    for argv in (["docker", "compose"], ["docker-compose"]):
        try:
            if subprocess.run([*argv, "version"], capture_output=True, check=False).returncode == 0:
                return argv
        except FileNotFoundError:
            continue
    return [tools.find("podman-compose")]


def test_compose_reads_it() -> None:
    argv = [*docker_compose(), "--file", str(FILE), "--profile", "demo", "config"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=dict(os.environ))
    if "No such file or directory: 'podman'" in done.stderr:
        tools.lacking("podman-compose needs podman")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"ports", "privileged", "cap_add", "devices", "pid", "ipc", "ulimits"}
    # A password stands in a file; a variable says at most where.
    values = service.get("environment", {})
    assert all(value.startswith("/") for value in values.values())


def test_only_gateways_meet() -> None:
    meeting = {name for name, service in SERVICES.items() if "wan" in service.get("networks", ())}
    assert meeting == {"bank-gateway", "shop-gateway"}
    assert all(network == {"internal": True} for network in COMPOSE["networks"].values())
    for name, service in SERVICES.items():
        if service.get("network_mode") == "none":
            continue
        party = name.partition("-")[0]
        assert set(service["networks"]) - {"wan"} == {party}, name


def test_a_volume_belongs_to_one_party() -> None:
    for name, service in SERVICES.items():
        party = name.partition("-")[0]
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", ()) if volume[0] != "."}
        foreign = {volume for volume in volumes if not volume.startswith(f"{party}-")}
        # Cards are public; what the shop has aligned is shown to the demo's comparison, and cannot be written there.
        shown = {"cards"} if name.endswith("-setup") else {"shop-files"} if name == "bank-train" else set()
        assert foreign == shown, name
    assert "shop-files:/mnt/shop:ro" in SERVICES["bank-train"]["volumes"]


@pytest.mark.parametrize("party", PARTIES)
def test_workers_have_no_key_of_the_gateway(party: str) -> None:
    from fedtasks.laptop.composed import OF_WORKERS

    mounted = SERVICES[f"{party}-airflow"]["volumes"]
    assert not [volume for volume in mounted if volume.startswith((f"{party}-gateway", f"{party}-passwords"))]
    assert not {"keys/gateway.key", "keys/ticket.key", "keys/authority.key", "keys"} & set(OF_WORKERS)
