"""Boosted trees with the follower's sums on the cluster and its files on HDFS, against sums by threads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedtasks.config import Spark
from fedtasks.data.blocks import SPLIT, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import filesystem, write_atomically, write_json
from fedtasks.encrypted import spark as sums_by_spark
from fedtasks.engines.spark_session import running_session
from fedtasks.models.secureboost import training
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from tests.integration.psi_halves import make_party
from tests.integration.secureboost_case import FEATURES, SEEDS, halves_of, succeeded, write_both, write_party
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.hdfs import HdfsCluster
from tests.support.spark_cluster import SparkCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SETTINGS = TrainSettings(trees=3, depth=3, bins=8, min_leaf_rows=5, noise_rows=0, learning_rate=0.5, subsample=0.8)


def test_trees_grown_on_the_cluster_equal_those_of_one_machine(
    hdfs: HdfsCluster, spark_master: SparkCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_both(tmp_path)
    expected, _ = succeeded("train", tmp_path, SETTINGS)
    leader_alone, follower_alone = halves_of(tmp_path)

    leader, follower = (Context(tmp_path / "cluster", role, "train", settings=SETTINGS) for role in ROLES)
    write_party(tmp_path / "cluster", "leader")
    follower.storage = RunStorage(hdfs.home("trees"), RUN)
    table = write_party(tmp_path / "cluster", "follower").table().drop_columns([SPLIT])
    write_blocks(follower.storage, 1, table, FEATURES["follower"], rows_per_block=100)
    state = follower.storage.folder("train")
    write_json(f"{state}/initial-seed.json", SEEDS["follower"])
    write_atomically(f"{state}/sums/attempt-0/tree/rows-00000", b"what a killed attempt has left")
    conf = spark_master.conf | {"spark.cores.max": "2"}
    party = make_party("shop", tmp_path, ())
    follower.party = replace(party, spark=Spark(spark_master.master, "512m", conf))
    monkeypatch.setattr(sums_by_spark, "BLOCK_ROWS", 60)
    fs, folder = filesystem(f"{state}/sums")
    seen: list[set[str]] = []
    sums_of = sums_by_spark.SparkHistograms.of

    def watched(self: sums_by_spark.SparkHistograms, slots: np.ndarray, n_slots: int) -> np.ndarray:
        seen.append({path.removeprefix(f"{folder}/attempt-1/") for path in fs.find(folder)})
        return sums_of(self, slots, n_slots)

    monkeypatch.setattr(sums_by_spark.SparkHistograms, "of", watched)
    leaders, followers = run_both(training.train, leader, follower)

    assert isinstance(leaders, Outcome), (leaders, followers)
    assert leaders == followers == expected
    trained = load_half(leader.storage.published("train"), "leader")
    following = load_half(follower.storage.published("train"), "follower")
    assert trained.trees == leader_alone.trees
    assert following.splits == follower_alone.splits != ()
    # The first tree is the leader's alone.
    assert len(seen) == 2 * SETTINGS.depth
    names = {f"{kind}-{number:05d}" for number in range(4) for kind in ("bins", "tree/rows")}
    assert all(found == names for found in seen), seen
    assert not fs.exists(f"{folder}/attempt-1")
    assert not fs.exists(f"{folder}/attempt-0")
    assert running_session() is None
