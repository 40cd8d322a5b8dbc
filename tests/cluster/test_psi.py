"""PSI of two parties, of which both or one have a Spark application on the cluster, against a join; all on HDFS."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, FeatureType, Normalisation, Party, Spark
from fedtasks.crypto.scheme import generate_key
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.blocks import SPLIT, TAG, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import filesystem
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended, Halves, make_party, two_halves
from tests.support.hdfs import HdfsCluster
from tests.support.spark_cluster import SparkCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_numbers = itertools.count(1)

AMOUNT = "Amount.of `x`"
"""A name that Spark would take for a path."""


@pytest.fixture(scope="module")
def halves(spark_master: SparkCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Halves]:
    settings = Spark(spark_master.master, "512m", spark_master.conf)
    with two_halves(tmp_path_factory.mktemp("halves"), {LEADER: settings, FOLLOWER: settings}) as started:
        yield started


@pytest.fixture(scope="module")
def one_on_spark(spark_master: SparkCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Halves]]:
    """Pairs of halves by the party that is on Spark; the other is on DuckDB."""
    settings = Spark(spark_master.master, "512m", spark_master.conf)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(two_halves(tmp_path_factory.mktemp(f"spark-{name}"), {name: settings}))
            for name in (LEADER, FOLLOWER)
        }


@dataclasses.dataclass
class Case:
    """Two parties with homes on HDFS, and keys."""

    halves: Halves
    homes: dict[str, str]
    folder: Path
    run_id: str = ""
    key_number: int = 1
    parties: dict[str, Party] = dataclasses.field(default_factory=dict)

    def give(self, name: str, ids: Sequence[str]) -> None:
        """Write a party's dataset in two files and several row groups, and declare it."""
        home = self.homes[name]
        fs, folder = filesystem(f"{home}/people")
        if fs.exists(folder):
            fs.rm(folder, recursive=True)
        fs.makedirs(folder)
        label = {"Status": ["good" if index % 3 else "bad" for index in range(len(ids))]} if name == LEADER else {}
        rows = pa.table({"id": list(ids), AMOUNT: [float(index) for index in range(len(ids))], **label})
        half = len(ids) // 2
        for number, part in enumerate((rows.slice(0, half), rows.slice(half))):
            with fs.open(f"{folder}/part-{number}.parquet", "wb") as file:
                pq.write_table(part, file, row_group_size=max(1, len(part) // 3))
        dataset = Dataset(
            name="people",
            uri=f"{home}/people",
            id="id",
            features={AMOUNT: FeatureType.NUMERIC},
            normalise=(Normalisation.TRIM,),
            label="Status" if name == LEADER else None,
            label_positive="good" if name == LEADER else None,
        )
        keys = [self.folder / f"{scheme.value}-{self.key_number}.key" for scheme in (Scheme.BLIND_RSA, Scheme.OPRF)]
        for scheme, key in zip((Scheme.BLIND_RSA, Scheme.OPRF), keys, strict=True):
            if not key.exists():
                generate_key(scheme, key, 2048 if scheme is Scheme.BLIND_RSA else None)
        self.parties[name] = dataclasses.replace(make_party(name, self.folder, (dataset,), *keys), storage=home)

    def begin(self, bank_ids: Sequence[str], shop_ids: Sequence[str]) -> None:
        """Declare both datasets for a run of its own."""
        self.run_id = f"credit.day.{next(_numbers)}"
        self.give(LEADER, bank_ids)
        self.give(FOLLOWER, shop_ids)

    def run(self, attempt: int = 1, cut_after: dict[str, int] | None = None, **settings: object) -> dict[str, Ended]:
        return self.halves.run("psi", self.run_id, self.parties, settings, attempt=attempt, cut_after=cut_after)

    def align(self) -> dict[str, list[str]]:
        """Align what the last intersection found, held out by the leader; return each side's ids in row order."""
        settings = {"rows_per_block": 60, "held_out_by": "label"}
        ended = self.halves.run("align", self.run_id, self.parties, settings)
        assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
        people = {name: self.people(name) for name in (LEADER, FOLLOWER)}
        blocks = {name: Blocks.open(RunStorage(home, self.run_id)) for name, home in self.homes.items()}
        splits = [opened.table()[SPLIT].to_pylist() for opened in blocks.values()]
        assert splits[0] == splits[1]
        return {name: [people[name][tag] for tag in opened.table()[TAG].to_pylist()] for name, opened in blocks.items()}

    def check(self, ended: dict[str, Ended], bank_ids: Sequence[str], shop_ids: Sequence[str]) -> None:
        """Compare what both published with an inner join; duplicates count once."""
        assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
        tables = [
            pd.DataFrame({"id": ids})["id"].str.strip().drop_duplicates().to_frame() for ids in (bank_ids, shop_ids)
        ]
        expected = set(tables[0].merge(tables[1], on="id")["id"])
        people = {name: self.people(name) for name in (LEADER, FOLLOWER)}
        assert people[LEADER] == people[FOLLOWER]
        assert set(people[LEADER].values()) == expected

    def people(self, name: str) -> dict[bytes, str]:
        manifest = RunStorage(self.homes[name], self.run_id).published("psi")
        manifest.verify()
        found: dict[bytes, str] = {}
        for entry in manifest.files:
            fs, path = filesystem(manifest.path(entry.name))
            with fs.open(path, "rb") as file:
                rows = pq.read_table(file).to_pylist()
            found |= {row["tag"]: row["id"] for row in rows}
        assert len(found) == manifest.rows
        return found

    def when(self, pattern: str, act: Callable[[], None]) -> threading.Thread:
        """Call `act` as soon as the signer has a file that matches, in a thread of its own."""
        fs, root = filesystem(self.homes[FOLLOWER])

        def wait() -> None:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                if fs.glob(f"{root}/runs/{self.run_id}/psi/state/{pattern}"):
                    act()
                    return
                time.sleep(0.1)

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture
def case(halves: Halves, hdfs: HdfsCluster, tmp_path: Path) -> Case:
    number = next(_numbers)
    homes = {name: hdfs.home(f"{name}{number}") for name in (LEADER, FOLLOWER)}
    return Case(halves, homes, tmp_path)


def ids(numbers: range, duplicates: int = 0) -> list[str]:
    found = [f"{number:07d}" for number in numbers]
    return found + [f" {each} " for each in found[:duplicates]]


@pytest.mark.parametrize("scheme", ["blind_rsa", "oprf"])
def test_psi_on_the_cluster_equals_a_join_on_every_day_and_under_a_new_key(case: Case, scheme: str) -> None:
    days = [
        # ids of the bank, ids of the shop, ids that are blinded
        (ids(range(500), duplicates=50), ids(range(200, 700), duplicates=50), 500),
        (ids(range(5, 505)), ids(range(200, 710)), 5),
        (ids(range(5, 505)), ids(range(2000, 2100)), 0),
    ]
    for bank_ids, shop_ids, n_blinded in days:
        case.begin(bank_ids, shop_ids)
        ended = case.run(scheme=scheme, shards=2, min_intersection=0)
        case.check(ended, bank_ids, shop_ids)
        assert case.halves.accounts[FOLLOWER].uses == ([("ids_blinded", n_blinded)] if n_blinded else [])
    case.key_number = 2
    bank_ids, shop_ids, _ = days[0]
    case.begin(bank_ids, shop_ids)

    ended = case.run(scheme=scheme, shards=2)

    case.check(ended, bank_ids, shop_ids)
    assert case.halves.accounts[FOLLOWER].uses == [("ids_blinded", 500)]


def test_psi_with_an_executor_killed_in_mid_job_gives_the_same(case: Case, spark_master: SparkCluster) -> None:
    bank_ids, shop_ids = ids(range(6000)), ids(range(3000, 4000))
    case.begin(bank_ids, shop_ids)
    killed: list[int] = []

    def kill() -> None:
        for pid in spark_master.executors():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    # The last shard has arrived and is being answered, for which this machine needs some seconds.
    killer = case.when("blinded-00001-*", kill)
    ended = case.run(shards=2)
    killer.join()

    assert len(killed) == 2
    case.check(ended, bank_ids, shop_ids)
    assert case.halves.accounts[FOLLOWER].uses == [("ids_blinded", 6000)]


def test_psi_with_a_datanode_restarted_gives_the_same_and_signs_nothing_twice(case: Case, hdfs: HdfsCluster) -> None:
    bank_ids, shop_ids = ids(range(3000)), ids(range(1500, 2500))
    case.begin(bank_ids, shop_ids)

    def restart() -> None:
        hdfs.stop_datanode()
        hdfs.start_datanode()

    restarted = case.when("blinded-00000-*", restart)
    ended = case.run(shards=2)
    restarted.join()
    uses = list(case.halves.accounts[FOLLOWER].uses)
    if ended[LEADER].outcome is None or ended[FOLLOWER].outcome is None:
        # As Airflow would: the task is tried again.
        ended = case.run(attempt=2, shards=2)
        uses += case.halves.accounts[FOLLOWER].uses

    case.check(ended, bank_ids, shop_ids)
    # What is counted is what the run has used in all.
    assert set(uses) == {("ids_blinded", 3000)}


def test_psi_cut_half_way_goes_on_in_the_next_attempt(case: Case) -> None:
    bank_ids, shop_ids = ids(range(800)), ids(range(600, 900))
    case.begin(bank_ids, shop_ids)
    assert case.run(cut_after={LEADER: 800 * 256 // 2}, shards=4)[LEADER].code == "PEER_FAILED"
    uses = list(case.halves.accounts[FOLLOWER].uses)

    ended = case.run(attempt=2, shards=4)

    case.check(ended, bank_ids, shop_ids)
    assert uses + case.halves.accounts[FOLLOWER].uses == [("ids_blinded", 800)] * 2
    assert case.halves.accounts[LEADER].bytes_sent < 0.9 * 800 * 256


@pytest.mark.parametrize("scheme", ["blind_rsa", "oprf"])
def test_psi_of_spark_and_duckdb_equals_a_join_and_either_reads_the_tags_of_the_other(
    case: Case, one_on_spark: dict[str, Halves], scheme: str
) -> None:
    days = [
        # who is on Spark, ids of the bank, ids of the shop, ids that are blinded
        (LEADER, ids(range(500), duplicates=50), ids(range(200, 700), duplicates=50), 500),
        (FOLLOWER, ids(range(5, 505)), ids(range(200, 710)), 5),
        (LEADER, ids(range(5, 505)), ids(range(150, 700)), 0),
    ]
    for on_spark, bank_ids, shop_ids, n_blinded in days:
        case.halves = one_on_spark[on_spark]
        case.begin(bank_ids, shop_ids)
        ended = case.run(scheme=scheme, shards=3)
        case.check(ended, bank_ids, shop_ids)
        assert case.halves.accounts[FOLLOWER].uses == ([("ids_blinded", n_blinded)] if n_blinded else [])
        aligned = case.align()
        assert aligned[LEADER] == aligned[FOLLOWER]
        assert sorted(aligned[LEADER]) == sorted(
            {each.strip() for each in bank_ids} & {each.strip() for each in shop_ids}
        )
