"""Who may call a gateway as a worker: known by a secret, for what its identity may do, as the files stand now."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from fedtasks.config import Gateway, load_party
from fedtasks.config.workers import May, WorkerIdentity, secret_digest
from fedtasks.errors import ConfigError, SecretRejected, WorkerForbidden
from fedtasks.gateway.workers import NEEDED, Workers
from fedtasks.setup import workers as setup
from fedtasks.wire.v1 import worker_pb2
from tests.support.gateways import make_members

DECIDED = {
    "AcceptTicket",
    "ChangeChampion",
    "DecideApproval",
    "ProbeNetwork",
    "DeclineRequest",
    "DeclineTicket",
    "GrantTicket",
    "RequestTicket",
    "RevokeTicket",
}


@pytest.fixture
def party_file(tmp_path: Path) -> Path:
    bank, shop, _ = make_members(tmp_path)
    for member in (bank, shop):
        member.airflow.close()
    return bank.folder / "party.yaml"


@pytest.fixture
def gateway(party_file: Path) -> Gateway:
    return load_party(party_file).gateway


def secret_of(file: Path) -> str:
    assert file.stat().st_mode & 0o077 == 0
    return file.read_text().strip()


def added(party_file: Path, name: str, may: May) -> str:
    secret_file = party_file.with_name(f"{name}.secret")
    setup.add_worker(party_file, name, may, secret_file)
    return secret_of(secret_file)


def test_every_method_of_the_worker_side_is_read_worked_or_decided() -> None:
    methods = {each.name for each in worker_pb2.DESCRIPTOR.services_by_name["WorkerGateway"].methods} | {"Session"}
    assert methods - set(NEEDED) == DECIDED
    assert set(NEEDED) <= methods


@pytest.mark.parametrize(
    ("may", "methods"),
    [(May.READ, {"GetRun"}), (May.WORK, {"GetRun", "OpenRun", "Session"}), (May.DECIDE, {"GetRun", "OpenRun"})],
)
def test_identity_may_what_it_was_added_for(party_file: Path, gateway: Gateway, may: May, methods: set[str]) -> None:
    workers, secret = Workers(gateway), added(party_file, "spark", may)
    for method in methods:
        assert workers.require(secret, method) == "spark"
    if may is May.DECIDE:
        assert workers.require(secret, "A method of a later release") == "spark"
    else:
        with pytest.raises(WorkerForbidden, match=f"`spark` may {may.value}"):
            workers.require(secret, "OpenRun" if may is May.READ else "GrantTicket")


def test_this_machine_s_own_secret_may_everything_and_follows_its_file(gateway: Gateway) -> None:
    workers, before = Workers(gateway), secret_of(gateway.worker_secret_file)
    assert workers.require(before, "GrantTicket") == "worker"
    gateway.worker_secret_file.write_text("another one, and longer than before, so that nobody misses it")
    with pytest.raises(SecretRejected):
        workers.require(before, "GetRun")
    gateway.worker_secret_file.chmod(0o644)  # which is not read; what was read before goes on to count
    os.utime(gateway.worker_secret_file, (1, 1))
    assert workers.require(gateway.worker_secret_file.read_text(), "GetRun") == "worker"


def test_two_secrets_count_while_one_takes_the_place_of_the_other(party_file: Path, gateway: Gateway) -> None:
    workers = Workers(gateway)
    secrets = [added(party_file, "spark", May.WORK)]
    for number in (2, 3):
        file = party_file.with_name(f"spark-{number}.secret")
        setup.rotate_worker(party_file, "spark", file)
        secrets.append(secret_of(file))
        assert {workers.require(secret, "OpenRun") for secret in secrets[-2:]} == {"spark"}
    with pytest.raises(SecretRejected):
        workers.require(secrets[0], "OpenRun")
    setup.revoke_worker(party_file, "spark", only_old=True)
    assert workers.require(secrets[2], "OpenRun") == "spark"
    with pytest.raises(SecretRejected):
        workers.require(secrets[1], "OpenRun")
    setup.revoke_worker(party_file, "spark")
    with pytest.raises(SecretRejected):
        workers.require(secrets[2], "OpenRun")


def test_gateway_knows_no_secret_and_an_identity_that_cannot_be_read_lets_nobody_in(
    party_file: Path, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers(gateway)
    spark, watcher = added(party_file, "spark", May.WORK), added(party_file, "watcher", May.READ)
    kept = b"".join(file.read_bytes() for file in gateway.identities.iterdir())
    assert spark.encode() not in kept
    (gateway.identities / "spark").write_text("may: everything\nsecrets: []\n")
    with pytest.raises(SecretRejected):
        workers.require(spark, "GetRun")
    assert workers.require(watcher, "GetRun") == "watcher"
    assert "nobody is let in as `spark`" in caplog.text


def test_identities_and_secrets_are_never_overwritten(party_file: Path, gateway: Gateway) -> None:
    secret = added(party_file, "spark", May.WORK)
    with pytest.raises(ConfigError, match="rotate"):
        setup.add_worker(party_file, "spark", May.WORK, party_file.with_name("other.secret"))
    with pytest.raises(ConfigError, match="never overwritten"):
        setup.rotate_worker(party_file, "spark", party_file.with_name("spark.secret"))
    with pytest.raises(ConfigError, match="known are: spark"):
        setup.revoke_worker(party_file, "sparky")
    assert Workers(gateway).require(secret, "OpenRun") == "spark"


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "worker"), ("name", "../x"), ("secrets", ()), ("secrets", ("0" * 63,)), ("secrets", ("0" * 64,) * 3)],
)
def test_identity_that_is_none_is_refused_by_its_field(field: str, value: object) -> None:
    right = WorkerIdentity("spark", May.WORK, (secret_digest("x"),))
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(right, **{field: value})  # type: ignore[arg-type]
    assert caught.value.fields["field"] == field
