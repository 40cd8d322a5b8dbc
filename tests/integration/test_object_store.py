"""A party whose files and rows are on S3 meets one whose are not; nothing that it writes is anywhere else."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.checks import Verdict
from fedtasks.config import Party, load_party
from fedtasks.data.blocks import Blocks
from fedtasks.data.storage import filesystem, write_atomically
from fedtasks.doctor.services import _storage
from fedtasks.exposure import plain_traffic
from tests.integration.psi_case import Case, bank, numbers, shop
from tests.integration.psi_halves import FOLLOWER, LEADER
from tests.support.s3 import BUCKET, S3Server

PARTY = """\
name: shop
gateway: {certificate: k, private_key: k, authority: k, ticket_key: k, worker_secret_file: k}
airflow: {url: "http://127.0.0.1:8080", user: fedtasks, password_file: k}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def on_s3(party: Party, server: S3Server, rows: Any) -> Party:
    """Bring a party's rows, and all that it will write, to S3."""
    written = io.BytesIO()
    rows.to_parquet(written)
    root = f"s3://{BUCKET}/{party.name}"
    write_atomically(f"{root}/people/region=north/part-0.parquet", written.getvalue())
    (dataset,) = party.datasets
    datasets = (dataclasses.replace(dataset, uri=f"{root}/people"),)
    return dataclasses.replace(party, storage=f"{root}/storage", datasets=datasets, s3=server.settings)


@pytest.mark.parametrize("name", [pytest.param(LEADER, marks=pytest.mark.slow), FOLLOWER])
def test_psi_and_align_of_a_party_on_s3_equal_an_inner_join(case: Case, server: S3Server, name: str) -> None:
    rows = {LEADER: bank([f"p{n}" for n in range(150)]), FOLLOWER: shop([f"p{n}" for n in range(100, 250)])}
    for party, table in rows.items():
        case.give(party, table)
    plain = Path(case.parties[name].storage.removeprefix("file://"))
    case.parties[name] = on_s3(case.parties[name], server, rows[name])
    before = sorted(plain.rglob("*")) if plain.exists() else []

    for day in range(2):  # the second builds on what the first remembers
        case.run_id = f"credit.day.{next(numbers)}"
        met = case.run("psi")
        aligned = case.run("align", test_fraction=0.0)

        assert met[LEADER].outcome == met[FOLLOWER].outcome is not None, (day, met)
        assert aligned[LEADER].outcome == aligned[FOLLOWER].outcome is not None, (day, aligned)
        assert aligned[name].outcome.counts["rows"] == 50
    assert Blocks.open(case.storage(name)).table().num_rows == 50
    assert (sorted(plain.rglob("*")) if plain.exists() else []) == before


def test_party_on_s3_is_loaded_and_its_storage_looked_at(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = server.settings
    (tmp_path / "party.yaml").write_text(
        f"{PARTY}storage: s3://{BUCKET}/doctor\n"
        f"s3: {{endpoint: '{settings.endpoint}', credentials_file: {settings.credentials_file}}}\n"
    )

    party = load_party(tmp_path / "party.yaml")

    assert [found.verdict for found in _storage(party)] == [Verdict.OK]
    fs, path = filesystem(party.storage)
    assert fs.find(path) == []
    assert [each.subject for each in plain_traffic(party)] == []
    far = dataclasses.replace(party, s3=dataclasses.replace(settings, endpoint="http://minio.example.org:9000"))
    assert [each.subject for each in plain_traffic(far)] == ["S3's connection"]
    # A server that knows no conditions would let two win.
    monkeypatch.setattr(type(fs), "_call_s3", _unconditional(type(fs)._call_s3))
    assert [found.verdict for found in _storage(party)] == [Verdict.WRONG]


def _unconditional(call: Any) -> Any:
    async def asked(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("IfNoneMatch", None)
        return await call(self, method, *args, **kwargs)

    return asked
