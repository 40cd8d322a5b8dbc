from __future__ import annotations

from pathlib import Path

import pytest

from fedtasks.config import load_party
from fedtasks.laptop import composed
from fedtasks.setup.party import found


@pytest.mark.parametrize("name", ["bank", "shop"])
def test_party_file_in_containers_loads_and_names_the_places_of_the_networks(name: str, tmp_path: Path) -> None:
    airflow = composed.airflow_of(name)
    made = found(
        name,
        tmp_path / name,
        listen="gateway.bank:7400" if name == "bank" else None,
        workers=f"workers.{name}:7402",
        airflow_url=airflow.url,
        airflow_user=airflow.user,
        airflow_password_file="keys/airflow.password",
    )
    made.file.write_text(composed.in_containers(made.file.read_text(encoding="utf-8"), name), encoding="utf-8")
    party = load_party(made.file)
    assert party.airflow.url == f"http://{name}-airflow:8080"
    assert (party.gateway.workers, party.gateway.worker_tunnels) == (f"workers.{name}:7402", f"workers.{name}:7403")
    assert party.gateway.tunnels == ("gateway.bank:7401" if name == "bank" else None)
    assert party.store.url == f"postgresql://fedtasks@{name}-database:5432/fedtasks"
    assert party.storage == "file:///var/lib/fedtasks/storage"
    assert [dataset.label is not None for dataset in party.datasets] == [name == "bank"]
