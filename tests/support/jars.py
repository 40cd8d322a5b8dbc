"""The jars of a real HDFS, of pyspark's version of Hadoop, and of Kafka; `python -m tests.support.jars` fetches them.

Apache Ivy, which pyspark bundles, gets them from Maven Central: a machine needs Java and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pyspark

SPARK_HOME = Path(pyspark.__file__).resolve().parent
KAFKA_VERSION = "3.9.1"
TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "hadoop"


def java() -> str:
    """Return the Java that pyspark would take."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None:
        raise RuntimeError("Java is not installed, or JAVA_HOME does not name it; Spark and HDFS need Java 17 or newer")
    return found


def hadoop_version() -> str:
    """Return the version of pyspark's Hadoop client."""
    (jar,) = (SPARK_HOME / "jars").glob("hadoop-client-api-*.jar")
    found = re.fullmatch(r"hadoop-client-api-(.+)\.jar", jar.name)
    assert found is not None
    return found[1]


def hadoop_jars() -> Path:
    """Return the folder that holds all jars of the NameNode and the DataNode; fetches them the first time."""
    return _jars(TOOLS, "org.apache.hadoop", "hadoop-client-minicluster", hadoop_version())


def kafka_jars() -> Path:
    """Return the folder that holds all jars of a broker of Kafka; fetches them the first time."""
    return _jars(TOOLS.parent / "kafka", "org.apache.kafka", "kafka_2.13", KAFKA_VERSION)


def _jars(tools: Path, organisation: str, module: str, version: str) -> Path:
    folder = tools / version
    if folder.exists():
        return folder
    tools.mkdir(parents=True, exist_ok=True)
    # Into a folder of its own first: one that was fetched by half must not look whole.
    with tempfile.TemporaryDirectory(dir=tools) as partial:
        jars = Path(partial) / "jars"
        done = subprocess.run(
            [
                *(java(), "-cp", f"{SPARK_HOME}/jars/*", "org.apache.ivy.Main", "-warn", "-cache", f"{partial}/cache"),
                *("-dependency", organisation, module, version, "-confs", "default"),
                *("-retrieve", f"{jars}/[artifact]-[revision].[ext]"),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode or not list(jars.glob(f"{module}-{version}.jar")):
            raise RuntimeError(f"Ivy could not get {module} {version} from Maven Central:\n{done.stdout}{done.stderr}")
        try:
            jars.rename(folder)
        except OSError:  # another process was quicker
            if not folder.exists():
                raise
    return folder


if __name__ == "__main__":
    print(hadoop_jars(), kafka_jars())
