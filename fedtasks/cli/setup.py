"""Commands that set a party up: `init`, `identity`, `peer`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtasks.cli.output import (
    PARTY,
    PATIENCE_S,
    AsJson,
    PartyFile,
    examples,
    group,
    print_findings,
    print_listing,
    say,
    tell,
)
from fedtasks.config import WORKERS, load_party
from fedtasks.errors import PeerIdentity

identity_app = group("This party's certificate and public card.")
peer_app = group("The other parties.")

app = group()
app.add_typer(identity_app, name="identity")
app.add_typer(peer_app, name="peer")


@app.command(epilog=examples("init bank --listen 0.0.0.0:7400 --address gateway.bank.example:7400"))
def init(
    name: Annotated[str, typer.Argument(help="The party's name: lower-case letters, digits, `-` and `_`.")],
    folder: Annotated[Path, typer.Option(help="Where to write.")] = Path(),
    listen: Annotated[
        str | None, typer.Option(help="host:port for peers; without it this party only dials.", show_default=False)
    ] = None,
    public: Annotated[
        str | None,
        typer.Option("--address", help="host:port that peers dial, for the card; by default what --listen says."),
    ] = None,
    workers: Annotated[
        str, typer.Option(help="Where this party's workers reach the gateway: a socket, or host:port (TLS).")
    ] = WORKERS,
    airflow_url: Annotated[str, typer.Option(help="Where this party's Airflow is.")] = "http://127.0.0.1:8080",
    airflow_user: Annotated[str, typer.Option(help="Whom the gateway logs in as.")] = "fedtasks",
    airflow_password_file: Annotated[
        str, typer.Option(help="File with that user's password, relative to party.yaml.")
    ] = "keys/airflow.password",
    as_json: AsJson = False,
) -> None:
    """Write `party.yaml`, make all keys and the card for the peer. Nothing is ever overwritten."""
    from fedtasks.setup.party import found

    made = found(
        name,
        folder,
        listen=listen,
        address=public,
        workers=workers,
        airflow_url=airflow_url,
        airflow_user=airflow_user,
        airflow_password_file=airflow_password_file,
    )
    password = folder / airflow_password_file
    tell(
        {
            "party_file": str(made.file),
            "keys": str(made.keys),
            "card": str(made.card),
            "fingerprint": made.fingerprint,
        },
        f"{made.file} and {made.keys}/ are written.",
        f"Fingerprint of {name}: {made.fingerprint}",
        "Next:",
        f"  1. Put the password of Airflow's user `{airflow_user}` into {password} (chmod 600).",
        f"  2. Hand {made.card.name} to the other party and add theirs: `fedtasks peer add CARD`",
        f"  3. Declare your datasets in {made.file}, then: `fedtasks doctor`",
        as_json=as_json,
    )


@identity_app.command("card", epilog=examples("identity card --address gateway.bank.example:7400"))
def identity_card(
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="NAME.card.yaml")] = None,
    address: Annotated[str | None, typer.Option(help="host:port that peers dial.")] = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Write the public card that a peer needs, and show its fingerprint."""
    from fedtasks.setup.party import make_card

    card_file = out or party_file.parent / f"{load_party(party_file).name}.card.yaml"
    fingerprint = make_card(party_file, card_file, address)
    tell({"card": str(card_file), "fingerprint": fingerprint}, f"{card_file}: {fingerprint}", as_json=as_json)


