"""Five days of a bank and a shop on one machine: their model retrains whenever both have landed a day.

The days are simulated, everything else is real: partitions land, assets are updated, the bank's Airflow starts the run
and the shop's answers. One day comes late at the shop, one never comes there, and on one a person triggers a run that
the schedule has started already. Before the third day the shop, which signs, changes its key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console

from fedtasks.crypto.scheme import generate_key
from fedtasks.crypto.schemes import Scheme
from fedtasks.data import partitions
from fedtasks.data.blocks import TRAIN, UNIT, Blocks
from fedtasks.data.held_out import Units, is_held_out, units_of
from fedtasks.data.run_storage import RunStorage
from fedtasks.dataclass_io import build
from fedtasks.errors import ProcessFailed
from fedtasks.kinds import remark_metric
from fedtasks.laptop import demo, people
from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.psi.settings import AlignSettings
from fedtasks.store import ModelRow, RunRow

PIPELINE = "daily_retrain"
DAYS = tuple(f"2026-11-{day}" for day in range(16, 21))
FIRST, LATE, MANUAL, MISSED, LAST = DAYS
RUN_TIMEOUT_S = 300
_CHANGED = 0.03
"""The part of the known people whose row changes on a day."""


@dataclass(frozen=True)
class Side:
    """One party's rows by day.

    Parameters
    ----------
    party, dataset
        Whose they are.
    days
        Day → the rows that are new or changed on it.
    """

    party: LocalParty
    dataset: str
    days: Mapping[str, pd.DataFrame]

    def land(self, day: str) -> None:
        """Write a day's rows and say that they are complete."""
        folder = self.party.folder / "data" / self.dataset / day
        folder.mkdir(parents=True)
        self.days[day].to_parquet(folder / "part-00000.parquet", index=False)
        rows = partitions.land(self.party.party().dataset(self.dataset), day)
        with self.party.client() as client:
            client.land_partition(self.dataset, day, rows)

    def newest(self, last: str) -> pd.DataFrame:
        """Return the newest row of each person up to a day, by id."""
        known = pd.concat([frame for day, frame in self.days.items() if day <= last])
        return known.drop_duplicates(people.ID, keep="last").set_index(people.ID)


def main(folder: Path, *, keep: bool = False) -> None:
    """Simulate the days.

    Parameters
    ----------
    folder
        Everything it makes goes here; what an earlier demo left is removed.
    keep
        Leave both Airflows up at the end and print their addresses until interrupted.

    Raises
    ------
    SystemExit
        1 when a run was doubled or failed, a row was lost, an id was sent to one key twice, or a test row had been
        learnt from.
    """
    console = Console(stderr=False, highlight=False)
    began = time.monotonic()
    with demo.stage(folder, console) as parties:
        bank, shop = parties
        console.print("[bold]1[/] a bank and a shop, whose data lands day by day …")
        demo.acquaint(bank, shop, "loans/{partition}", "customers/{partition}")
        schedule(bank)
        sides = (Side(bank, "loans", {}), Side(shop, "customers", {}))
        sides = simulate(*sides)
        console.print("[bold]2[/] two gateways and two Airflows start …")
        with console.status("starting"):
            ticket = demo.start(parties, (PIPELINE,))
        for warning in demo.warnings(shop, ticket):
            console.print(f"  ⚠ {warning}.")
        live(console, *sides)
        result = {**account(*sides, ticket), "wall_s": round(time.monotonic() - began, 1)}
        print(json.dumps(result), flush=True)
        if keep:
            demo.hold(parties, Console(stderr=True, highlight=False))
        if any(result[what] for what in ("runs_doubled", "rows_lost", "ids_sent_twice", "test_rows_learnt_before")):
            raise SystemExit(1)


def schedule(bank: LocalParty) -> None:
    """Let the bank's side start the pipeline by its schedule."""
    with bank.file.open("a", encoding="utf-8") as file:
        file.write(f"schedules: [{PIPELINE}]\n")


