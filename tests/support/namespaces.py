"""Another host, as far as the network goes: a network namespace that a pair of virtual cards joins with this one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

HERE, THERE = "10.254.77.1", "10.254.77.2"


@dataclass(frozen=True)
class OtherHost:
    """A namespace; it sees of this one what listens on `HERE`.

    Parameters
    ----------
    name
        How `ip netns` calls it.
    """

    name: str

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs another one there."""
        return ["ip", "netns", "exec", self.name, *argv]


@contextmanager
def other_host() -> Iterator[OtherHost]:
    """Make a host and take it away again; skips the test where that needs rights that nobody has here."""
    name = f"fedtasks-{os.getpid()}"
    near, far = f"ft{os.getpid()}a", f"ft{os.getpid()}b"
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", name], check=False).returncode:
        pytest.skip("a network namespace needs root, and `ip` of iproute2")
    try:
        steps = (
            f"link add {near} type veth peer name {far} netns {name}",
            f"addr add {HERE}/30 dev {near}",
            f"link set {near} up",
            f"-n {name} addr add {THERE}/30 dev {far}",
            f"-n {name} link set {far} up",
        )
        if any(subprocess.run(["ip", *step.split()], check=False).returncode for step in steps):
            pytest.skip("this machine has no virtual network cards (veth)")
        yield OtherHost(name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)  # the cards go with it
