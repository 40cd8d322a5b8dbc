"""This release with the next one, of one setting and one message more: they run together, or both say why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedtasks import __version__
from fedtasks.dataclass_io import to_plain
from fedtasks.gateway.control_stream import PROTOCOL_MAX, PROTOCOL_MIN
from fedtasks.runtime.task_config import FAILURE, OUTCOME, TaskConfig
from tests.support.gateways import (
    PIPELINE,
    Member,
    Pair,
    gateway_process,
    grant_ticket,
    make_members,
    set_address,
    shared_config,
)
from tests.support.links import both
from tests.support.proxy import Proxy
from tests.support.releases import VERSION, environment, next_release
from tests.support.runs import meet, open_run, wait_for

SETTINGS = {"scheme": "oprf", "learns": "size", "shards": 1}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Both parties with data; the bank, of this release, listens."""
    bank, shop, listen = make_members(tmp_path)
    proxy = Proxy(listen)
    set_address(shop, proxy.address)
    for member, ids in ((bank, range(0, 60)), (shop, range(40, 100))):
        frame = pd.DataFrame({"customer": [f"c{number}" for number in ids], "a": 1.0})
        frame.to_parquet(member.folder / "data.parquet")
    bank.start()
    try:
        yield Pair(bank, shop, proxy)
    finally:
        shop.close()
        bank.close()
        proxy.close()


def seen(member: Member, peer: str) -> dict[str, Any]:
    with member.store() as store:
        row = store.peers.get(peer)
    return {} if row is None else {"connected": row.connected, "version": row.version, **(row.failure or {})}


def run_half(member: Member, peer: str, run_id: str, attempt: int, env: dict[str, str], **more: object) -> Any:
    """Run a half of the intersection as its operator does; returns its outcome or its failure."""
    folder = member.folder / "half"
    folder.mkdir(exist_ok=True)
    config = TaskConfig(
        party=member.folder / "party.yaml",
        run_id=run_id,
        task="psi",
        attempt=attempt,
        peer=peer,
        leader="bank",
        datasets={"bank": "loans", "shop": "customers"},
        settings={**SETTINGS, **more},
        kind="psi",
    )
    (folder / "config.json").write_text(json.dumps(to_plain(config)))
    argv = [sys.executable, "-P", "-m", "fedtasks.runtime", "fedtasks.psi.offline:run", str(folder / "config.json")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=100, check=False)
    found = folder / (OUTCOME if done.returncode == 0 else FAILURE)
    assert found.exists(), done.stderr
    return json.loads(found.read_text())


@pytest.mark.timeout(240)
def test_next_release_with_a_setting_and_a_message_more_runs_with_this_one(pair: Pair, tmp_path: Path) -> None:
    release = next_release(tmp_path / "next", protocols=(PROTOCOL_MAX, PROTOCOL_MAX + 1))
    with gateway_process(pair.shop, release), pair.bank.client() as bank, pair.shop.client() as shop:
        wait_for(lambda: seen(pair.bank, "shop").get("version") == VERSION)
        wait_for(lambda: seen(pair.shop, "bank").get("connected"))
        grant_ticket(pair.shop, pair.bank)
        run_id = open_run(bank, config_json=shared_config(**SETTINGS)).run.run_id
        pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, run_id, config_json="", peer="", partition="")
        attempt = meet([bank, shop], run_id, task="psi")
        ours = dict(os.environ)
        ends = both(
            lambda: run_half(pair.bank, "shop", run_id, attempt, ours),
            lambda: run_half(pair.shop, "bank", run_id, attempt, environment(release)),
        )
        assert ends[0] == ends[1]
        assert ends[0]["counts"]["people_shared"] == 20, ends
        # Set, it is another matter: both say which setting it is.
        differing = both(
            lambda: run_half(pair.bank, "shop", run_id, attempt, ours),
            lambda: run_half(pair.shop, "bank", run_id, attempt, environment(release), novelty=3),
        )
        assert [end["code"] for end in differing] == ["CONFIG_DIFFERS", "CONFIG_DIFFERS"]
        assert {end["fields"]["field"] for end in differing} == {"settings.novelty"}
        assert {end["fields"]["theirs"] for end in differing} == {"3", f"absent in {__version__}"}
    with pair.bank.store() as store:  # what this release does not know was not sent
        assert not [row for row in store.audit.list() if row.action == "peer.request"]


@pytest.mark.timeout(120)
def test_release_that_speaks_another_protocol_is_told_of_alike_on_both_sides(pair: Pair, tmp_path: Path) -> None:
    first = PROTOCOL_MAX + 1
    release = next_release(tmp_path / "next", protocols=(first, first + 1))
    text = (
        f"bank {__version__} with protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}",
        f"shop {VERSION} with protocol {first} to {first + 1}",
    )
    with gateway_process(pair.shop, release):
        for member, peer, said in ((pair.bank, "shop", text), (pair.shop, "bank", text[::-1])):
            wait_for(lambda member=member, peer=peer: seen(member, peer).get("code") == "VERSION_DIFFERS")
            assert seen(member, peer)["text"] == f"{', '.join(said)}: bank must upgrade"
        for _ in range(3):  # and go on saying so, however often they meet
            met = pair.proxy.bytes
            wait_for(lambda met=met: pair.proxy.bytes > met)
            assert [seen(pair.bank, "shop")["code"], seen(pair.shop, "bank")["code"]] == ["VERSION_DIFFERS"] * 2