# -------------------------------------------------------------------------------------------------------------- data
def simulate(bank: Side, shop: Side, seed: int = 7) -> tuple[Side, Side]:
    """Spread the demo's people over the days: each side meets them on a day of its own, and some change later.

    What the shop should have landed on the missed day, it lands on the next.
    """
    known, rng = people.load(), np.random.default_rng(seed)
    loans = _by_day(known.bank, "Amount", rng, DAYS)
    customers = _by_day(known.shop, "Income", rng, tuple(day for day in DAYS if day != MISSED))
    return Side(bank.party, bank.dataset, loans), Side(shop.party, shop.dataset, customers)


def _by_day(
    frame: pd.DataFrame, column: str, rng: np.random.Generator, days: tuple[str, ...]
) -> dict[str, pd.DataFrame]:
    """Give every person a first day, and some of those known another `column` on every later day."""
    others = 0.4 / (len(days) - 1)
    met = rng.choice(len(days), len(frame), p=[0.6, *[others] * (len(days) - 1)])
    newest, found = frame.copy(), {}
    for number, day in enumerate(days):
        changed = (met < number) & (rng.random(len(frame)) < _CHANGED)
        newest.loc[changed, column] = (newest.loc[changed, column] * 1.1 + number).round()
        found[day] = newest[changed | (met == number)].copy()
    return found


# -------------------------------------------------------------------------------------------------------------- days
def live(console: Console, bank: Side, shop: Side) -> None:
    """Let the days go by."""
    console.print(f"[bold]3[/] {FIRST}: both land the day, and the bank's schedule starts the first run")
    both_land(console, FIRST, bank, shop)
    console.print(f"[bold]4[/] {LATE}: the shop's data is late")
    bank.land(LATE)
    time.sleep(15)  # the length of the delay, not a wait for something
    require(not runs_of(bank.party, LATE), f"a run of {LATE} began without the shop's data")
    shop.land(LATE)
    await_run(console, LATE, bank, shop)
    rotate_key(shop.party)
    console.print(
        f"[bold]5[/] {MANUAL}: the shop has a new key, and a person triggers a run that the schedule starts too"
    )
    bank.land(MANUAL)
    shop.land(MANUAL)
    wait_for(lambda: bool(runs_of(bank.party, MANUAL)), 120, f"the run of {MANUAL}")
    bank.party.trigger(PIPELINE, "by-hand", {"partition": MANUAL})
    await_run(console, MANUAL, bank, shop)
    require_done(bank.party, "by-hand")
    console.print(f"[bold]6[/] {MISSED}: the shop lands nothing, so nothing runs")
    bank.land(MISSED)
    console.print(f"[bold]7[/] {LAST}: the run of this day takes the bank's two days")
    both_land(console, LAST, bank, shop)
    require(not runs_of(bank.party, MISSED), f"a run of {MISSED} began without the shop's data")


def rotate_key(party: LocalParty) -> None:
    """Put a party's signing key away and make another, as when a contract ends."""
    key = party.party().psi_key
    require(key is not None, f"{party.name} has no key to sign with")
    assert key is not None  # noqa: S101 - so that types agree
    key.rename(key.with_name(f"{key.name}.old"))
    generate_key(Scheme.BLIND_RSA, key)


def both_land(console: Console, day: str, bank: Side, shop: Side) -> None:
    """Land a day on both sides and wait for its run."""
    bank.land(day)
    shop.land(day)
    await_run(console, day, bank, shop)


def await_run(console: Console, day: str, bank: Side, shop: Side) -> None:
    """Wait until the run of a day has succeeded on both sides."""
    began = time.monotonic()

    def state() -> str:
        return next((run.state for run in runs_of(bank.party, day)), "")

    with console.status(f"waiting for the run of {day}"):
        wait_for(lambda: state() in ("succeeded", "failed"), RUN_TIMEOUT_S, f"the run of {day}")
    (run,) = runs_of(bank.party, day)
    if run.state == "failed":
        raise ProcessFailed(f"run {run.run_id} failed: {run.failure}; logs are below {bank.party.folder}")
    for side in (bank, shop):
        require_done(side.party, run.dag_run_id if side is bank else run.run_id)
    with bank.party.store() as store:
        last = {row.name: row.value for row in store.metrics.list(run.run_id, "evaluate")}
        champion = store.models.champion(PIPELINE)
    before = f", champion's {last['champion_auc']:.4f}" if "champion_auc" in last else ""
    version = f"version {champion.version} in use" if champion else "no version in use"
    console.print(f"    {run.run_id}: AUC {last['auc']:.4f}{before}, {version} ({time.monotonic() - began:.0f} s)")


