"""A bank with several gateways on one PostgreSQL, behind one address that knows nothing of them; a shop with one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from fedtasks.laptop.ports import free_ports
from tests.support.gateways import ROOT, Member, make_members, set_address
from tests.support.postgres import PostgresServer
from tests.support.proxy import Proxy
from tests.support.runs import wait_for

ACTIVE, STANDS_BY = "serves its workers", "stands by"


class GatewayProcess:
    """One of the bank's gateways, as a process with addresses of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        self.file = folder / f"party-{number}.yaml"
        self.log = folder / f"gateway-{number}.log"
        self.listen, self.workers = (f"127.0.0.1:{port}" for port in free_ports(2))
        text = (folder / "party.yaml").read_text()
        self.file.write_text(text.replace("LISTEN", self.listen).replace("WORKERS", self.workers))
        self.log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [sys.executable, "-P", "-m", "fedtasks.cli", "gateway", "--party", str(self.file)]
        with self.log.open("ab") as output:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(argv, stdout=output, stderr=output, env=environment)

    @property
    def is_active(self) -> bool:
        """Whether it has said last that it is the active one."""
        lines = [line for line in self.log.read_text().splitlines() if ACTIVE in line or STANDS_BY in line]
        return self.is_up and bool(lines) and ACTIVE in lines[-1]

    @property
    def is_up(self) -> bool:
        """Whether it runs and has said which it is."""
        text = self.log.read_text()
        return self._process is not None and self._process.poll() is None and (ACTIVE in text or STANDS_BY in text)

    def tell(self, signal_number: int) -> None:
        """Send it a signal; waits for its end, if it is one that ends it."""
        assert self._process is not None
        self._process.send_signal(signal_number)
        if signal_number in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait()
            with self.log.open("a") as log:
                log.write("ended, so it neither is active nor STANDS BY\n")

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Fleet:
    """The bank's gateways, the addresses in front of them, and the shop.

    Attributes
    ----------
    bank, shop
        The parties. Whoever is a client of the bank's comes by the address in front.
    gateways
        The bank's, none of them started.
    """

    def __init__(self, stack: ExitStack, folder: Path, postgres: PostgresServer, n_gateways: int = 2) -> None:
        self.bank, self.shop, listen = make_members(folder)
        for member in (self.shop, self.bank):
            stack.callback(member.close)
        file = self.bank.folder / "party.yaml"
        store = f"store: {{url: '{postgres.create_database()}', password_file: '{postgres.password_file}'}}\n"
        text = file.read_text().replace(f"  listen: {listen}\n", "  listen: LISTEN\n  workers: WORKERS\n") + store
        file.write_text(text)
        self.gateways = [GatewayProcess(self.bank.folder, number) for number in range(n_gateways)]
        peers = Proxy(*(gateway.listen for gateway in self.gateways))
        workers = Proxy(*(gateway.workers for gateway in self.gateways))
        file.write_text(text.replace("LISTEN", listen).replace("WORKERS", workers.address))
        set_address(self.shop, peers.address)
        for each in (*self.gateways, peers, workers):
            stack.callback(each.close)

    @property
    def active(self) -> GatewayProcess | None:
        """The bank's active gateway, if there is one now."""
        return next((gateway for gateway in self.gateways if gateway.is_active), None)

    def start(self) -> tuple[GatewayProcess, GatewayProcess]:
        """Start all; returns the one that has become active, and another."""
        first, second, *others = self.gateways
        first.start()
        wait_for(lambda: first.is_active, 60)
        for gateway in (second, *others):
            gateway.start()
        self.shop.start()
        wait_for(lambda: all(gateway.is_up for gateway in self.gateways), 60)
        return first, second


def seconds_until(condition: object, timeout_s: float = 60.0) -> float:
    """Return after how long a condition holds."""
    began = time.monotonic()
    wait_for(condition, timeout_s)
    return time.monotonic() - began


def member_at(member: Member, workers: str) -> Member:
    """Return a party as a worker sees it that reaches the gateway at another address."""
    folder = member.folder.with_name(f"{member.folder.name}-at-{workers.replace(':', '-')}")
    folder.mkdir()
    (folder / "keys").symlink_to(member.folder / "keys")
    lines = (member.folder / "party.yaml").read_text().splitlines()
    lines = [f"  workers: {workers}" if line.startswith("  workers:") else line for line in lines]
    (folder / "party.yaml").write_text("\n".join(lines))
    return Member(member.name, folder, member.airflow)
