"""Commands that compute: `psi`, `task`, `demo`."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Annotated

import typer

from fedtasks.cli import partyfile
from fedtasks.cli.output import PARTY, PartyFile, examples
from fedtasks.config import load_party
from fedtasks.errors import ConfigError

psi_app = typer.Typer(no_args_is_help=True, help="Private set intersection.")
task_app = typer.Typer(no_args_is_help=True, help="One half of one task, as Airflow starts it.")

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


_KEYS = {"blind_rsa": ("psi_key", "psi.key"), "oprf": ("psi_oprf_key", "psi-oprf.key")}


@psi_app.command("keygen", epilog=examples("psi keygen", "psi keygen --bits 4096", "psi keygen --scheme oprf"))
def psi_keygen(
    scheme: Annotated[str, typer.Option(help=f"One of: {', '.join(_KEYS)}.")] = "blind_rsa",
    bits: Annotated[int | None, typer.Option(help="Length of the RSA modulus: 3072 by default, 2048 at least.")] = None,
    party_file: PartyFile = PARTY,
) -> None:
    """Make the key that this party signs ids with when it is the PSI signer, and name it in party.yaml."""
    from fedtasks.crypto.scheme import Scheme, generate_key

    if scheme not in _KEYS:
        raise ConfigError(f"`{scheme}` is not one of: {', '.join(_KEYS)}", field="scheme")
    field, name = _KEYS[scheme]
    named: Path | None = getattr(load_party(party_file), field)
    key = named or party_file.parent.absolute() / "keys" / name
    if key.exists():
        # A new key makes every tag of the old one worthless: that must be meant.
        raise ConfigError("the key is there already and is never overwritten; move it away first", where=str(key))
    key_id = generate_key(Scheme(scheme), key, bits)
    if named is None:
        text = partyfile.with_field(party_file.read_text(encoding="utf-8"), field, f"keys/{name}")
        partyfile.replace_checked(party_file, text)
    typer.echo(f"{key} holds a key for {scheme}; its id is {key_id}.")


@task_app.command("run", epilog=examples("task run fedtasks.models.split_nn.train:main config.json"))
def task_run(
    entry: Annotated[str, typer.Argument(help="package.module:function")],
    config: Annotated[Path, typer.Argument(help="The task's configuration, JSON.")],
) -> None:
    """Run one half of a task; its outcome or failure appears beside CONFIG. Operators call this."""
    from fedtasks.tasks import run

    # A dotted name can only reach what is installed; a path could reach what somebody has put there.
    if not _ENTRY.fullmatch(entry):
        raise ConfigError(f"`{entry}` is not package.module:function", field="entry")
    module_name, _, name = entry.partition(":")
    try:
        algorithm = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`{entry}` cannot be imported: {error}", field="entry") from error
    raise typer.Exit(run(algorithm, config))


def demo(
    folder: Annotated[Path, typer.Option(help="Everything that the demo makes stays here.")] = Path(".demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave both Airflows up and print where they are.")] = False,
) -> None:
    """Train one model from two parties on this machine, each with its own Airflow, gateway and store."""
    from fedtasks.laptop.demo import main

    main(folder, keep=keep)
