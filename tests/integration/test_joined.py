"""Both halves of task `joined` over links in memory: they take the rows that were joined, and no others."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fedtasks.data.blocks import LABEL, TAG, TEST, TRAIN, UNIT, WEIGHT, Blocks
from fedtasks.data.held_out import Unit, is_held_out
from fedtasks.data.storage import local_path
from fedtasks.data.versioned import Versioned
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import (
    ConfigDiffers,
    DataCorrupt,
    LabelInvalid,
    NothingJoined,
    PeerFailed,
    ProtocolViolated,
    RowOrderDiffers,
)
from fedtasks.exchange.message import JsonMessage
from fedtasks.join import take, take_messages
from fedtasks.join.late import BlockVersion, LabelState, label_state
from fedtasks.join.settings import HeldOutBy, Taken, TakeSettings
from fedtasks.join.state import ShardState
from fedtasks.link.link import Link
from fedtasks.models import tasks
from fedtasks.models.secureboost import training as trees
from fedtasks.models.settings import EvaluateSettings
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.memory import MemoryModels
from fedtasks.wire.v1.model_pb2 import ModelVersion
from tests.support.halves import ROLES, RUN, Context, End, run_both
from tests.support.joined_rows import STREAM, JoinedContext, JoinedStream

MODEL = "ctr"
ALL = TakeSettings(stream=STREAM, rows_per_block=70)


def take_both(
    root: Path, settings: TakeSettings = ALL, *, models: dict[str, MemoryModels] | None = None, run_id: str = RUN
) -> tuple[tuple[End, End], dict[str, JoinedContext]]:
    """Run both halves; return how they ended, and their contexts."""
    contexts = {
        role: JoinedContext(
            root, role, "joined", settings=settings, models=models[role] if models else None, run_id=run_id
        )
        for role in ROLES
    }
    return run_both(take.run, contexts["leader"], contexts["follower"]), contexts


def taken(contexts: dict[str, JoinedContext], split: str | None = None) -> dict[str, pa.Table]:
    return {role: Blocks.open(context.storage, "joined").table(split) for role, context in contexts.items()}


def learning(root: Path, learnt: str) -> dict[str, MemoryModels]:
    """Return registries in which version 1 of the model is in use and has learnt from something."""
    models = {role: MemoryModels() for role in ROLES}
    for registry in models.values():
        version = ModelVersion(model=MODEL, version=1, run_id="credit.2026-11-20.leader.1")
        registry.publish(version, {"people": [learnt]})
    return models


@pytest.mark.parametrize("shards", [1, 3])
def test_all_joined_rows_are_taken_in_the_order_in_which_they_were_joined(tmp_path: Path, shards: int) -> None:
    stream = JoinedStream(tmp_path, shards, seed=shards)
    for shard in range(shards):  # by shard, then commit: the order that both sides share
        for sizes in ([40, 30], [0], [55 + shard]):
            stream.join(shard, sizes)

    (leaders, followers), contexts = take_both(tmp_path)

    assert isinstance(leaders, Outcome), leaders
    assert leaders == followers
    found = taken(contexts)
    for role in ROLES:
        expected = pa.concat_tables(stream.rows[role])
        wanted = [TAG, "x", LABEL] if role == "leader" else [TAG, "x"]
        assert found[role].select(wanted).to_pydict() == expected.select(wanted).to_pydict()
    assert found["leader"].select([TAG, UNIT]).equals(found["follower"].select([TAG, UNIT]))
    tags = b"".join(pa.concat_tables(stream.rows["leader"])[TAG].to_pylist())
    assert leaders.digests["row_order"] == hashlib.sha256(tags).hexdigest()
    blocks = Blocks.open(contexts["leader"].storage, "joined")
    assert blocks.order_digest == leaders.digests["row_order"]
    assert blocks.unit is Unit.EVENT
    assert blocks.learnt == (f"{STREAM}@{'.'.join(['3'] * shards)}",)
    sizes = [blocks.block(number).num_rows for number in range(blocks.n_blocks)]
    assert set(sizes[:-1]) == {70}
    assert leaders.counts["rows"] == sum(sizes) == leaders.counts["rows_train"] + leaders.counts["rows_test"]


def test_same_events_are_held_out_on_both_sides_and_in_every_run(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path, 2)
    stream.join(0, [300])
    _, contexts = take_both(tmp_path)
    first = {role: set(table[TAG].to_pylist()) for role, table in taken(contexts, TEST).items()}
    stream.join(1, [300])
    (leaders, _), contexts = take_both(tmp_path, run_id="credit.2026-11-22.leader.1")
    second = {role: set(table[TAG].to_pylist()) for role, table in taken(contexts, TEST).items()}

    assert first["leader"] == first["follower"]
    assert second["leader"] == second["follower"]
    assert first["leader"] < second["leader"]
    assert isinstance(leaders, Outcome)
    assert 0.15 < leaders.counts["rows_test"] / 600 < 0.35


def test_only_what_both_sides_have_committed_is_taken(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path)
    stream.join(0, [120])
    stream.join(0, [50], both=False)  # the follower's store does not know of it yet

    (leaders, followers), contexts = take_both(tmp_path)

    assert leaders == followers
    assert isinstance(leaders, Outcome)
    assert leaders.counts["rows"] == 120
    assert leaders.values == {"joined": f"{STREAM}@1"}
    assert Blocks.open(contexts["follower"].storage, "joined").learnt == (f"{STREAM}@1",)


def test_new_rows_are_trained_on_and_earlier_ones_only_tested(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path, 2)
    for rows in (200, 100):
        for shard in range(2):
            stream.join(shard, [rows])
    settings = TakeSettings(stream=STREAM, rows=Taken.NEW, model=MODEL)

    (leaders, followers), contexts = take_both(tmp_path, settings, models=learning(tmp_path, f"{STREAM}@1.2"))

    assert leaders == followers
    assert isinstance(leaders, Outcome)
    assert leaders.counts["rows_new"] == 100
    first, _, new, _ = stream.rows["leader"]
    train = taken(contexts, TRAIN)["leader"][TAG].to_pylist()
    assert set(train) <= set(new[TAG].to_pylist())
    everything = pa.concat_tables([first, new, stream.rows["leader"][1], stream.rows["leader"][3]])
    held = taken(contexts, TEST)["leader"]
    assert len(held) + len(train) == leaders.counts["rows"]
    assert set(held[TAG].to_pylist()) <= set(everything[TAG].to_pylist())
    assert np.all(is_held_out(held[UNIT].to_numpy(), seed=0, test_fraction=0.25))
    assert len(held) > 100  # of all 600 a quarter
    assert Blocks.open(contexts["leader"].storage, "joined").learnt == (f"{STREAM}@2.2",)


@pytest.mark.parametrize(("earlier", "oldest"), [(0, 2), (100, 1), (150, 0), (10**6, 0)])
def test_earlier_test_rows_are_those_of_the_newest_commits(tmp_path: Path, earlier: int, oldest: int) -> None:
    stream = JoinedStream(tmp_path)
    for _ in range(3):
        stream.join(0, [100])
    settings = TakeSettings(stream=STREAM, rows=Taken.NEW, model=MODEL, earlier_test_rows=earlier)

    (leaders, _), contexts = take_both(tmp_path, settings, models=learning(tmp_path, f"{STREAM}@2"))

    assert isinstance(leaders, Outcome), leaders
    held = set(taken(contexts, TEST)["leader"][TAG].to_pylist())
    of_commit = [bool(held & set(table[TAG].to_pylist())) for table in stream.rows["leader"]]
    assert of_commit == [number >= oldest for number in range(3)]


def test_newest_rows_are_held_out_by_time_and_learnt_from_by_the_next_run(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path)
    for rows in ([100], [100], [60, 40]):
        stream.join(0, rows)
    settings = TakeSettings(stream=STREAM, held_out_by=HeldOutBy.TIME, test_fraction=0.2, rows_per_block=1000)

    (leaders, followers), contexts = take_both(tmp_path, settings)

    assert leaders == followers
    rows = pa.concat_tables(stream.rows["leader"])
    for role in ROLES:
        assert taken(contexts, TEST)[role][TAG].to_pylist() == rows[TAG].to_pylist()[240:]
        assert taken(contexts, TRAIN)[role][TAG].to_pylist() == rows[TAG].to_pylist()[:240]
    # The third commit is not learnt from whole: it is new once more.
    assert Blocks.open(contexts["leader"].storage, "joined").learnt == (f"{STREAM}@2",)


def test_rows_with_weights_keep_them_and_others_weigh_one(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path)
    stream.join(0, [50])
    stream.join(0, [50], weights=True)

    ends, contexts = take_both(tmp_path)

    assert ends[0] == ends[1]
    leaders, followers = (taken(contexts)[role] for role in ROLES)
    sampled = np.where(stream.rows["leader"][1][LABEL].to_numpy() == 1, 1.0, 4.0)
    assert leaders[WEIGHT].to_pylist() == [*[1.0] * 50, *sampled.tolist()]
    assert WEIGHT not in followers.column_names


def relabel(stream: JoinedStream, name: str) -> pa.Table:
    """Write another version of the leader's block with all labels changed, which counts from now on."""
    state, commit = stream.states["leader"][0], stream.last["leader"][0]
    (block,) = commit.blocks
    table = pq.read_table(local_path(state.path(commit, block.name)))
    changed = pa.array(1 - table[LABEL].to_numpy(), table[LABEL].type)
    table = table.set_column(table.schema.get_field_index(LABEL), LABEL, changed)
    file = local_path(state.path(commit, name))
    pq.write_table(table, file)
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    version = BlockVersion(name, 2, "", len(content), digest, block.name)
    versions = {f"{commit.folder}/{block.name}": version}
    Versioned(f"{state.uri}/labels").change(lambda _: to_plain(LabelState(number=1, versions=versions)))
    return table


