"""Commands about who may work with this party's gateway: `worker add | list | rotate | revoke`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtasks.cli.output import PARTY, AsJson, PartyFile, examples, group, print_listing, tell
from fedtasks.config.workers import May
from fedtasks.errors import ConfigError

worker_app = group("Who may work with this party's gateway: each has a name, a secret of its own, and rights.")

app = group()
app.add_typer(worker_app, name="worker")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The identity's name.")]
Out = Annotated[
    Path | None,
    typer.Option(help="File for the secret, which must not be there yet.", show_default="NAME.secret"),
]
_RIGHTS = tuple(may.value for may in May)


@worker_app.command("add", epilog=examples("worker add spark", "worker add watcher --may read --out watcher.secret"))
def worker_add(
    name: Name,
    may: Annotated[str, typer.Option(help=f"What it may do: {', '.join(_RIGHTS)}.")] = May.WORK.value,
    out: Out = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Make an identity and its secret, and let it in at once; the gateway keeps no more than a digest."""
    from fedtasks.setup.workers import add_worker

    if may not in _RIGHTS:
        raise ConfigError(f"`{may}` is none of: {', '.join(_RIGHTS)}", field="may")
    secret = out or Path(f"{name}.secret")
    add_worker(party_file, name, May(may), secret)
    facts = {"name": name, "may": may, "secret": str(secret)}
    text = f"{name} may {may}. {secret} is its secret: `gateway.worker_secret_file` of its party.yaml names it."
    tell(facts, text, as_json=as_json)


@worker_app.command("list", epilog=examples("worker list", "worker list --json"))
def worker_list(as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Show who may work with the gateway, beside this machine's own commands."""
    from fedtasks.setup.workers import list_workers

    rows = [
        {"name": each.name, "may": each.may.value, "secrets": len(each.secrets)} for each in list_workers(party_file)
    ]
    columns = {"Name": "name", "May": "may", "Secrets": "secrets"}
    print_listing(rows, columns, as_json=as_json, empty="Nobody but who has the secret of party.yaml.")


@worker_app.command("rotate", epilog=examples("worker rotate spark --out spark-2.secret"))
def worker_rotate(name: Name, out: Out = None, as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Make another secret for an identity; the one before counts until `fedtasks worker revoke NAME --old`."""
    from fedtasks.setup.workers import rotate_worker

    secret = out or Path(f"{name}.secret")
    rotate_worker(party_file, name, secret)
    text = f"{secret} is a new secret of {name}. Once it is in use: `fedtasks worker revoke {name} --old`"
    tell({"name": name, "secret": str(secret)}, text, as_json=as_json)


@worker_app.command("revoke", epilog=examples("worker revoke spark", "worker revoke spark --old"))
def worker_revoke(
    name: Name,
    old: Annotated[bool, typer.Option("--old", help="Only the secret that the newest one has replaced.")] = False,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Let nobody in by an identity's secrets any more, from the next call on."""
    from fedtasks.setup.workers import revoke_worker

    revoke_worker(party_file, name, only_old=old)
    text = f"The secret before the newest of {name} counts no more." if old else f"{name} is let in no more."
    tell({"name": name, "revoked": "old" if old else "all"}, text, as_json=as_json)
