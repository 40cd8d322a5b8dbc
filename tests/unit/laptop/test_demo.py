from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedtasks.errors import ConfigError
from fedtasks.laptop import people
from fedtasks.laptop.demo import acquaint, prepare, what_to_open
from fedtasks.laptop.demo_run import step_seconds, trains
from fedtasks.laptop.party import Cluster
from fedtasks.wire.v1.run_pb2 import STATE_RUNNING, STATE_SUCCEEDED, Half
from fedtasks.wire.v1.worker_pb2 import GetRunResponse


def test_prepare_refuses_a_folder_that_no_demo_made(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(ConfigError, match="--folder"):
        prepare(tmp_path)
    assert (tmp_path / "letters").read_text() == "dear"


def test_prepare_removes_what_an_earlier_demo_left(tmp_path: Path) -> None:
    for party in prepare(tmp_path / "demo"):
        party.folder.mkdir()
        party.airflow.close()
    for party in prepare(tmp_path / "demo"):
        assert not party.folder.exists()
        party.airflow.close()


def test_people_overlap_and_each_side_has_its_own() -> None:
    both = people.load()
    bank, shop = set(both.bank[people.ID]), set(both.shop[people.ID])
    assert len(bank & shop) == people.SHARED
    assert bank - shop
    assert shop - bank
    assert len(bank) == len(both.bank)
    assert set(both.bank) == {people.ID, people.LABEL, *people.BANK_FEATURES}
    assert set(both.shop) == {people.ID, *people.SHOP_FEATURES}


def test_people_are_written_where_party_yaml_says(tmp_path: Path) -> None:
    bank, shop = prepare(tmp_path / "demo")
    acquaint(bank, shop, "loans.parquet", "customers.parquet")
    known = people.load()
    people.write(known, bank.party().dataset("loans").uri, shop.party().dataset("customers").uri)
    for party, name, frame in ((bank, "loans", known.bank), (shop, "customers", known.shop)):
        assert len(pd.read_parquet(party.folder / "data" / f"{name}.parquet")) == len(frame)
        party.airflow.close()


def test_parties_of_a_cluster_keep_data_and_jobs_there_each_in_a_home_of_its_own(tmp_path: Path) -> None:
    cluster = Cluster("127.0.0.1:8020", "127.0.0.1:9870", "spark://127.0.0.1:7077", {"spark.cores.max": "1"})
    parties = prepare(tmp_path / "demo", cluster=cluster)
    acquaint(*parties, "loans.parquet", "customers.parquet")
    for local in parties:
        party = local.party()
        home = f"webhdfs://{local.name}@127.0.0.1:9870/{local.name}"
        assert party.storage == home
        assert all(dataset.uri.startswith(f"{home}/data/") for dataset in party.datasets)
        assert party.spark is not None
        assert (party.spark.master, dict(party.spark.conf)) == (cluster.master, cluster.conf)
        local.airflow.close()


def test_steps_are_counted_from_their_start_once_they_have_ended() -> None:
    halves = [
        Half(task="psi", state=STATE_SUCCEEDED, announced_ms=0, started_ms=1_000, since_ms=3_500),
        Half(task="open_run", state=STATE_SUCCEEDED, since_ms=3_000),
        Half(task="train", state=STATE_RUNNING, started_ms=4_000, since_ms=4_000),
    ]
    assert step_seconds(GetRunResponse(own=halves)) == {"psi": 2.5}


@pytest.mark.parametrize(
    ("task", "progress", "does"),
    [("train", "{}", False), ("psi", '{"done": 1}', False), ("train", '{"done": 1}', True)],
)
def test_run_trains_once_its_training_has_told_of_progress(task: str, progress: str, does: bool) -> None:
    assert trains(GetRunResponse(own=[Half(task=task, state=STATE_RUNNING, progress_json=progress)])) is does


def test_what_to_open_names_page_user_and_password_of_both(tmp_path: Path) -> None:
    parties = prepare(tmp_path / "demo")
    for party in parties:
        party.airflow.configure()
    lines = list(what_to_open(parties, "plugin/federation"))
    assert lines[0] == f"Open first: {parties[0].airflow.url}/plugin/federation"
    for party, line in zip(parties, lines[1:3], strict=True):
        password = party.airflow.password_file.read_text().strip()
        assert line.split() == [f"{party.name}:", party.airflow.url, "user", "admin", "password", password]
        party.airflow.close()
