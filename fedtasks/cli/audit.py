"""Commands about decisions: `audit list`, `export` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtasks.cli.output import (
    PARTY,
    AsJson,
    PartyFile,
    examples,
    group,
    moment,
    open_store,
    print_findings,
    print_listing,
    tell,
)
from fedtasks.config import load_party
from fedtasks.errors import ConfigError

if TYPE_CHECKING:
    from fedtasks.reports.audit_proof import Keys

audit_app = group("Every decision of this party's gateway, hash-chained.")

app = group()
app.add_typer(audit_app, name="audit")


@audit_app.command("list", epilog=examples("audit list --limit 50", "audit list --json"))
def audit_list(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest last.")] = 50,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """List the newest decisions: who asked for what, and whether it was allowed."""
    with open_store(load_party(party_file)) as store:
        rows = [
            {
                "seq": row.seq,
                "at": moment(row.at_ms),
                "actor": row.actor,
                "action": row.action,
                "decision": row.decision,
                "detail": dict(row.detail),
                "text": ", ".join(f"{name}={value}" for name, value in row.detail.items()),
            }
            for row in store.audit.list(limit=limit)
        ]
    columns = {"#": "seq", "UTC": "at", "Who": "actor", "What": "action", "Decision": "decision", "Facts": "text"}
    print_listing(rows, columns, as_json=as_json, empty="Nothing has been decided yet.")


@audit_app.command("export", epilog=examples("audit export bank-2026.audit.jsonl"))
def audit_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; nothing is overwritten.")],
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Write all decisions, with the tickets and receipts that prove them, to a file that this party signs.

    Whoever has the public ticket keys checks it with `fedtasks audit verify FILE`, without this party.
    """
    from fedtasks.clock import now_ms
    from fedtasks.reports.audit_bundle import bundle
    from fedtasks.tickets import fingerprint, load_ticket_key, public_text

    party = load_party(party_file)
    key = load_ticket_key(party.gateway.ticket_key)
    n_lines = 0
    try:
        with open_store(party) as store, file.open("x", encoding="utf-8") as out:
            try:
                for line in bundle(store, party.name, key, now_ms()):
                    out.write(f"{line}\n")
                    n_lines += 1
            except BaseException:
                file.unlink()
                raise
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", where=str(file)) from error
    public = f"{party.name}={public_text(key)}"
    tell(
        {"file": str(file), "lines": n_lines, "key": public, "fingerprint": fingerprint(key)},
        f"{file}: {n_lines} lines, signed with the ticket key {fingerprint(key)}.",
        f"Check it anywhere: `fedtasks audit verify {file} --key {public}`",
        as_json=as_json,
    )


@audit_app.command(
    "verify", epilog=examples("audit verify", "audit verify bank.audit.jsonl --key bank=BASE64 --key shop=BASE64")
)
def audit_verify(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="An exported audit; by default this party's own.", show_default=False),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="With FILE, a party's public ticket key as its card has it, NAME=KEY; may be repeated."),
    ] = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Check the whole chain of decisions: a changed or missing row is found.

    Of a file, which needs no party.yaml and asks nobody: every line, every signature of a party whose key is given, and
    that a ticket covers each run.
    """
    if file is not None:
        from fedtasks.reports.audit_proof import MAX_LINE, prove

        keys = _keys(key or [])
        try:
            with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                found = prove(iter(lambda: lines.readline(MAX_LINE + 1), ""), keys)
        except OSError as error:
            raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(file)) from error
        print_findings(found, as_json=as_json)
        return
    if key:
        raise ConfigError("only an exported audit is checked with keys: name its file", field="key")
    from fedtasks.tickets import load_ticket_key

    party = load_party(party_file)
    with open_store(party) as store:
        store.audit.verify(load_ticket_key(party.gateway.ticket_key).public_key())
        last = store.audit.list(limit=1)
    facts = {"whole": True, "rows": last[0].seq if last else 0, "digest": last[0].digest if last else ""}
    tell(facts, f"The audit chain is whole up to decision {facts['rows']}.", as_json=as_json)


def _keys(named: list[str]) -> Keys:
    """Read what ``--key`` was given."""
    from fedtasks.tickets import public_from_text

    found: dict[str, list[object]] = {}
    for each in named:
        name, _, text = each.partition("=")
        found.setdefault(name, []).append(public_from_text(text))
    if not found:
        raise ConfigError("name the public ticket key of the party whose audit it is, NAME=KEY", field="key")
    return found  # type: ignore[return-value]  # what reads keys is loaded when it is asked for
