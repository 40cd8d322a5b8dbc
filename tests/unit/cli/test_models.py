"""`models export`: which version, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtasks.config import load_party
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.models.contract import CARD
from fedtasks.store import ModelRow, Store
from tests.support.command_line import Run
from tests.support.report_rows import NOW_MS, make_run


@pytest.fixture
def party_file(shop: Path) -> str:
    """The shop, with two versions of a model, of which the second is in use."""
    file = shop / "party.yaml"
    party = load_party(file)
    for number in (1, 2):
        row = make_run(number)
        with Store.open(party.store.url) as store:
            assert store.runs.add(row, None)
            halves = ("a" * 63 + str(number), "b" * 64)
            day, parent = row.partition, number - 1 or None
            version = ModelRow("credit", number, "shop", row.run_id, day, parent, *halves, None, {}, False, NOW_MS)
            store.models.publish(version, "credit")
        storage = RunStorage(party.storage, row.run_id)
        folder = local_path(storage.attempt("train", 1))
        (folder / "model").mkdir()
        (folder / "model" / "saved_model.pb").write_text(f"version {number}")
        (folder / CARD).write_text('{"role": "follower"}')
        storage.publish("train", 1, rows=1, facts={"digest": halves[0], "peer_digest": halves[1]})
    return str(file)


def test_export_writes_the_version_in_use_or_the_one_named(run: Run, party_file: str) -> None:
    done = run("models", "export", "credit", "--to", "half", "--party", party_file, "--json").json()
    assert done == {
        "model": "credit",
        "version": 2,
        "format": "savedmodel",
        "folder": "half",
        "files": [CARD, "model/saved_model.pb"],
    }
    assert Path("half/model/saved_model.pb").read_text() == "version 2"
    said = run("models", "export", "credit", "--version", "1", "--to", "older", "--party", party_file).out
    assert said == "older has shop's half of version 1 of credit, as savedmodel\n"
    assert Path("older/model/saved_model.pb").read_text() == "version 1"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("debit",), "MODEL_UNKNOWN"),
        (("credit", "--version", "3"), "MODEL_UNKNOWN"),
        (("credit", "--task", "learn"), "DATA_MISSING"),
    ],
)
def test_export_of_what_there_is_not_says_so_and_writes_nothing(
    run: Run, party_file: str, arguments: tuple[str, ...], told: str
) -> None:
    failed = run("models", "export", *arguments, "--to", "half", "--party", party_file, expect=1)
    assert told in failed.err
    assert not Path("half").exists()