def test_leader_takes_the_newest_labels_of_rows_in_the_order_that_both_share(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path)
    stream.join(0, [80])
    table = relabel(stream, "block-00000.v2-1f3b.parquet")

    (leaders, followers), contexts = take_both(tmp_path)

    assert leaders == followers
    assert isinstance(leaders, Outcome)
    assert taken(contexts)["leader"][LABEL].to_pylist() == table[LABEL].to_pylist()
    assert taken(contexts)["leader"][LABEL].to_pylist() != stream.rows["leader"][0][LABEL].to_pylist()


def test_version_of_labels_that_is_replaced_meanwhile_is_looked_up_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = JoinedStream(tmp_path)
    stream.join(0, [80])
    before = relabel(stream, "block-00000.v2-old.parquet")

    def replaced_afterwards(state: ShardState) -> LabelState:
        found = label_state(state)
        old = local_path(state.path(stream.last["leader"][0], "block-00000.v2-old.parquet"))
        if old.exists():
            relabel(stream, "block-00000.v3-new.parquet")
            old.unlink()
        return found

    monkeypatch.setattr(take, "label_state", replaced_afterwards)
    (leaders, _), contexts = take_both(tmp_path)

    assert isinstance(leaders, Outcome), leaders
    assert taken(contexts)["leader"][LABEL].to_pylist() == before[LABEL].to_pylist()


