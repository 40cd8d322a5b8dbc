"""Several workers of each party train one model: against one process that has all rows, and against each other."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks import Receive, Send, private
from fedtasks.data.blocks import TRAIN, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import read_json
from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    FedtasksError,
    NotPrivate,
    PeerFailed,
    WorkersMissing,
    WorkersParted,
)
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn.averaging import Averaging
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.protection.protections import Noises
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import Stepper, train_epoch
from fedtasks.models.split_nn.training import train
from fedtasks.models.split_nn.workers import ALONE, Workers, workers_of
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.memory import MemoryModels, run_halves
from tests.support.halves import ROLES, RUN, Context
from tests.support.split_nn_case import write_party

prepare_tensorflow()

SETTINGS = TrainSettings(
    epochs=3,
    batch_size=16,
    embedding=4,
    hidden=(8,),
    top=(6,),
    learning_rate=0.01,
    workers=2,
    label_protection="none",
    max_label_leak=100,
)


def together(n: int, work: Callable[[Workers], Any], **more: Any) -> list[Any]:
    """Let so many workers meet, and return what each has done, or how it failed."""
    name = uuid.uuid4().hex

    def one(number: int) -> Any:
        try:
            with workers_of(name, "train", number, n, **{"identity": "same", **more}) as workers:
                return work(workers)
        except FedtasksError as error:
            return error

    with ThreadPoolExecutor(n) as pool:
        return [*pool.map(one, range(n))]


# --------------------------------------------------------------------------------------------------------- meeting
def test_workers_are_answered_alike_whatever_they_tell() -> None:
    def work(workers: Workers) -> tuple[Any, ...]:
        number = workers.number
        told = workers.exchange(b"%d" % number, b" ".join)
        total = workers.summed([np.array(number), np.full(2, 0.5)])
        gathered = workers.gathered([np.array(number)])
        return (
            told,
            [each.tolist() for each in total],
            [int(each[0]) for each in gathered],
            workers.common({0, number, 7}),
            workers.most(number),
        )

    first, *others = together(3, work)
    assert first == (b"0 1 2", [3, [1.5, 1.5]], [0, 1, 2], {0, 7}, 2)
    assert others == [(b"0 1 2", [3, [1.5, 1.5]], [], {0, 7}, 2)] * 2


def test_one_alone_is_answered_by_itself() -> None:
    assert ALONE.exchange(b"it", b" ".join) == b"it"
    assert ALONE.most(3) == 3
    assert not ALONE.are_several
    assert ALONE.is_first


def test_whoever_does_not_come_is_named() -> None:
    for number, text in ((0, "of 3 workers did not come: 1, 2"), (1, "worker 0 did not come")):
        alone = workers_of(uuid.uuid4().hex, "train", number, 3, identity="", patience_s=0.2)
        with pytest.raises(WorkersMissing, match=text), alone:
            pass


def test_workers_meet_in_no_folder_that_others_may_look_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "socket_folder", lambda: tmp_path)
    tmp_path.chmod(0o755)
    for number in range(2):
        with pytest.raises(NotPrivate), workers_of("s", "train", number, 2, identity="", patience_s=0.2):
            pass


def test_process_of_another_user_is_let_in_as_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "peer_of", lambda connection: 0)
    first, second = together(2, lambda workers: None, patience_s=1.0)
    assert isinstance(first, WorkersMissing)
    assert isinstance(second, WorkersParted | WorkersMissing)


def test_workers_of_other_settings_are_refused_at_all() -> None:
    name = uuid.uuid4().hex

    def one(number: int) -> Exception | None:
        try:
            with workers_of(name, "train", number, 2, identity=f"settings {number}"):
                return None
        except ConfigDiffers as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        assert all(isinstance(each, ConfigDiffers) for each in pool.map(one, range(2)))


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_when_one_ends_all_do(lost: int) -> None:
    def work(workers: Workers) -> None:
        workers.wait()
        if workers.number == lost:
            return
        for _ in range(2):  # what was on its way may still come
            workers.wait()

    ends = together(3, work)
    assert ends[lost] is None
    assert all(isinstance(end, WorkersParted) and end.retryable for number, end in enumerate(ends) if number != lost)


# ------------------------------------------------------------------------------------------------------- averaging
@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=3).filter(any), st.integers(0, 2**32 - 1))
def test_the_mean_is_weighted_by_rows_and_the_same_everywhere(rows: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [tf.Variable(np.zeros(shape, np.float32)) for shape in ((3, 2), (4,), (6, 2), (2,))]
    own = []
    for n_rows in rows:
        touched = rng.integers(0, 6, n_rows)
        table = tf.IndexedSlices(rng.normal(size=(n_rows, 2)).astype(np.float32), touched)
        dense = [tf.constant(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 2), (4,))]
        own.append([*dense, table, None] if n_rows else [])
    found = together(
        len(rows), lambda workers: Averaging(workers, values).mean(own[workers.number], rows[workers.number])
    )
    for each in found:
        assert each[3] is None
        for place in range(2):
            expected = sum(
                np.asarray(gradients[place]) * (n_rows / sum(rows))
                for gradients, n_rows in zip(own, rows, strict=True)
                if n_rows
            )
            np.testing.assert_allclose(each[place], expected, rtol=1e-5, atol=1e-6)
            assert each[place].tobytes() == found[0][place].tobytes()
        table = np.zeros((6, 2))
        for gradients, n_rows in zip(own, rows, strict=True):
            if n_rows:
                np.add.at(table, np.asarray(gradients[2].indices), gradients[2].values * (n_rows / sum(rows)))
        np.testing.assert_allclose(tf.convert_to_tensor(each[2]), table, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- two pairs beside one process with all rows
def leader_model() -> keras.Model:
    own, received = keras.Input((6,), name="own"), Receive("embedding", 8)
    hidden = keras.layers.Dense(8, "relu", kernel_initializer=keras.initializers.GlorotUniform(1))(own)
    out = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(2))
    return compiled([own, received], out(keras.layers.Concatenate()([hidden, received])), "binary_crossentropy")


def follower_model(*, embeds: bool) -> keras.Model:
    if embeds:
        own = keras.Input((2,), name="peers", dtype="int32")
        table = keras.layers.Embedding(30, 4, embeddings_initializer=keras.initializers.RandomUniform(seed=3))
        hidden = keras.layers.Flatten()(table(own))
    else:
        own = keras.Input((6,), name="peers")
        hidden = keras.layers.Dense(8, "relu", kernel_initializer=keras.initializers.GlorotUniform(3))(own)
    return compiled(own, Send("embedding")(hidden))


def compiled(inputs: Any, outputs: Any, loss: str | None = None) -> keras.Model:
    if loss:
        outputs = keras.layers.Activation("sigmoid")(outputs)
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    return model


@pytest.mark.parametrize(("embeds", "window"), [(True, 1), (True, 3), pytest.param(False, 1, marks=pytest.mark.slow)])
def test_two_pairs_train_as_one_process_with_both_batches(*, embeds: bool, window: int) -> None:
    rng = np.random.default_rng(4)
    sizes, batch = (70, 40), 16  # the second pair has no batch in the last two steps
    own = [rng.normal(size=(n, 6)).astype(np.float32) for n in sizes]
    peers = [
        rng.integers(0, 30, (n, 2)).astype(np.int32) if embeds else rng.normal(size=(n, 6)).astype(np.float32)
        for n in sizes
    ]
    labels = [(each[:, :1] > 0).astype(np.float32) for each in own]
    n_steps = -(-sizes[0] // batch)

    def pieces(values: np.ndarray) -> Iterator[np.ndarray]:
        return (values[start : start + batch] for start in range(0, len(values), batch))

    def train_half(workers: Workers, role: str, link: Any) -> Half:
        number, holds = workers.number, role == "leader"
        half = Half(leader_model() if holds else follower_model(embeds=embeds), has_label=holds)
        half.averaging = Averaging(workers, half.values)
        half.plan(rounds_of({"embedding": ()}, {}))
        names = zip(pieces(own[number] if holds else peers[number]), pieces(labels[number]), strict=True)
        rows = [
            Rows({"own" if holds else "peers": values}, Targets(wanted) if holds else None) for values, wanted in names
        ]
        done = [*train_epoch(Stepper(half, Crossing(link, half)), rows, window, "it")]
        for _ in range(n_steps - len(done)):
            half.apply_others()
        return half

    links = [memory_pair() for _ in sizes]
    with ThreadPoolExecutor(2) as pool:
        by_role = [
            pool.submit(together, 2, lambda workers: train_half(workers, "leader", links[workers.number][0])),
            pool.submit(together, 2, lambda workers: train_half(workers, "follower", links[workers.number][1])),
        ]
        leaders, followers = (each.result() for each in by_role)
    for halves in (leaders, followers):
        assert halves[0].digest == halves[1].digest
    if window > 1:
        return  # then gradients are of older weights, as those of one pair are
    joint = Joint(Half(leader_model(), has_label=True), Half(follower_model(embeds=embeds), has_label=False))
    for one, other in itertools.zip_longest(
        *(zip(*map(pieces, (own[each], peers[each], labels[each])), strict=True) for each in range(2))
    ):
        both = [np.concatenate(parts) for parts in zip(one, other, strict=True)] if other else one
        joint.step({"own": both[0]}, {"peers": both[1]}, Targets(both[2]))
    for found, expected in ((leaders[0], joint.leader), (followers[0], joint.follower)):
        for weight, wanted in zip(found.arrays, expected.arrays, strict=True):
            np.testing.assert_allclose(weight, wanted, rtol=2e-5, atol=2e-6)


# -------------------------------------------------------------------------------------------------- the task as a whole
def run_pairs(
    root: Path,
    asked: TrainSettings = SETTINGS,
    *,
    attempt: int = 1,
    fail: tuple[str, int, int] | None = None,
    only: Sequence[int] = (),
    registries: dict[str, MemoryModels] | None = None,
) -> list[dict[str, Any]]:
    """Run both halves of each pair; `fail` names the role, worker and message at which one is cut off."""
    pairs = []
    for worker in only or range(asked.workers):
        contexts = {
            role: Context(root, role, "train", settings=asked, attempt=attempt, worker=worker) for role in ROLES
        }
        if fail and fail[1] == worker:
            contexts[fail[0]].fail_at = fail[2]
        pairs.append(contexts)
    with ThreadPoolExecutor(len(pairs)) as pool:
        ends = [*pool.map(lambda contexts: run_halves(train, contexts, deadline_s=150), pairs)]
    return [
        {role: (ended[role], contexts[role]) for role in ROLES} for ended, contexts in zip(ends, pairs, strict=True)
    ]


def write_both(root: Path, **more: Any) -> None:
    for role in ROLES:
        write_party(root, role, **{"n": 240, "rows_per_block": 60, **more})


def models_of(root: Path) -> dict[str, bytes]:
    found = {}
    for role in ROLES:
        manifest = RunStorage(f"file://{root}/{role}", RUN).published("train")
        with open(manifest.path("weights.npz").removeprefix("file://"), "rb") as file:
            found[role] = file.read()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("undisturbed")
    write_both(root)
    return root, run_pairs(root)


def test_two_workers_publish_one_model(undisturbed: tuple[Path, list[dict[str, Any]]]) -> None:
    root, pairs = undisturbed
    outcomes = [end for pair in pairs for end, _ in pair.values()]
    assert all(isinstance(each, Outcome) for each in outcomes), outcomes
    assert all(each == outcomes[0] for each in outcomes)
    first, second = (pair["leader"][1] for pair in pairs)
    assert "loss" in first.metrics
    assert "loss" not in second.metrics
    for context in (first, second):
        assert "label_leak_auc" in context.metrics  # of its own rows
    blocks = Blocks.open(RunStorage(f"file://{root}/leader", RUN))
    assert outcomes[0].counts["rows_train"] == sum(blocks.rows_per_block(TRAIN))
    assert models_of(root).keys() == set(ROLES)


@pytest.mark.parametrize(
    ("role", "worker", "after"), [("follower", 1, 14), pytest.param("leader", 0, 9, marks=pytest.mark.slow)]
)
def test_what_breaks_off_at_one_worker_goes_on_at_all_to_the_same_bytes(
    tmp_path: Path, undisturbed: tuple[Path, list[dict[str, Any]]], role: str, worker: int, after: int
) -> None:
    write_both(tmp_path)
    ends = [end for pair in run_pairs(tmp_path, fail=(role, worker, after)) for end, _ in pair.values()]
    assert all(isinstance(end, FedtasksError) for end in ends), ends
    assert any(isinstance(end, WorkersParted) for end in ends)
    assert all(isinstance(end, PeerFailed | WorkersParted) or end.code == "LINK_LOST" for end in ends), ends
    again = run_pairs(tmp_path, attempt=2)
    assert all(isinstance(end, Outcome) for pair in again for end, _ in pair.values()), again
    assert models_of(tmp_path) == models_of(undisturbed[0])


def test_one_that_is_cleared_alone_needs_no_other(undisturbed: tuple[Path, list[dict[str, Any]]]) -> None:
    root, pairs = undisturbed
    before = models_of(root)
    for worker in (0, 1):
        (again,) = run_pairs(root, attempt=2, only=(worker,))
        assert {role: end for role, (end, _) in again.items()} == {role: end for role, (end, _) in pairs[0].items()}
    assert models_of(root) == before


def test_labels_are_charged_once_for_all_workers_and_no_two_have_the_same_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_both(tmp_path)
    places: list[str] = []
    standard = Noises.standard

    def recorded(self: Noises, received: Any, place: str, *shape: int) -> Any:
        places.append(place)
        return standard(self, received, place, *shape)

    monkeypatch.setattr(Noises, "standard", recorded)
    asked = replace(SETTINGS, epochs=2, label_protection="marvell", max_label_leak=70)
    pairs = run_pairs(tmp_path, asked)
    assert all(isinstance(end, Outcome) for pair in pairs for end, _ in pair.values()), pairs
    first, second = (pair["leader"][1].labels_told for pair in pairs)
    assert len(first) == asked.epochs
    assert not second
    passes = read_json(f"{RunStorage(f'file://{tmp_path}/leader', RUN).folder('train')}/label-passes.json")
    assert passes == asked.epochs
    # Whatever a follower sends: equal embeddings at both would show the difference of two gradients without noise.
    assert len(places) == len(set(places)) > 0


def test_early_stopping_is_decided_by_all_rows(tmp_path: Path) -> None:
    write_both(tmp_path)
    asked = replace(SETTINGS, epochs=4, validation_fraction=0.2, early_stopping_epochs=1)
    pairs = run_pairs(tmp_path, asked)
    outcomes = [end for pair in pairs for end, _ in pair.values()]
    assert all(each == outcomes[0] and isinstance(each, Outcome) for each in outcomes), outcomes
    assert "validation_auc" in pairs[0]["leader"][1].metrics


def test_more_workers_than_blocks_are_refused_with_both_numbers(tmp_path: Path) -> None:
    write_both(tmp_path, rows_per_block=1000)
    for pair in run_pairs(tmp_path):
        for end, _ in pair.values():
            assert isinstance(end, ConfigError)
            assert "2 workers need a block each, and there are 1" in str(end)


def test_sides_with_other_numbers_of_workers_are_refused_naming_both(tmp_path: Path) -> None:
    write_both(tmp_path)
    contexts = {
        role: Context(tmp_path, role, "train", settings=replace(SETTINGS, workers=workers), worker=0)
        for role, workers in zip(ROLES, (2, 3), strict=True)
    }
    for end in run_halves(train, contexts, deadline_s=100).values():
        assert isinstance(end, ConfigDiffers)
        assert "workers" in str(end)
        assert "2" in str(end)
        assert "3" in str(end)


def test_several_workers_in_one_task_are_refused(tmp_path: Path) -> None:
    write_both(tmp_path)
    contexts = {role: Context(tmp_path, role, "train", settings=SETTINGS) for role in ROLES}
    for end in run_halves(train, contexts, deadline_s=100).values():
        assert isinstance(end, ConfigError)


def test_local_steps_of_several_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="several workers average each of their steps"):
        replace(SETTINGS, window=2, local_steps=1)
