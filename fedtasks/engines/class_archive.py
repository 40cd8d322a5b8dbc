"""An archive of Java's classes, with which Spark drivers on this machine start in half the time.

Most of a driver's start goes into reading and verifying the same classes each time. An archive holds them ready to use.
It belongs to one installation of pyspark and one Java: with others, Java passes over it and starts as without.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedtasks import durable, private
from fedtasks.errors import ConfigError, ProcessFailed

MAKE_TIMEOUT_S = 300


def archive() -> Path:
    """Return where this installation's archive is, or would be."""
    return Path(sys.prefix) / "share" / "fedtasks" / f"spark-{version('pyspark')}.jsa"


def java_options() -> str:
    """Return the options with which Java uses the archive; none without one."""
    file = archive()
    if not file.exists() or " " in str(file):
        return ""
    return f"-XX:SharedArchiveFile={file} -Xlog:cds=off -Xlog:class+path=off"


def make() -> Path:
    """Make the archive; safe to repeat, and while drivers run with the one before.

    Raises
    ------
    ConfigError
        The installation's folder cannot be written.
    ProcessFailed
        Java did not write it; names its last lines.

    Notes
    -----
    Cost: one start of Spark and about 100 MB on disk.
    """
    target = archive()
    try:
        private.make_folders(target.parent, private.SHARED)
        scratch = TemporaryDirectory(dir=target.parent)
    except OSError as error:
        raise ConfigError(f"the archive cannot be written: {error.strerror}", where=str(target.parent)) from error
    with scratch as folder:
        partial = Path(folder) / target.name
        command = [sys.executable, "-m", "fedtasks.engines.class_archive", str(partial)]
        environment = os.environ | {"PYSPARK_PYTHON": sys.executable}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", timeout=MAKE_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise ProcessFailed(f"Java wrote no archive within {MAKE_TIMEOUT_S} s") from error
        if done.returncode != 0 or not partial.exists():
            last = " ".join((done.stdout + done.stderr).split()[-60:])
            raise ProcessFailed(f"Java wrote no archive: {last}")
        private.share(partial)  # every user of the installation starts drivers
        durable.replace(partial, target)
    return target


def _record(target: Path) -> None:
    """Run Spark as intersection and alignment do, and have Java write the classes that it needed."""
    import pyarrow as pa
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    from fedtasks.engines.engine import Batches, How
    from fedtasks.engines.spark import SparkEngine
    from fedtasks.engines.spark_session import local_conf

    schema = pa.schema([("id", pa.string()), ("shard", pa.int32()), ("row", pa.int64())])

    def read(numbers: range) -> Batches:
        rows = list(numbers)
        columns = {"id": list(map(str, rows)), "shard": [row % 4 for row in rows], "row": rows}
        yield pa.RecordBatch.from_pydict(columns, schema=schema)

    def same(_: int, batches: Batches) -> Batches:
        yield from batches

    conf = local_conf("512m")
    conf["spark.driver.extraJavaOptions"] += f" -XX:ArchiveClassesAtExit={target}"
    builder = SparkSession.builder.master("local[2]").appName("class archive of fedtasks")
    spark = builder.config(map={**conf}).getOrCreate()
    engine = SparkEngine(spark)
    with engine.keep(engine.each([range(32), range(16, 64)], read, schema)) as rows:
        first = engine.first_of_each(rows, "id", ["shard", "row"])
        missing = engine.concat(engine.join(first, rows, "id", How.ANTI), rows)
        found = engine.join(missing, engine.select(first, ["id"]), "id", How.SEMI)
        ordered = engine.by_shard(engine.spread(found), "shard", 4, ["id"], same, schema)
        engine.collect(engine.map(ordered, lambda batches: batches, schema))
        engine.count(engine.join(engine.select(rows, ["id"]), first, "id"))
    spark.stop()
    gateway: Any = SparkContext._gateway
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()  # only now the archive is written


if __name__ == "__main__":
    _record(Path(sys.argv[1]))
