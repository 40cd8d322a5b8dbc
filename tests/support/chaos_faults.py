"""Faults of real processes and of the wire between two gateways, each drawn from a seed, done and undone."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support import victims
from tests.support.chaos_world import ChaosWorld

CUT, HOLE, DELAY = "cut", "hole", "delay"
ALGORITHM, WORKER, SPARK = "algorithm", "worker", "spark"
GATEWAY, POSTGRES = "gateway", "postgres"
COMPONENTS = ("scheduler", "triggerer", "api-server", "dag-processor")
FAULTS = (ALGORITHM, GATEWAY, *COMPONENTS, WORKER, SPARK, POSTGRES, CUT, HOLE, DELAY)
_LOOK_S = 0.05
_DELAY_S = 0.3
_BACK_S = 60.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Parameters
    ----------
    kind
        One of `FAULTS`.
    party
        Whose; on the wire, whose words are lost or late, ``both`` if both parties'.
    at
        When, as a share of an undisturbed run.
    lasts_s
        How long the wire is disturbed, or what was killed stays away.
    """

    kind: str
    party: str
    at: float
    lasts_s: float


def draw(rng: random.Random, kind: str) -> Fault:
    """Draw a fault of a kind."""
    party = rng.choice(("bank", "shop"))
    if kind == POSTGRES:
        party = "bank"  # whose store is there
    if kind == SPARK:
        party = "shop"  # whose jobs run there
    if kind in (CUT, HOLE, DELAY):
        party = rng.choice(("both", "bank", "shop")) if kind == HOLE else "both"
    # A hole must last longer than it may take to be noticed.
    shortest, longest = {HOLE: (13.0, 20.0), DELAY: (10.0, 20.0)}.get(kind, (2.0, 6.0))
    return Fault(kind, party, rng.uniform(0.0, 0.7), rng.uniform(shortest, longest))


def can_run_spark() -> bool:
    """Whether there is a Java for Spark."""
    return shutil.which("java") is not None


@dataclass(frozen=True)
class Done:
    """When a fault began and when it was over, by the monotonic clock."""

    fault: Fault
    began_s: float
    ended_s: float


class Mischief:
    """Does faults to a run, and undoes them.

    Parameters
    ----------
    world
        Whose processes and wire.
    run_id
        The run.
    is_over
        Whether the run has ended, so that nobody is left to be hit.
    rng
        Chooses among several victims.
    """

    def __init__(self, world: ChaosWorld, run_id: str, is_over: Callable[[], bool], rng: random.Random) -> None:
        self._world, self._run_id, self._is_over, self._rng = world, run_id, is_over, rng

    def do(self, fault: Fault) -> Done | None:
        """Do a fault and undo it; None if the run ended before anybody was there to be hit."""
        party = self._world.parties.get(fault.party)
        hits: dict[str, Callable[[], bool]] = {
            ALGORITHM: lambda: self._kill_one(lambda: list(victims.algorithms(self._run_id, party))),
            WORKER: lambda: self._kill_one(lambda: victims.workers(party)),  # type: ignore[arg-type]
            SPARK: lambda: self._kill_one(lambda: victims.java_machines(party)),  # type: ignore[arg-type]
        }
        if fault.kind in hits:
            if not hits[fault.kind]():
                return None
            return Done(fault, time.monotonic(), time.monotonic())
        if self._is_over():
            return None
        began = time.monotonic()
        if fault.kind in COMPONENTS:
            self._restart_component(fault)
        elif fault.kind == GATEWAY:
            self._restart_gateway(fault)
        elif fault.kind == POSTGRES:
            self._restart_postgres(fault)
        else:
            self._disturb_wire(fault)
        return Done(fault, began, time.monotonic())

    def _kill_one(self, find: Callable[[], Sequence[int]]) -> bool:
        """Kill one of those that are there, or of the first that come; False if none came before the run's end."""
        while not self._is_over():
            if found := sorted(find()):
                victims.kill(self._rng.choice(found))
                return True
            time.sleep(_LOOK_S)
        return False

    def _restart_component(self, fault: Fault) -> None:
        party = self._world.parties[fault.party]
        killed = victims.component(party, fault.kind)
        victims.kill(killed)
        _wait_until(lambda: victims.component(party, fault.kind) != killed, f"the {fault.kind} to be started again")

    def _restart_gateway(self, fault: Fault) -> None:
        party = self._world.parties[fault.party]
        assert party.gateway is not None
        party.gateway.kill()
        time.sleep(fault.lasts_s)  # the length of the fault, not a wait for something
        party.start_gateway()

    def _restart_postgres(self, fault: Fault) -> None:
        self._world.postgres.kill()
        try:
            time.sleep(fault.lasts_s)
        finally:
            self._world.postgres.start()

    def _disturb_wire(self, fault: Fault) -> None:
        proxy = self._world.proxy
        # The shop dials: what it says goes out, what the bank says comes back.
        directions = {"shop": ("out",), "bank": ("back",)}.get(fault.party, ("out", "back"))
        if fault.kind == CUT:
            proxy.cut()
        elif fault.kind == HOLE:
            proxy.hold(*directions)
        else:
            proxy.delay_s = _DELAY_S
        time.sleep(fault.lasts_s)
        proxy.mend()


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _BACK_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {_BACK_S:g} s in vain for {what}")
        time.sleep(_LOOK_S)
