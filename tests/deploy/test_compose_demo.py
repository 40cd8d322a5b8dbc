"""The demo in containers, on an engine of Docker that this machine has, with images that were built before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tools, wire

FILE = Path(__file__).resolve().parents[2] / "docker" / "compose.yaml"
IMAGES = os.environ.get("FEDTASKS_IMAGES", "localhost/fedtasks")
PEERS, TUNNELS = 7400, 7401
TOKEN_BYTES = 32
"""What a tunnel begins with, before TLS."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def docker(*arguments: str) -> str:
    done = subprocess.run([tools.find("docker"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compose(*arguments: str) -> str:
    return docker("compose", "--project-name", "fedtasks-test", "--file", str(FILE), "--profile", "demo", *arguments)


@pytest.fixture
def parties() -> Iterator[None]:
    """Start both parties, and remove them with all that they kept."""
    argv = [tools.find("docker"), "compose", "version"]
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        tools.lacking("docker has no Compose on this machine")
    for image in ("gateway", "trainer", "demo"):
        argv = [tools.find("docker"), "image", "inspect", f"{IMAGES}/{image}:latest"]
        if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
            tools.lacking(f"there is no image {IMAGES}/{image}, or no engine of Docker")
    try:
        compose("up", "--detach", "--no-build", "bank-airflow", "shop-airflow")
        yield
    finally:
        compose("down", "--volumes", "--timeout", "2")


def test_model_is_better_and_the_wire_between_gateways_shows_tls_alone(parties: None, tmp_path: Path) -> None:
    tcpdump, nsenter = tools.find("tcpdump"), tools.find("nsenter")
    if os.geteuid() != 0:
        tools.lacking("only root may listen to the wire of a container")
    gateway = compose("ps", "--quiet", "bank-gateway").strip()
    pid = docker("inspect", "--format", "{{.State.Pid}}", gateway).strip()
    capture = tmp_path / "wire.pcap"
    argv = [nsenter, "--target", pid, "--net", tcpdump, "-i", "any", "-B", "65536", "-U", "-w", str(capture)]
    with subprocess.Popen([*argv, f"tcp port {PEERS} or {TUNNELS}"], stderr=subprocess.DEVNULL) as listening:
        # So that the capture has the begin of their conversation.
        compose("restart", "shop-gateway")
        shown = compose("run", "--rm", "-T", "bank-train")
        listening.send_signal(signal.SIGINT)
    result = json.loads(shown.splitlines()[-1])
    assert result["auc_federated"] > result["auc_alone"]
    assert result["bytes_sent"] > 1_000_000
    assert result["engine"] == "duckdb"
    heard = {PEERS: 0, TUNNELS: 0}
    for one in wire.directions(capture):
        port = one.target[1] if one.target[1] in heard else one.source[1]
        is_tunnels_token = port == TUNNELS == one.target[1]
        records = wire.tls_records(one.data[TOKEN_BYTES if is_tunnels_token else 0 :])
        assert set(records) >= {22, 23}, one  # a handshake, and what it protects
        heard[port] += len(one.data)
    assert heard[PEERS] > 0
    assert heard[TUNNELS] > 1_000_000
