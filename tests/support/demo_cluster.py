"""`make demo-cluster`: the demo, both parties' data and jobs on a real HDFS and a real Spark cluster of this machine.

Both clusters are started for it, and end with it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedtasks.cli.output import error_line
from fedtasks.errors import FedtasksError
from fedtasks.laptop import demo
from fedtasks.laptop.party import Cluster
from tests.support.hdfs import HdfsCluster
from tests.support.jars import java
from tests.support.spark_cluster import SparkCluster

PARTIES = ("bank", "shop")


def main(folder: Path, *, keep: bool) -> None:
    """Run the demo on clusters that start once nothing speaks against it."""
    try:
        java()
    except RuntimeError as error:
        raise SystemExit(str(error)) from error
    try:
        demo.main(folder, keep=keep, cluster=clusters())
    except FedtasksError as error:
        raise SystemExit(error_line(error)) from error


@contextmanager
def clusters() -> Iterator[Cluster]:
    """Start HDFS and Spark, and give each party a home there; both end with the context."""
    print("HDFS and Spark start …", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="fedtasks-cluster-") as place,
        HdfsCluster(Path(place) / "hdfs") as hdfs,
        SparkCluster(Path(place) / "spark") as spark,
    ):
        for name in PARTIES:
            hdfs.home(name)
        yield Cluster(f"127.0.0.1:{hdfs.port}", hdfs.web, spark.master, spark.conf)


if __name__ == "__main__":
    main(Path(".demo"), keep="--keep" in sys.argv[1:])
