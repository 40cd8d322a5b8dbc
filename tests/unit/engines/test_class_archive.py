"""A class archive lets Java start sooner, and never keeps it from starting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedtasks.engines import class_archive
from fedtasks.errors import ConfigError


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "installation"))
    return tmp_path / "installation"


def test_without_an_archive_java_gets_no_options(prefix: Path) -> None:
    assert class_archive.java_options() == ""


def test_with_an_archive_java_is_told_where_it_is(prefix: Path) -> None:
    class_archive.archive().parent.mkdir(parents=True)
    class_archive.archive().touch()
    assert f"-XX:SharedArchiveFile={prefix}/share/fedtasks/spark-" in class_archive.java_options()


def test_folder_that_cannot_be_made_is_named(prefix: Path) -> None:
    prefix.touch()
    with pytest.raises(ConfigError, match="cannot be made") as caught:
        class_archive.make()
    assert str(prefix) in caught.value.where


@pytest.mark.cluster
def test_archive_that_is_made_is_used_and_a_broken_one_is_passed_over(prefix: Path) -> None:
    file = class_archive.make()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert class_archive.make() == file  # over the one before
    assert classes_from_archive() > 1000
    file.chmod(0o600)
    file.write_bytes(b"no archive")
    assert classes_from_archive() == 0


def classes_from_archive() -> int:
    """Start a local driver as `spark_session` does; return how many of Spark's classes came from an archive."""
    options = f"{class_archive.java_options()} -Xlog:class+load"
    code = (
        "import sys\n"
        "from pyspark.sql import SparkSession\n"
        "from fedtasks.engines.spark_session import local_conf\n"
        "conf = local_conf('512m')\n"
        "conf['spark.driver.extraJavaOptions'] += ' ' + sys.argv[1]\n"
        "spark = SparkSession.builder.master('local[1]').config(map=conf).getOrCreate()\n"
        "assert spark.range(3).count() == 3\n"
    )
    done = subprocess.run([sys.executable, "-c", code, options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " org.apache.spark." in line]
    return sum("shared objects file (top)" in line for line in lines)
