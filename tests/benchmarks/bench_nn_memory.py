"""Memory of a split network's training as rows grow: both halves of task ``train`` in two processes, one epoch.

Writes ROWS (comma-separated, in ascending order; by default 1000000,10000000) rows × (50 + 50) numbers in blocks of
100,000, trains on them in steps of 4,096, and prints a line for each number of rows. The last line is one JSON object:

- ``peak_mb``: the larger peak of both halves, for the most rows, in 2^20 bytes;
- ``rss_ratio_10m_vs_1m``: the larger ratio of a half's peak for the most rows to that for the fewest.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import Dataset, FeatureType, LabelKind
from fedtasks.data.blocks import LABEL, SPLIT, TRAIN, KeyType, OrderKey, block_schema, publish_blocks, write_block
from fedtasks.data.held_out import UNIT_TYPE
from fedtasks.data.run_storage import RunStorage
from fedtasks.dataclass_io import to_plain
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.names import own_column
from fedtasks.runtime.task_config import TaskConfig
from tests.integration.psi_halves import FOLLOWER, LEADER, HalfContext, make_party

RUN = "memory.2026-01-01.1"
COLUMNS, ROWS_PER_BLOCK = 50, 100_000
KEY = OrderKey("number", KeyType.INTEGER, 8)
FEATURES = {f"x{number}": FeatureType.NUMERIC for number in range(COLUMNS)}
SETTINGS = TrainSettings(epochs=1, batch_size=4096, hidden=(64,), embedding=16, rows_task="rows")


def write_rows(root: Path, party: str, n_rows: int) -> None:
    """Write blocks of one party, one after the other."""
    storage = RunStorage(f"file://{root}/{party}", RUN)
    folder, label = storage.attempt("rows", 1), LabelKind.BINARY if party == LEADER else None
    schema = block_schema(FEATURES, label=label, key=KEY)
    written = []
    for number, start in enumerate(range(0, n_rows, ROWS_PER_BLOCK)):
        rng = np.random.default_rng([number, party == LEADER])
        count = min(ROWS_PER_BLOCK, n_rows - start)
        values = rng.integers(0, 200, (COLUMNS, count), dtype=np.uint8).astype(np.float64)
        columns: dict[str, Any] = {
            KEY.column: np.arange(start, start + count),
            SPLIT: pa.repeat(pa.scalar(TRAIN), count),
            own_column("unit"): pa.array(np.arange(start, start + count)).cast(UNIT_TYPE),
            **{name: values[place] for place, name in enumerate(FEATURES)},
        }
        if label:
            columns[LABEL] = (values[0] > 100).astype(np.int8)
        written.append(write_block(folder, number, pa.table(columns), schema))
    publish_blocks(storage, 1, features=FEATURES, label=label, task="rows", key=KEY, written=written)


def serve(root: Path, party: str, connection: Connection, results: Connection) -> None:
    """Train one half and say what it took."""
    from fedtasks.models.split_nn import training  # TensorFlow

    config = TaskConfig(
        party=root / "party.yaml",
        run_id=RUN,
        task="train",
        attempt=1,
        peer=FOLLOWER if party == LEADER else LEADER,
        leader=LEADER,
        datasets=dict.fromkeys((LEADER, FOLLOWER), "rows"),
        settings=to_plain(SETTINGS),
        shared_digest="s",
    )
    dataset = Dataset(name="rows", uri=f"file://{root}/nowhere", id="id", features=FEATURES)
    context = HalfContext(config, make_party(party, root, (dataset,)), connection, None)
    started = time.monotonic()
    training.train(context)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    results.send(
        {
            "peak_mb": usage.ru_maxrss // 1024,
            "seconds": round(time.monotonic() - started, 1),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        }
    )


def measure(n_rows: int) -> dict[str, dict[str, float]]:
    """Return what each half took of so many rows."""
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder)
        for party in (LEADER, FOLLOWER):
            write_rows(root, party, n_rows)
        pipes, halves, results = spawned.Pipe(), [], {}
        for party, pipe in zip((LEADER, FOLLOWER), pipes, strict=True):
            results[party], told = spawned.Pipe(duplex=False)
            halves.append(spawned.Process(target=serve, args=(root, party, pipe, told)))
            halves[-1].start()
            told.close()
            pipe.close()
        try:
            return {party: result.recv() for party, result in results.items()}
        finally:
            for half in halves:
                half.join(30)
                half.kill()


def memory(sizes: list[int]) -> dict[str, Any]:
    """Return the figures of the last line."""
    found = []
    for n_rows in sizes:
        found.append(measure(n_rows))
        print(f"{n_rows:>12,} rows: {json.dumps(found[-1])}", flush=True)
    ratios = [found[-1][party]["peak_mb"] / found[0][party]["peak_mb"] for party in (LEADER, FOLLOWER)]
    peak = max(found[-1][party]["peak_mb"] for party in (LEADER, FOLLOWER))
    return {"peak_mb": peak, "rss_ratio_10m_vs_1m": round(max(ratios), 3)}


if __name__ == "__main__":
    asked = os.environ.get("ROWS") or "1000000,10000000"
    rows = [int(each) for each in asked.split(",")]
    print(json.dumps({"benchmark": "nn-memory", "rows": rows, **memory(rows)}))
