"""A real HDFS and a real Spark cluster, started once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.support.airflow_home  # noqa: F401 - before anything imports Airflow

# Behind TensorFlow, which tests here import before others import Airflow, it would close what pytest captures.
import airflow  # noqa: F401 isort: skip

from tests.support.hdfs import HdfsCluster
from tests.support.spark_cluster import SparkCluster


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HdfsCluster]:
    with HdfsCluster(tmp_path_factory.mktemp("hdfs")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def spark_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    with SparkCluster(tmp_path_factory.mktemp("spark") / "standalone") as cluster:
        yield cluster
