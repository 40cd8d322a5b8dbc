"""The pytest plugin: two parties, both halves, and nothing for sessions that do not use it."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.authoring.pytest_plugin import RunBoth
from fedtasks.authoring.sample import Pair
from fedtasks.errors import ProcessFailed
from tests.support.dag_files import Write

COUNT = """
@fed.task(add=0)
def count(link, config, data):
    rows = data.table().num_rows + config.settings["add"]
    link.send("rows", str(rows).encode())
    theirs = int(link.receive("rows"))
    if rows == theirs == 0:
        raise ValueError("nobody is there")
    return {config.party: rows, config.peer: theirs, "day": config.partition}


FederatedDag("counts", steps=[count()])
"""


def test_run_both_returns_what_both_halves_ended_with(
    write: Write, two_parties: Pair, run_both: RunBoth, quick_parsing: None
) -> None:
    dataset = two_parties.parties["shop"].datasets[0]
    table = pa.table({"customer": ["a"], "spent": [1.0], "visits": [2.0], "segment": ["low"]})
    pq.write_table(table, dataset.uri.removeprefix("file://"))
    values = {"bank": 370, "shop": 11, "day": "2026-11-21"}
    ended = run_both(write(COUNT), conf={"count": {"add": 10}}, partition="2026-11-21")
    assert ended == {name: {"count": {"counts": {}, "digests": {}, "values": values}} for name in ("bank", "shop")}
    for party in two_parties.parties.values():
        file = party.datasets[0].uri.removeprefix("file://")
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(ProcessFailed, match="nobody is there") as caught:
        run_both(write(COUNT))
    assert isinstance(caught.value.__cause__, ValueError)


def test_plugin_imports_nothing_until_a_fixture_is_used() -> None:
    program = "import sys, fedtasks.authoring.pytest_plugin as plugin; print(sorted(name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for heavy in ("airflow", "pyarrow", "numpy", "grpc", "sqlalchemy", "yaml", "fedtasks.config"):
        assert f"'{heavy}'" not in done.stdout
