"""Commands about datasets by partition: `data list | land`."""

from __future__ import annotations

from typing import Annotated

import typer

from fedtasks.cli.output import (
    PARTY,
    PATIENCE_S,
    AsJson,
    PartyFile,
    examples,
    group,
    moment,
    open_store,
    print_listing,
    tell,
)
from fedtasks.config import load_party

data_app = group("Datasets by partition: which have landed, here and at peers.")

app = group()
app.add_typer(data_app, name="data")

_COLUMNS = {"party": "party", "dataset": "dataset", "partition": "partition", "rows": "rows", "landed": "landed"}


@data_app.command("list", epilog=examples("data list", "data list --json"))
def list_landed(party: PartyFile = PARTY, as_json: AsJson = False) -> None:
    """List what has landed; of a peer's partitions the rows are not known."""
    config = load_party(party)
    with open_store(config) as store:
        rows = [
            {**vars(row), "rows": row.rows if row.party == config.name else None, "landed": moment(row.landed_ms)}
            for row in store.landings.list()
        ]
    print_listing(rows, _COLUMNS, as_json=as_json, empty="Nothing has landed yet: `fedtasks data land` says what has")


@data_app.command(epilog=examples("data land customers 2026-11-21"))
def land(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="One of our datasets, with partitions.")],
    partition: Annotated[str, typer.Argument(metavar="PARTITION", help="Its key, such as a day.")],
    party: PartyFile = PARTY,
    as_json: AsJson = False,
) -> None:
    """Say that a partition is complete: check its rows, mark it, and let the gateway tell whoever waits for it.

    Without the gateway nothing is written; landing a partition again is harmless.
    """
    from fedtasks.data.lean import lean_imports

    with lean_imports():
        from fedtasks.data import partitions
    from fedtasks.link.client import GatewayClient

    config = load_party(party)
    declared = config.dataset(dataset)
    with GatewayClient.of(config, patience_s=PATIENCE_S) as client:
        client.peers()  # one that does not answer is found before a pass over the rows
        with partitions.landing(declared, partition) as rows:
            is_new = client.land_partition(dataset, partition, rows)
    said = "has landed with" if is_new else "had landed before; it now has"
    facts = {"dataset": dataset, "partition": partition, "rows": rows, "is_new": is_new}
    tell(facts, f"{partition} of {dataset} {said} {rows:,} rows", as_json=as_json)
