"""Command `gc`: remove what runs have left and nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from fedtasks.cli.output import (
    PARTY,
    AsJson,
    PartyFile,
    examples,
    group,
    open_store,
    print_json,
    print_table,
    say,
    size,
)
from fedtasks.config import load_party

if TYPE_CHECKING:
    from fedtasks.retention.removal import Removal

app = group()


@app.command(epilog=examples("gc --dry-run", "gc", "gc --older-than 30 --dry-run --json"))
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why.")] = False,
    older_than: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="DAYS", help="Keep nothing for longer, whatever party.yaml says.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Remove what runs have left longer ago than section `keep` of party.yaml says; what is in use stays.

    It may be stopped at any moment and run again, also while runs go on.
    """
    from fedtasks.clock import now_ms
    from fedtasks.data.lean import lean_imports

    with lean_imports():
        from fedtasks.retention.policy import carry_out, removals

    party = load_party(party_file)
    keep = party.keep if older_than is None else party.keep.at_most(older_than)
    with open_store(party) as store:
        found = (removals if dry_run else carry_out)(party, store, keep, now_ms())
        _show(found, dry_run=dry_run, as_json=as_json)


def _show(removed: Iterable[Removal], *, dry_run: bool, as_json: bool) -> None:
    found = list(removed)
    freed = sum(each.n_bytes for each in found)
    if as_json:
        rows = [
            {"kind": each.kind, "what": each.what, "bytes": each.n_bytes, "rows": each.n_rows, "why": each.why}
            for each in found
        ]
        print_json({"dry_run": dry_run, "bytes": freed, "removed": rows})
        return
    cells = [
        (each.kind, each.what, f"{each.n_rows:,} rows" if each.n_rows else size(each.n_bytes), each.why)
        for each in found
    ]
    print_table(["Kind", "What", "Size", "Why"], cells, empty="Nothing is old enough.")
    if found:
        say(f"{'Would free' if dry_run else 'Freed'} {size(freed)} of the storage.")
