"""What will not do is said with one code wherever people look: in the trigger form, the DAG run's note and the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

import tests.support.airflow_application  # noqa: F401 - gives Airflow a home of its own before it is imported
from fedtasks import errors
from fedtasks.airflow.form import form_of
from fedtasks.airflow.sides import Sides
from fedtasks.data import partitions
from fedtasks.link.client import GatewayClient
from fedtasks.pipeline.catalogue import align, intersect
from fedtasks.store import ModelRow
from fedtasks.wire.v1 import model_pb2, run_pb2
from tests.support.gateways import PIPELINE, grant_ticket, shared_config
from tests.support.pages import House, make_run
from tests.support.runs import PUBLISHED, STEPS, open_run, wait_for

DAY = "2026-11-22"


@dataclass
class Attempt:
    """Somebody's DAG run with a value that will not do."""

    house: House
    bank: GatewayClient
    dag_run_id: str

    def open(self, partition: str = DAY, **changes: object) -> str:
        return open_run(self.bank, self.dag_run_id, partition=partition, **changes).run.run_id

    def fail(self, run_id: str, task: str, error: errors.FedtasksError) -> None:
        """Let the bank's half end as a task of Airflow ends it."""
        attempt = self.bank.announce(run_id, task, self.dag_run_id, 60).own.attempt
        self.bank.finish(run_id, task, attempt, failure=error, final=True)


def lax(attempt: Attempt) -> None:
    shop, bank = attempt.house.pair.shop, attempt.house.pair.bank
    strict = grant_ticket(shop, bank, floor={"key_bits": 3072})
    with pytest.raises(errors.FloorViolated):
        attempt.open(ticket_id=strict, config_json=shared_config(key_bits_min=2048))


def unlanded(attempt: Attempt) -> None:
    run_id = attempt.open("1999-01-01")
    bank = attempt.house.pair.bank
    (dataset,) = bank.party.datasets
    by_day = replace(dataset, uri=str(bank.folder / "data/{partition}"))
    with pytest.raises(errors.DataNotLanded) as caught:
        partitions.landed_until(by_day, "1999-01-01")
    attempt.fail(run_id, "data", caught.value)


def another_pipeline(attempt: Attempt) -> None:
    run_id = attempt.open()
    changed = [STEPS[0], run_pb2.Step(name="train", digest="other", kind="split_nn")]
    with attempt.house.pair.shop.client() as shop, pytest.raises(errors.ConfigDiffers):
        open_run(shop, run_id, config_json="", peer="", partition="", steps=changed)


def taken(attempt: Attempt) -> None:
    with attempt.house.pair.bank.store() as store:
        owner = make_run(77, run_id="nightly.2026-11-20.1", pipeline="nightly", dag_id="nightly", state="succeeded")
        store.runs.add(owner)
        row = ModelRow("credit", 1, "shop", owner.run_id, DAY, None, "a" * 64, "b" * 64, None, {}, True, 1)
        store.models.publish(row, "nightly")
    run_id = attempt.open(steps=PUBLISHED)
    number = attempt.bank.announce(run_id, "publish", attempt.dag_run_id, 60).own.attempt
    version = model_pb2.ModelVersion(
        model="credit", version=2, parent=1, run_id=run_id, own_digest="c" * 64, peer_digest="d" * 64
    )
    with pytest.raises(errors.ModelTaken) as caught:
        attempt.bank.publish_model(run_id, "publish", number, version, {}, {})
    attempt.bank.finish(run_id, "publish", number, failure=caught.value, final=True)


@pytest.mark.parametrize(
    ("act", "code", "field"),
    [
        (lax, "FLOOR_VIOLATED", "psi.key_bits_min"),
        (unlanded, "DATA_NOT_LANDED", "partition"),
        (another_pipeline, "CONFIG_DIFFERS", "peer"),
        (taken, "MODEL_TAKEN", "align.model"),
    ],
)
def test_bad_input_is_said_in_form_note_and_page_with_one_code(
    house: House, act: Callable[[Attempt], None], code: str, field: str
) -> None:
    pair = house.pair
    dag_run_id = f"bad-{code.lower()}"
    pair.bank.airflow.runs[PIPELINE, dag_run_id] = {"state": "running"}
    with pair.bank.client() as bank:
        act(Attempt(house, bank, dag_run_id))

    def on_page() -> str:
        told = house.get("api/run", dag_id=PIPELINE, dag_run_id=dag_run_id).json()
        return str(told.get("code") or told["failure"]["code"])

    wait_for(lambda: code in (pair.bank.airflow.runs[PIPELINE, dag_run_id].get("note") or ""))
    assert on_page() == code
    made = form_of([intersect(), align(rows="new", model="credit")], Sides(), timedelta(hours=1), None)
    # The form says beforehand what to do, and no code of what has not happened.
    told = made[field].schema["description_md"]
    assert f"If refused: {errors.from_code(code).advice()}." in told
    assert code not in told