@pytest.mark.parametrize("commits", [0, 1])
def test_stream_without_a_joined_row_is_an_error_on_both_sides(tmp_path: Path, commits: int) -> None:
    stream = JoinedStream(tmp_path)
    for _ in range(commits):
        stream.join(0, [])

    (leaders, followers), _ = take_both(tmp_path)

    for end in (leaders, followers):
        assert isinstance(end, NothingJoined | PeerFailed), end
    assert any(isinstance(end, NothingJoined) for end in (leaders, followers))


def test_nothing_new_since_the_version_in_use_says_so(tmp_path: Path) -> None:
    JoinedStream(tmp_path).join(0, [40])
    settings = TakeSettings(stream=STREAM, rows=Taken.NEW, model=MODEL, earlier_test_rows=0)

    (leaders, followers), _ = take_both(tmp_path, settings, models=learning(tmp_path, f"{STREAM}@1"))

    told = next(end for end in (leaders, followers) if isinstance(end, NothingJoined))
    assert "since v1 of its model" in told.detail


def test_side_whose_commits_were_lost_is_named(tmp_path: Path) -> None:
    JoinedStream(tmp_path).join(0, [40], both=False)

    (leaders, followers), _ = take_both(tmp_path)

    details = [end.detail for end in (leaders, followers) if isinstance(end, NothingJoined)]
    assert details
    assert not isinstance(leaders, Outcome)
    assert not isinstance(followers, Outcome)


def test_file_that_has_changed_since_it_was_joined_is_refused(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path)
    stream.join(0, [40])
    file = local_path(stream.states["follower"][0].path(stream.last["follower"][0], "block-00000.parquet"))
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)

    (_, followers), _ = take_both(tmp_path)

    assert isinstance(followers, DataCorrupt)


def test_other_rows_at_one_side_are_found_by_their_order(tmp_path: Path) -> None:
    for seed, place in enumerate(("one", "other")):
        JoinedStream(tmp_path / place, seed=seed).join(0, [40])
    shutil.rmtree(tmp_path / "one" / "follower")
    (tmp_path / "other" / "follower").rename(tmp_path / "one" / "follower")

    ends, _ = take_both(tmp_path / "one")

    assert all(isinstance(end, RowOrderDiffers) for end in ends), ends


def test_labels_that_are_all_alike_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    stream = JoinedStream(tmp_path)
    stream.join(0, [1, 1])

    (leaders, followers), _ = take_both(tmp_path)

    assert isinstance(leaders, LabelInvalid)
    assert not isinstance(followers, Outcome)


