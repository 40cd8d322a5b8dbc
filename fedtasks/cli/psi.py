"""Commands about private set intersection: `psi keygen | serve | stream`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from fedtasks.cli.output import PARTY, AsJson, PartyFile, examples, features, group, tell
from fedtasks.config import Party, load_party
from fedtasks.errors import ConfigError

log = logging.getLogger(__name__)

psi_app = group("Private set intersection: its keys, and live lookups.")

app = group()
app.add_typer(psi_app, name="psi")

_SCHEMES = ("blind_rsa", "oprf")


@psi_app.command(
    "keygen",
    epilog=examples("psi keygen", "psi keygen --bits 4096", "psi keygen --primes 3", "psi keygen --scheme oprf"),
)
def psi_keygen(
    scheme: Annotated[str, typer.Option(help=f"One of: {', '.join(_SCHEMES)}.")] = "blind_rsa",
    bits: Annotated[int | None, typer.Option(help="Length of the RSA modulus: 3072 by default, 2048 at least.")] = None,
    primes: Annotated[
        int | None, typer.Option(help="Of how many primes an RSA key is: 2, or 3, which sign faster but outside FIPS.")
    ] = None,
    as_json: AsJson = False,
    party_file: PartyFile = PARTY,
) -> None:
    """Make the key that this party signs ids with when it is the PSI signer, and name it in party.yaml."""
    from fedtasks.crypto.schemes import Scheme
    from fedtasks.setup.party import make_psi_key

    if scheme not in _SCHEMES:
        raise ConfigError(f"`{scheme}` is not one of: {', '.join(_SCHEMES)}", field="scheme")
    key, key_id = make_psi_key(party_file, Scheme(scheme), bits, primes)
    facts = {"key": str(key), "scheme": scheme, "key_id": key_id}
    tell(facts, f"{key} holds a key for {scheme}; its id is {key_id}.", as_json=as_json)


_REFRESH_S = 60.0
_PATIENCE_S = 600.0
"""How long a service waits for a gateway that is restarted."""

Key = Annotated[
    str, typer.Option("--key", help="Id of the signing key whose tags to use; needed if there are several.")
]


@psi_app.command(
    "serve",
    epilog=examples(
        "psi serve --dataset loans --to shop",
        "psi serve --dataset loans --to shop --answer nothing --matches live.jsonl",
        "psi serve --dataset loans --to shop --answer columns --columns segment",
    ),
)
def psi_serve(
    dataset: Annotated[str, typer.Option(help="One of our datasets, intersected with the peer's before.")],
    to: Annotated[str, typer.Option(help="The peer that may ask.")],
    answer: Annotated[str, typer.Option(help="What it learns: nothing, matched, or columns.")] = "matched",
    columns: Annotated[
        str, typer.Option(help="With --answer columns: features whose values it learns, comma-separated.")
    ] = "",
    matches: Annotated[
        Path | None, typer.Option(help="Append every match to this file: a JSON line of own id, peer and time.")
    ] = None,
    key_id: Key = "",
    refresh_s: Annotated[
        float, typer.Option(min=1, help="How often to look for tags of a newer intersection, in seconds.")
    ] = 60,
    party_file: PartyFile = PARTY,
) -> None:
    """Answer a peer's live lookups in one dataset, as far as its ticket allows, until Ctrl-C.

    The tags that intersections have made are loaded into the store first, and again when there are newer ones.
    """
    from fedtasks.data.lean import lean_imports
    from fedtasks.link.client import GatewayClient
    from fedtasks.online.declaration import check_offer

    with lean_imports():
        from fedtasks.online.lookups import Answerer, Refresher
        from fedtasks.online.tables import load_tags
    from fedtasks.store import Store
    from fedtasks.wire.v1 import worker_pb2

    party = load_party(party_file)
    peer, declared = party.peer(to).name, party.dataset(dataset)
    chosen = features(declared, columns, "columns")
    check_offer(answer, chosen)
    _log_to_stderr(party)
    with Store.open(party.store.url, party.store.password_file) as store, _written(matches) as file:
        loaded = load_tags(party, declared, store, key_id, chosen)
        answerer = Answerer(declared, loaded.key_id, store.tags, answer, peer, file)
        offer = worker_pb2.Offer(peer=peer, dataset=declared.name, key_id=loaded.key_id, policy=answer, columns=chosen)

        def attached() -> None:
            log.info("%d tags of %s are ready for %s, who learns: %s", loaded.rows, declared.name, peer, answer)

        def refresh() -> None:
            load_tags(party, declared, store, loaded.key_id, chosen)
            log.info("%(asked)d tags asked, %(matched)d matched", answerer.counts)

        with GatewayClient.of(party, patience_s=_PATIENCE_S) as client, _stoppable(), Refresher(refresh, refresh_s):
            client.serve_lookups(offer, answerer.answer, attached)


@psi_app.command(
    "stream",
    epilog=examples(
        "psi stream --dataset customers --to bank < ids.jsonl",
        "psi stream --dataset customers --to bank --input visits.jsonl --follow",
    ),
)
def psi_stream(
    dataset: Annotated[str, typer.Option(help="Our dataset whose ids these are, intersected with the peer's before.")],
    to: Annotated[str, typer.Option(help="The peer that is asked; it runs `psi serve`.")],
    peer_dataset: Annotated[str, typer.Option(help="The peer's dataset; may be left out if tickets name one.")] = "",
    ticket: Annotated[str, typer.Option(help="Under which ticket of the peer's; by default the one that fits.")] = "",
    source: Annotated[
        Path | None, typer.Option("--input", help="A file of JSON lines; by default standard input.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for what is written to the file next.")] = False,
    position: Annotated[
        Path | None,
        typer.Option(help="Where to keep how far the file was answered.", show_default="INPUT.position"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="The most ids that are asked at once.")] = 500,
    key_id: Key = "",
    patience_s: Annotated[float, typer.Option(min=0, help="How long to ask again while the peer is away.")] = 300,
    party_file: PartyFile = PARTY,
) -> None:
    """Look up live ids at a peer: a JSON line in, a JSON line out with the id and its status.

    A line is an id, or an object that has the dataset's id columns. The status is `matched` (with `values`, if the peer
    lets them out), `unmatched`, `sent` (the peer answers nothing), `untagged` (no intersection has seen the id yet;
    nothing was sent) or `invalid`. A file is gone on with where it was left.
    """
    from fedtasks.data.lean import lean_imports
    from fedtasks.link.client import GatewayClient

    with lean_imports():
        from fedtasks.online.lookups import Asker, Refresher
        from fedtasks.online.sources import Position, read_file, read_stream
        from fedtasks.online.tables import load_tags
    from fedtasks.store import Store

    if source is None and (follow or position):
        raise ConfigError("only a file that is named by --input can be followed", field="input")
    party = load_party(party_file)
    declared, peer = party.dataset(dataset), party.peer(to).name
    kept = position or (source.with_name(f"{source.name}.position") if source else None)
    _log_to_stderr(party)
    with Store.open(party.store.url, party.store.password_file) as store, GatewayClient.of(party) as client:
        loaded = load_tags(party, declared, store, key_id)
        asker = Asker(
            declared,
            loaded.key_id,
            store.tags,
            client,
            peer=peer,
            ticket_id=ticket,
            peer_dataset=peer_dataset,
            patience_s=patience_s,
        )
        if source is not None and kept is not None:
            found = read_file(source, Position.load(kept), most=batch, follow=follow)
        else:
            found = read_stream(sys.stdin.fileno(), most=batch)

        def refresh() -> None:
            load_tags(party, declared, store, loaded.key_id)
            log.info("%s", _summary(asker.counts))

        with _stoppable(), Refresher(refresh, _REFRESH_S):
            for lines in found:
                for answered in asker.answer(lines.lines, lines.first):
                    sys.stdout.write(json.dumps(answered, ensure_ascii=False) + "\n")
                sys.stdout.flush()
                if kept is not None:
                    lines.end.save(kept)
        log.info("%s", _summary(asker.counts))


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _log_to_stderr(party: Party) -> None:
    from fedtasks.logs import About, JsonLines, begin

    # Standard output carries answers.
    handler = begin(sys.stderr)
    if party.logs.is_json:
        handler.setFormatter(JsonLines(About(party.name)))


@contextmanager
def _written(path: Path | None) -> Iterator[IO[str] | None]:
    """Yield a file to append to that only its owner may read, or None."""
    if path is None:
        yield None
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        yield file


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; ending it so is no failure."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        log.info("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
