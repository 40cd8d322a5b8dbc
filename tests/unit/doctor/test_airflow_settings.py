"""What doctor says of an Airflow whose parts do not run, or that notices too late what has died."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.configuration import conf

import tests.support.airflow_home  # noqa: F401 - before anything imports Airflow
from fedtasks.checks import Finding, Verdict
from fedtasks.doctor.airflow_settings import SETTINGS, Setting, parts_and_settings
from fedtasks.gateway.airflow_api import AirflowApi
from tests.support.gateways import Member, make_members

SETUP = Path(__file__).resolve().parents[3] / "docs" / "setup.md"


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Member]:
    bank, shop, _ = make_members(tmp_path)
    (bank.folder / "party.yaml").write_text(
        (bank.folder / "party.yaml").read_text().replace("address: PROXY", "address: 127.0.0.1:1")
    )
    yield bank
    for member in (bank, shop):
        member.close()


def findings(member: Member) -> list[Finding]:
    async def ask() -> list[Finding]:
        async with AirflowApi(member.party.airflow) as airflow:
            return [finding async for finding in parts_and_settings(airflow, member.party)]

    return asyncio.run(ask())


def test_part_that_does_not_run_is_wrong_and_named_with_its_remedy(bank: Member) -> None:
    bank.airflow.health = {"scheduler": {"status": "healthy"}, "triggerer": {"status": None}}
    first, hidden = findings(bank)
    assert (first.verdict, first.text) == (Verdict.WRONG, "bank's triggerer does not run")
    assert first.remedy.startswith("Start the part of bank's Airflow that is named")
    assert hidden.verdict is Verdict.NOTE  # it shows no setting
    bank.airflow.health = {"scheduler": {"status": "healthy"}}
    assert findings(bank)[0].verdict is Verdict.OK


def test_setting_that_notices_too_late_is_warned_of_with_what_serves_well(bank: Member) -> None:
    bank.airflow.settings = {(setting.section, setting.option): setting.good for setting in SETTINGS}
    assert [finding.verdict for finding in findings(bank)] == [Verdict.OK]
    bank.airflow.settings["scheduler", "task_instance_heartbeat_timeout"] = "300"
    bank.airflow.settings["triggerer", "triggerer_health_check_threshold"] = "odd"
    _, warned = findings(bank)
    assert (warned.verdict, warned.remedy) == (
        Verdict.WARNING,
        "Set [scheduler] task_instance_heartbeat_timeout = 60",
    )
    assert warned.text.startswith("[scheduler] task_instance_heartbeat_timeout is 300: ")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.option)
def test_settings_are_airflows_and_stand_in_the_documents_with_its_defaults(setting: Setting) -> None:
    default = float(str(conf.get_default_value(setting.section, setting.option)))
    begin = f"| `{setting.section}.{setting.option}` |"
    (row,) = [line for line in SETUP.read_text(encoding="utf-8").splitlines() if line.startswith(begin)]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[1], float(cells[2])) == (setting.good, default)