def require_done(party: LocalParty, dag_run_id: str) -> None:
    """Wait until a DAG run has succeeded."""

    def state() -> str:
        return str(party.dag_run(PIPELINE, dag_run_id)["state"])

    wait_for(lambda: state() in ("success", "failed"), 60, f"DAG run {dag_run_id} of {party.name}")
    require(state() == "success", f"DAG run {dag_run_id} of {party.name} failed")


def require(holds: bool, otherwise: str) -> None:
    """Raise `ProcessFailed` unless something holds."""
    if not holds:
        raise ProcessFailed(otherwise)


def runs_of(party: LocalParty, day: str) -> list[RunRow]:
    """Return the runs of a day."""
    with party.store() as store:
        return store.runs.of_partition(PIPELINE, day)


# -------------------------------------------------------------------------------------------------------- accounting
def account(bank: Side, shop: Side, ticket: str) -> dict[str, Any]:
    """Count what must not happen, from both stores, both storages and the rows as they were simulated."""
    with bank.party.store() as store:
        runs = [run for day in DAYS for run in store.runs.of_partition(PIPELINE, day)]
        versions = {row.version: row for row in store.models.list(PIPELINE)}
        champion = store.models.champion(PIPELINE)
        metrics = [row for run in runs for row in store.metrics.list(run.run_id, "evaluate")]
    learnt_before = sum(int(row.value) for row in metrics if row.name == remark_metric("rows_learnt_before"))
    with shop.party.store() as store:
        blinded = store.uses.total(ticket)["ids_blinded"]
    if champion is None:
        raise ProcessFailed("no version of the model was published")
    return {
        "days": len(DAYS),
        "runs_started": len(runs),
        "runs_doubled": len(runs) - len({run.partition for run in runs}),
        "key_rotations": 1,
        "rows_lost": sum(rows_lost(side, other, versions, champion) for side, other in ((bank, shop), (shop, bank))),
        # The second key has no tag yet of those that the first one has signed.
        "ids_sent_twice": blinded - len(bank.newest(LATE)) - len(bank.newest(LAST)),
        "test_rows_learnt_before": learnt_before,
        "champion_auc": round((champion.metrics or {})["auc"], 4),
    }


def rows_lost(side: Side, other: Side, versions: Mapping[int, ModelRow], champion: ModelRow) -> int:
    """Count the newest rows of shared people, up to the champion's day, that no version of its line has learnt from."""
    party, last = side.party.party(), champion.partition
    newest = side.newest(last)
    shared = newest.loc[newest.index.intersection(other.newest(last).index)]
    units = units_of(pa.array(shared.index.astype(str), pa.string())).to_numpy()
    features = list(party.dataset(side.dataset).features)
    learnt: set[tuple[Any, ...]] = set()
    version: ModelRow | None = champion
    while version is not None:
        rows = Blocks.open(RunStorage(party.storage, version.run_id)).table(TRAIN)
        learnt |= set(named(rows.column(UNIT).to_numpy(), rows.select(features).to_pandas()))
        version = versions[version.parent] if version.parent is not None else None
    settings = align_settings(side.party, champion.run_id)
    held_out = is_held_out(units, seed=settings.seed, test_fraction=settings.test_fraction)
    expected = zip(held_out, named(units, shared[features]), strict=True)
    return sum(not held and row not in learnt for held, row in expected)


def align_settings(party: LocalParty, run_id: str) -> AlignSettings:
    """Return the settings that a run's rows were cut by."""
    with party.store() as store:
        run = store.runs.get(run_id)
    if run is None:
        raise ProcessFailed(f"run {run_id} is not in the store of {party.name}")
    return build(AlignSettings, json.loads(run.config_json)["steps"]["align"])


def named(units: Units, rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return rows as tuples that can be compared, each behind whose it is."""
    plain = rows.astype(object).where(rows.notna(), None)
    return [(unit, *row) for unit, row in zip(units.tolist(), plain.itertuples(index=False, name=None), strict=True)]
