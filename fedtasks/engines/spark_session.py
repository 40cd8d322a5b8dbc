"""A Spark session as party.yaml describes it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

import fedtasks
from fedtasks.config import Spark
from fedtasks.data.storage import filesystem, is_local
from fedtasks.engines import class_archive

_PARTITIONS, _LEAST_PARTITIONS = "spark.sql.shuffle.partitions", 4


@contextmanager
def spark_session(settings: Spark, name: str, scratch: str) -> Iterator[SparkSession]:
    """Yield a Spark session as party.yaml describes it; one that is there already is used and left running.

    Parameters
    ----------
    settings
        Section ``spark`` of party.yaml.
    name
        Application name.
    scratch
        URI of a private folder; a local Spark keeps nothing anywhere else. What executors of a cluster spill and
        shuffle is in the folders that its administrator gave them.
    """
    running = running_session()
    if running is not None:
        yield running
        return
    # It tells of every connection that it closes, also when nobody listens any more.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    # Spark would start whatever `python3` it finds on PATH.
    os.environ["PYSPARK_PYTHON"] = settings.conf.get("spark.pyspark.python", sys.executable)
    if settings.is_local:
        conf = local_conf(settings.driver_memory)
        conf["spark.driver.extraJavaOptions"] += f" {class_archive.java_options()}"
    else:
        # Executors find this package where the driver has it, unless they have one of their own or are told another.
        conf = common_conf(settings.driver_memory)
        conf |= {"spark.executorEnv.PYTHONPATH": str(Path(fedtasks.__file__).resolve().parents[1])}
    with ExitStack() as stack:
        # Tables are never saved, but Spark makes their folder, and it knows less of remote URIs than we do.
        own = scratch if is_local(scratch) else f"file://{stack.enter_context(TemporaryDirectory())}"
        conf |= {"spark.sql.warehouse.dir": f"{own}/warehouse"}
        # What is spilled or shuffled holds ids.
        conf |= {"spark.local.dir": filesystem(f"{own}/spill")[1]}
        builder = SparkSession.builder.master(settings.master).appName(name)
        spark = builder.config(map={**conf, **settings.conf}).getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        if _PARTITIONS not in settings.conf:
            # Cores not used cost more than parts too small, of which Spark puts several together by itself.
            spark.conf.set(_PARTITIONS, max(_LEAST_PARTITIONS, 2 * spark.sparkContext.defaultParallelism))
        try:
            yield spark
        finally:
            spark.stop()


def running_session() -> SparkSession | None:
    """Return the Spark session of this process, whichever thread has started it."""
    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        return None


def common_conf(driver_memory: str) -> dict[str, str]:
    """Return Spark's settings, whatever its master."""
    return {
        "spark.driver.memory": driver_memory,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.caseSensitive": "true",
        "spark.sql.session.timeZone": "UTC",
        _PARTITIONS: str(_LEAST_PARTITIONS),
        "spark.sql.catalogImplementation": "in-memory",
    }


def local_conf(driver_memory: str) -> dict[str, str]:
    """Return Spark's settings where one process does all the work."""
    # Work on one machine is over before the second compiler pays; without it a job costs half the CPU. The heap is
    # taken as a whole at the start: what a driver needs is known from its configuration, whatever the data are.
    heap = f"-Xms{driver_memory} -Xmn96m -XX:+AlwaysPreTouch"
    return common_conf(driver_memory) | {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {heap}",
        "spark.memory.fraction": "0.3",  # sorts spill to disk before they crowd out the rest
    }
