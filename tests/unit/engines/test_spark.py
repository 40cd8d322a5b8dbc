"""What Spark's workers must know that have read no party.yaml."""

from __future__ import annotations

import pickle

import pyarrow as pa
from pyspark import cloudpickle

from fedtasks.config import S3, s3
from fedtasks.engines.spark import _carried


def test_worker_reaches_the_buckets_of_the_driver() -> None:
    schema = pa.schema([("n", pa.int64())])
    s3.reach(["s3://rows-of-spark/x"], S3("https://minio.example"))
    carried = cloudpickle.dumps(_carried(lambda batches: batches, schema, schema))
    there = s3.reached()
    s3._reached.clear()
    try:
        list(pickle.loads(carried)(iter([pa.record_batch({"n": [1]})])))
        assert s3.reached()["rows-of-spark"] == S3("https://minio.example")
    finally:
        s3.reach_again(there)