def test_versions_in_use_that_differ_stop_both_sides(tmp_path: Path) -> None:
    JoinedStream(tmp_path).join(0, [40])
    models = learning(tmp_path, f"{STREAM}@0")
    models["follower"] = MemoryModels()
    settings = TakeSettings(stream=STREAM, rows=Taken.NEW, model=MODEL)

    ends, _ = take_both(tmp_path, settings, models=models)

    assert all(isinstance(end, ConfigDiffers) for end in ends)


@pytest.mark.parametrize("told", [[-1], ["3"], [True], [10**18], [1] * 1025], ids=str)
def test_commits_that_nobody_can_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: object
) -> None:
    JoinedStream(tmp_path).join(0, [40])
    send = JsonMessage.send

    def tell(message: JsonMessage, link: Link, value: Mapping[str, object]) -> None:
        send(message, link, {"commits": told} if message.name == take_messages.CUT.name else value)

    monkeypatch.setattr(JsonMessage, "send", tell)

    ends, _ = take_both(tmp_path)

    assert all(isinstance(end, ProtocolViolated | PeerFailed) for end in ends), ends
    assert any(isinstance(end, ProtocolViolated) for end in ends)


# ------------------------------------------------------------------------------------------ what is trained on them
NETWORK = {"epochs": 8, "batch_size": 32, "embedding": 4, "hidden": (8,), "top": (6,), "learning_rate": 0.01}
OPEN = {"label_protection": "none", "max_label_leak": 100, "rows_task": "joined"}


def auc_of(root: Path) -> float:
    """Measure what task ``train`` has trained; return the leader's AUC."""
    settings = EvaluateSettings(rows_task="joined")
    leader, follower = (Context(root, role, "evaluate", settings=settings) for role in ROLES)
    ends = run_both(tasks.evaluate, leader, follower)
    assert all(isinstance(end, Outcome) for end in ends), ends
    return next(float(metrics["auc"]) for _, metrics in leader.reports if "auc" in metrics)


@pytest.mark.usefixtures("no_saved_models")
@pytest.mark.parametrize("shuffle_rows", [1 << 18, 128])
def test_network_learns_from_joined_rows_in_memory_and_streamed(tmp_path: Path, shuffle_rows: int) -> None:
    stream = JoinedStream(tmp_path, 2)
    for shard in range(2):
        stream.join(shard, [250, 150])
    take_both(tmp_path)
    settings = TrainSettings(**NETWORK, **OPEN, shuffle_rows=shuffle_rows)  # type: ignore[arg-type]

    leader, follower = (Context(tmp_path, role, "train", settings=settings) for role in ROLES)
    ends = run_both(training.train, leader, follower)

    assert ends[0] == ends[1]
    assert isinstance(ends[0], Outcome), ends[0]
    assert auc_of(tmp_path) > 0.75


def test_trees_learn_from_joined_rows(tmp_path: Path) -> None:
    from fedtasks.models.secureboost.settings import TrainSettings as TreeSettings

    stream = JoinedStream(tmp_path)
    stream.join(0, [200, 200])
    take_both(tmp_path)
    settings = TreeSettings(trees=4, depth=2, rows_task="joined")

    leader, follower = (Context(tmp_path, role, "train", settings=settings) for role in ROLES)
    ends = run_both(trees.train, leader, follower)

    assert ends[0] == ends[1]
    assert isinstance(ends[0], Outcome), ends[0]
    assert auc_of(tmp_path) > 0.7


def test_row_of_each_block_is_one_that_was_joined(tmp_path: Path) -> None:
    """Whatever the sizes of commits and blocks: nothing is lost, doubled or moved."""
    rng = np.random.default_rng(3)
    for case in range(12):
        root = tmp_path / str(case)
        shards = int(rng.integers(1, 4))
        stream = JoinedStream(root, shards, seed=case)
        for shard in range(shards):
            for _ in range(int(rng.integers(0, 4))):
                stream.join(shard, rng.integers(0, 40, int(rng.integers(0, 3))).tolist())
        total = sum(table.num_rows for table in stream.rows["leader"])
        settings = TakeSettings(stream=STREAM, rows_per_block=int(rng.integers(1, 60)), test_fraction=0.4)
        ends, contexts = take_both(root, settings)
        if total < 20:
            continue
        assert ends[0] == ends[1], case
        for role in ROLES:
            found = taken(contexts)[role]
            assert found[TAG].to_pylist() == pa.concat_tables(stream.rows[role])[TAG].to_pylist()
            assert pc.sum(found["x"]).as_py() == pytest.approx(pc.sum(pa.concat_tables(stream.rows[role])["x"]).as_py())
