"""Two parties' blocks for the split network: people whose label depends on features of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import LABEL, TAG, WEIGHT, Blocks, write_blocks
from fedtasks.data.storage import RunStorage, write_json
from tests.support.halves import RUN

SEEDS = {"leader": 11, "follower": 12}

FEATURES = {
    "leader": {"age": FeatureType.NUMERIC, "home": FeatureType.CATEGORICAL},
    "follower": {"income": FeatureType.NUMERIC, "job": FeatureType.CATEGORICAL},
}


def write_party(
    root: Path,
    role: str,
    *,
    run_id: str = RUN,
    n: int = 240,
    seed: int = 0,
    labels: np.ndarray | None = None,
    test_fraction: float = 0.25,
    kind: LabelKind = LabelKind.BINARY,
    weights: np.ndarray | None = None,
) -> Blocks:
    """Write one party's blocks: people whose label depends on both parties' features."""
    rng = np.random.default_rng(seed)
    tags = [rng.bytes(16) for _ in range(n)]
    age, income = rng.normal(40, 10, n), rng.lognormal(7, 1, n)
    home, job = rng.choice(np.array(["own", "rent", None]), n), rng.choice(["x", "y", "z"], n)
    risk = (40 - age) / 10 + (7 - np.log(income)) + (job == "x") + rng.normal(0, 0.5, n)
    if role == "leader":
        label = pa.array((risk > 0.3).astype(np.int8) if labels is None else labels)
        columns = {"age": pa.array(age), "home": pa.array(home.tolist()), LABEL: label}
        columns |= {} if weights is None else {WEIGHT: pa.array(weights)}
    else:
        known = [None if missing else value for missing, value in zip(rng.random(n) < 0.1, income, strict=True)]
        columns = {"income": pa.array(known, pa.float64()), "job": pa.array(job.tolist())}
    table = pa.table({TAG: pa.array(tags, pa.binary(16)), **columns})
    storage = RunStorage(f"file://{root}/{role}", run_id)
    write_json(f"{storage.folder('train')}/initial-seed.json", SEEDS[role])
    return write_blocks(storage, 1, table, FEATURES[role], label=kind, rows_per_block=100, test_fraction=test_fraction)
