"""Two parties' blocks for the split network: people whose label depends on features of both."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import LABEL, TAG, UNIT, WEIGHT, Blocks, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path, write_json
from tests.support.halves import ROLES, RUN

SEEDS = {"leader": 11, "follower": 12}

FEATURES = {
    "leader": {"age": FeatureType.NUMERIC, "home": FeatureType.CATEGORICAL},
    "follower": {"income": FeatureType.NUMERIC, "job": FeatureType.CATEGORICAL},
}


def learnt(root: Path) -> dict[str, bytes]:
    """Return the weights of both halves, and their last checkpoints."""
    found = {}
    for role in ROLES:
        storage = RunStorage(f"file://{root}/{role}", RUN)
        found[f"{role} weights"] = local_path(storage.published("train").path("weights.npz")).read_bytes()
        last = max((local_path(storage.folder("train")) / "checkpoints").iterdir())
        found[f"{role} {last.name}"] = last.read_bytes()
    return found


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
    classes: tuple[str, ...] = (),
    further: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    units: np.ndarray | None = None,
    key: int | None = None,
    split_seed: int = 0,
    people: np.ndarray | None = None,
    place: str = "",
    rows_per_block: int = 100,
) -> Blocks:
    """Write one party's blocks: people whose label depends on both parties' features.

    Parameters
    ----------
    classes
        The texts of a label of that kind.
    further
        Numbers of the leader's further label `later`.
    units
        Who they are, whatever their tags; by default that follows from their tags.
    key
        By which other key their tags are made.
    split_seed
        Which of them are held out.
    people
        Which of them there are, as a mask; by default all.
    place
        The folder of `root` that is the party's storage; by default it is called as the role.
    rows_per_block
        About how many rows a block has.
    """
    rng = np.random.default_rng(seed)
    tags = [rng.bytes(16) for _ in range(n)]
    if key is not None:
        tags = [hashlib.sha256(f"{key}".encode() + tag).digest()[:16] for tag in tags]
    age, income = rng.normal(40, 10, n), rng.lognormal(7, 1, n)
    home, job = rng.choice(np.array(["own", "rent", None]), n), rng.choice(["x", "y", "z"], n)
    risk = (40 - age) / 10 + (7 - np.log(income)) + (job == "x") + rng.normal(0, 0.5, n)
    if role == "leader":
        label = pa.array((risk > 0.3).astype(np.int8) if labels is None else labels)
        columns = {"age": pa.array(age), "home": pa.array(home.tolist()), LABEL: label}
        columns |= {} if weights is None else {WEIGHT: pa.array(weights)}
        columns |= {} if further is None else {"later": pa.array(further)}
    else:
        known = [None if missing else value for missing, value in zip(rng.random(n) < 0.1, income, strict=True)]
        columns = {"income": pa.array(known, pa.float64()), "job": pa.array(job.tolist())}
    table = pa.table({TAG: pa.array(tags, pa.binary(16)), **columns})
    if units is not None:
        table = table.append_column(UNIT, pa.array(units))
    if people is not None:
        table = table.filter(pa.array(people))
    storage = RunStorage(f"file://{root}/{place or role}", run_id)
    write_json(f"{storage.folder('train')}/initial-seed.json", SEEDS[role])
    split = {"seed": split_seed, "test_fraction": test_fraction}
    later = ("later",) if role == "leader" and further is not None else ()
    features = FEATURES[role] | dict.fromkeys(later, FeatureType.NUMERIC)
    return write_blocks(
        storage,
        1,
        table,
        features,
        label=kind,
        classes=classes,
        further_labels=later,
        rows_per_block=rows_per_block,
        **split,
    )
