"""Jobs on a real Spark master over a real HDFS."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from fedtasks.config import Party, Spark
from fedtasks.data.storage import read_bytes, write_atomically
from fedtasks.engines import open_engine
from fedtasks.errors import DataMissing
from tests.integration.psi_halves import make_party
from tests.support.hdfs import HdfsCluster
from tests.support.spark_cluster import ROOT, SparkCluster

pytestmark = pytest.mark.cluster

WORKER = """
import subprocess, sys
from fedtasks.supervisor import command
subprocess.run(command(sys.argv[1:], grace_s=10))
"""
DRIVER = """
import sys, time
from pathlib import Path
from fedtasks.config import Spark
from fedtasks.engines.spark_session import spark_session
folder, master, name = sys.argv[1:]
conf = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.executor.memory": "512m"}
with spark_session(Spark(master, "512m", conf), name, f"file://{folder}/spark") as spark:
    spark.range(2, numPartitions=2).foreach(lambda _: time.sleep(600))
"""


def party_on(hdfs: HdfsCluster, spark: SparkCluster, name: str, folder: Path) -> Party:
    settings = Spark(spark.master, "512m", spark.conf)
    return replace(make_party("bank", folder, ()), storage=hdfs.home(name), spark=settings)


def test_job_on_the_cluster_reads_and_writes_hdfs_also_after_a_restart(
    hdfs: HdfsCluster, spark_master: SparkCluster, tmp_path: Path
) -> None:
    party = party_on(hdfs, spark_master, "jobs", tmp_path)
    root = party.storage
    for index in range(4):
        write_atomically(f"{root}/in-{index}", str(index).encode())

    def square(index: int) -> Iterator[pa.RecordBatch]:
        import os

        from fedtasks.data.storage import read_bytes, write_atomically

        number = int(read_bytes(f"{root}/in-{index}"))
        write_atomically(f"{root}/out-{index}", str(number**2).encode())
        yield pa.RecordBatch.from_pydict({"number": [number], "path": [os.environ["PYTHONPATH"]]}, schema=schema)

    schema = pa.schema([("number", pa.int64()), ("path", pa.string())])
    with open_engine(party, "squares", f"{root}/spark") as engine:
        for restarted in (False, True):
            if restarted:
                hdfs.stop_datanode()
                hdfs.start_datanode()
            rows = engine.collect(engine.each(range(4), square, schema))
            assert sorted(row["number"] for row in rows) == [0, 1, 2, 3]
            assert all(str(ROOT) in row["path"].split(":") for row in rows)
            assert [read_bytes(f"{root}/out-{index}") for index in range(4)] == [b"0", b"1", b"4", b"9"]
        with pytest.raises(DataMissing, match="in-4"):
            engine.collect(engine.each(range(4, 5), square, schema))


def test_application_of_a_killed_process_is_gone_within_30_s(spark_master: SparkCluster, tmp_path: Path) -> None:
    # As an Airflow worker does: a process that runs the driver under a guard, and is itself killed.
    worker = [sys.executable, "-c", WORKER, sys.executable, "-c", DRIVER, str(tmp_path), spark_master.master, "lost"]
    with subprocess.Popen(worker, cwd=ROOT) as process:
        try:
            deadline = time.monotonic() + 90
            while not ("lost" in spark_master.applications() and spark_master.executors()):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            process.kill()
    killed = time.monotonic()
    while "lost" in spark_master.applications() or spark_master.executors():
        assert time.monotonic() < killed + 30
        time.sleep(0.2)
