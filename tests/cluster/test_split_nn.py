"""A split network whose rows lie on HDFS and do not fit into memory, against the same from local folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtasks.data.blocks import SPLIT, Blocks, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import write_json
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.model import SplitNnHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.train_data import DataInBlocks, train_data
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.hdfs import HdfsCluster
from tests.support.split_nn_case import FEATURES, SEEDS, write_party

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SETTINGS = TrainSettings(
    epochs=2,
    batch_size=16,
    embedding=4,
    hidden=(8,),
    top=(6,),
    shuffle_rows=60,
    validation_fraction=0.2,
    early_stopping_epochs=2,
    label_protection="none",
    max_label_leak=100,
)


def copy_rows(blocks: Blocks, role: str, storage: RunStorage) -> None:
    """Write a party's rows and initial seed anew elsewhere."""
    write_blocks(storage, 1, blocks.table().drop_columns([SPLIT]), FEATURES[role], rows_per_block=40)
    write_json(f"{storage.folder('train')}/initial-seed.json", SEEDS[role])


def trained(*contexts: Context) -> tuple[Outcome, list[list[np.ndarray]]]:
    """Train; return what came of it, and the weights of both halves."""
    outcome, other = run_both(training.train, *contexts)
    assert isinstance(outcome, Outcome), (outcome, other)
    halves = [load_half(each.storage.published("train"), each.party.name) for each in contexts]
    return outcome, [list(half.weights) for half in halves if isinstance(half, SplitNnHalf)]


def test_network_that_streams_its_rows_from_hdfs_is_that_of_local_folders_bit_for_bit(
    hdfs: HdfsCluster, tmp_path: Path
) -> None:
    blocks = {role: write_party(tmp_path, role, rows_per_block=40) for role in ROLES}
    expected, weights = trained(*(Context(tmp_path, role, "train", settings=SETTINGS) for role in ROLES))

    contexts = [Context(tmp_path / "nowhere", role, "train", settings=SETTINGS) for role in ROLES]
    for context, role in zip(contexts, ROLES, strict=True):
        context.storage = RunStorage(hdfs.home(f"split-nn-{role}"), RUN)
        copy_rows(blocks[role], role, context.storage)
    assert all(
        isinstance(train_data(Blocks.open(each.storage), SETTINGS, each.alive), DataInBlocks) for each in contexts
    )
    found, on_hdfs = trained(*contexts)

    assert found == expected
    for one, other in zip(on_hdfs, weights, strict=True):
        for own, local in zip(one, other, strict=True):
            np.testing.assert_array_equal(own, local)
