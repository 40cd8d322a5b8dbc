"""Plays many schedules at once, each in one of several processes."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass

from fedtasks.testing.simulation.plan import draw
from fedtasks.testing.simulation.simulate import simulate

CHUNK = 10
"""How many schedules a process is given at once."""


@dataclass(frozen=True)
class Played:
    """What came of one schedule, in short.

    Parameters
    ----------
    seed
        Which one.
    faults
        How many things happened that nobody had asked for.
    violations
        The rules that did not hold.
    cpu_s
        What it has cost, in seconds of one core.
    """

    seed: int
    faults: int
    violations: tuple[str, ...]
    cpu_s: float


def play(seeds: Iterable[int], jobs: int, *, restores: bool = False) -> Iterator[Played]:
    """Play the schedules of some seeds in so many processes, and yield each as it comes to its end.

    Parameters
    ----------
    seeds, jobs
        Which schedules, and in how many processes.
    restores
        Whether a store is restored in each.

    Raises
    ------
    BrokenProcessPool
        A process was ended from outside.
    """
    left = iter(seeds)
    chunks = iter(lambda: list(itertools.islice(left, CHUNK)), [])
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        under_way = {pool.submit(_play_all, chunk, restores) for chunk in itertools.islice(chunks, 2 * jobs)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            under_way |= {pool.submit(_play_all, chunk, restores) for chunk in itertools.islice(chunks, len(done))}
            for played in done:
                yield from played.result()


def _begin() -> None:
    """Import and prepare what every schedule needs, and leave it out whenever garbage is looked for."""
    simulate(0)
    gc.collect()
    gc.freeze()


def _play_all(seeds: list[int], restores: bool) -> list[Played]:
    return [_play_one(seed, restores) for seed in seeds]


def _play_one(seed: int, restores: bool) -> Played:
    began_s = time.process_time()
    outcome = simulate(seed, draw(seed, restores=restores))
    faults = sum(event.kind not in ("trigger", "land") for event in outcome.plan.events)
    return Played(seed, faults, tuple(map(str, outcome.violations)), time.process_time() - began_s)
