"""How a training begins, whichever algorithm it is of."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import TAG, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.errors import LabelInvalid
from fedtasks.models.contract import Algorithm
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.training import begin
from fedtasks.models.versions import private_seed
from tests.support.halves import ROLES, Context


@pytest.mark.parametrize("role", ROLES)
def test_algorithm_without_labels_opens_rows_without_one(tmp_path: Path, role: str) -> None:
    context = Context(tmp_path, role, "train", settings={})
    tags = [np.random.default_rng(seed).bytes(16) for seed in range(20)]
    table = pa.table({TAG: pa.array(tags, pa.binary(16)), "x": pa.array(np.arange(20.0))})
    write_blocks(context.storage, 1, table, {"x": FeatureType.NUMERIC}, rows_per_block=100, test_fraction=0.0)
    needs_none, needs_one = (
        Algorithm("clusters", "m:train", "m:load", TrainSettings, labels) for labels in ((), (LabelKind.BINARY,))
    )
    assert begin(context, needs_none, rows_task="align", start_from="fresh", model="").blocks.n_rows == 20
    if role == "leader":
        with pytest.raises(LabelInvalid):
            begin(context, needs_one, rows_task="align", start_from="fresh", model="")


def test_workers_that_begin_at_once_draw_one_seed(tmp_path: Path) -> None:
    for number in range(20):
        storage = RunStorage(f"file://{tmp_path}", f"credit.2026-11-21.{number}")
        storage.folder("train")
        together = threading.Barrier(4)

        def draw(storage: RunStorage = storage, together: threading.Barrier = together) -> int:
            together.wait()
            return private_seed(storage, "train")

        with ThreadPoolExecutor(4) as pool:
            drawn = [each.result() for each in [pool.submit(draw) for _ in range(4)]]
        assert len({*drawn, private_seed(storage, "train")}) == 1