@identity_app.command("renew", epilog=examples("identity renew"))
def identity_renew(as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Make a new gateway certificate under the same authority; peers need not do anything."""
    from fedtasks.identity import renew_certificate

    party = load_party(party_file)
    renew_certificate(party.gateway.certificate.parent, party.name)
    certificate = str(party.gateway.certificate)
    tell({"certificate": certificate}, f"{certificate} is new; restart the gateway.", as_json=as_json)


@peer_app.command(
    "add",
    epilog=examples(
        "peer add shop.card.yaml",
        'peer add shop.card.yaml --address gateway.shop.example:7400 --fingerprint "3f1a 90c2 …"',
    ),
)
def peer_add(
    card_file: Annotated[Path, typer.Argument(metavar="CARD", help="The card that the other party handed over.")],
    address: Annotated[str | None, typer.Option(help="host:port to dial, instead of the card's.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="What the other party read to you; compared.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Trust the card without asking.")] = False,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Trust another party: its certificate authority and its ticket key, for its name alone."""
    from fedtasks.identity import read_card, same_fingerprint
    from fedtasks.setup.party import add_peer, require_new_peer

    card = read_card(card_file)
    require_new_peer(party_file, card)
    say(f"Fingerprint of {card.name}: {card.fingerprint}", err=as_json)
    if fingerprint is not None:
        if not same_fingerprint(card.fingerprint, fingerprint):
            raise PeerIdentity(f"the card's fingerprint is not `{fingerprint}`", where=str(card_file))
    elif not yes:
        typer.confirm(f"Did {card.name} read the same to you by telephone?", abort=True, err=as_json)
    dialled = add_peer(party_file, card, address)
    facts = {"name": card.name, "fingerprint": card.fingerprint, "address": dialled or ""}
    tell(facts, f"{card.name} is a peer; restart the gateway if it runs.", as_json=as_json)


@peer_app.command("list", epilog=examples("peer list", "peer list --json"))
def peer_list(as_json: AsJson = False, party_file: PartyFile = PARTY) -> None:
    """Show the peers, and whether their gateways are connected if our own gateway runs."""
    from fedtasks.errors import GatewayUnreachable, PartyTwice
    from fedtasks.link.client import GatewayClient

    party = load_party(party_file)
    try:
        with GatewayClient.of(party, patience_s=PATIENCE_S) as client:
            found = {peer.name: peer for peer in client.peers().peers}
    except GatewayUnreachable:
        found = {}
    rows = []
    for peer in party.peers:
        status = found.get(peer.name)
        state = "gateway not running" if status is None else "connected" if status.connected else "not connected"
        if status is not None and status.failure.code == PartyTwice.code:
            state = f"{state} ({status.failure.code})"
        version = status.version if status is not None else ""
        rows.append({"name": peer.name, "address": peer.address or "", "state": state, "version": version})
    columns = {"Peer": "name", "Address": "address", "State": "state", "Version": "version"}
    print_listing(rows, columns, as_json=as_json, empty="No peers yet; add one: `fedtasks peer add CARD`")


@peer_app.command("preflight", epilog=examples("peer preflight shop", "peer preflight shop --pipeline credit_retrain"))
def peer_preflight(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="The peer's name.")],
    pipeline: Annotated[
        str, typer.Option(help="Also look whether a run of it could start: tickets, and its DAG on both sides.")
    ] = "",
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Ask a peer whether a run could start now, and start none; exit code 1 if it could not."""
    from fedtasks.checks import Finding, Verdict
    from fedtasks.link.client import GatewayClient
    from fedtasks.reports.status import advice_of_check

    party = load_party(party_file)
    with GatewayClient.of(party, patience_s=PATIENCE_S) as client:
        checks = client.preflight(peer, pipeline)
    findings = [
        Finding(check.name, Verdict.OK, check.text)
        if check.ok
        else Finding(
            check.name,
            Verdict.WRONG,
            f"{check.code}: {check.text}",
            advice_of_check(check.code, check.name, party.name, peer),
        )
        for check in checks
    ]
    print_findings(findings, as_json=as_json)


NETWORK = "network"
"""What `doctor` takes in the place of a dataset to look at the way to a peer."""


@app.command(
    epilog=examples(
        "doctor",
        "doctor --party /etc/fedtasks/party.yaml --json",
        "doctor --data customers",
        "doctor network shop --idle 120",
    )
)
def doctor(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|network", help="With --data, which dataset; by default all.", show_default=False
        ),
    ] = "",
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="With `network`, to which peer.", show_default=False)
    ] = "",
    data: Annotated[bool, typer.Option("--data", help="Look through the rows of datasets instead.")] = False,
    partition: Annotated[
        str, typer.Option(help="With --data, which partition; by default all that have landed.", show_default=False)
    ] = "",
    idle: Annotated[
        int, typer.Option(min=0, max=600, help="With `network`, for how many seconds a stream is to be silent.")
    ] = 70,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Check every key, file and connection, and say what is wrong and who can mend it.

    With --data, look through the rows of datasets: of each column rows, missing and different values, what may stand
    for a missing value, too many categories; of the label its classes; of ids only how they are written, such as
    "11 digits 99 %".

    With `network PEER`, measure the way to the peer's gateway and back, through both gateways: round trips, bandwidth,
    the largest messages, what holds small ones back, and what cuts a stream that is silent.
    """
    from fedtasks.doctor import examine, examine_data, examine_network
    from fedtasks.errors import ConfigError

    if dataset == NETWORK and not data:
        if not peer:
            raise ConfigError("name the peer to whom the way is measured", field="PEER")
        print_findings(list(examine_network(party_file, peer, idle)), as_json=as_json)
        return
    if peer:
        raise ConfigError(f"only `{NETWORK}` takes a peer", field="PEER")
    if not data and (dataset or partition):
        raise ConfigError("only `--data` looks at a dataset", field="dataset" if dataset else "partition")
    found = examine_data(party_file, dataset, partition) if data else examine(party_file)
    print_findings(list(found), as_json=as_json)
