"""What sets a party up: a folder of its own, a card for its peers, their cards, and the keys of PSI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedtasks import private, tickets
from fedtasks.config import WORKERS, check_name, load_party
from fedtasks.crypto.schemes import Scheme
from fedtasks.errors import ConfigError
from fedtasks.identity import Card, create_identity, write_card
from fedtasks.setup import party_file

PSI_KEYS = {Scheme.BLIND_RSA: ("psi_key", "psi.key"), Scheme.OPRF: ("psi_oprf_key", "psi-oprf.key")}
"""Scheme → the field of party.yaml that names its key, and the key's file below `keys`."""


@dataclass(frozen=True)
class Founded:
    """What makes a new party.

    Parameters
    ----------
    file, keys, card
        Its party.yaml, the folder with its keys, and its public card.
    fingerprint
        Of the card; the peers' people compare it.
    """

    file: Path
    keys: Path
    card: Path
    fingerprint: str


def found(
    name: str,
    folder: Path,
    *,
    listen: str | None = None,
    address: str | None = None,
    workers: str = WORKERS,
    airflow_url: str,
    airflow_user: str,
    airflow_password_file: str,
) -> Founded:
    """Write a new party's party.yaml, keys and card.

    Parameters
    ----------
    name
        The party's name.
    folder
        Where to write.
    listen
        ``host:port`` for peers; None for a party that only dials.
    address
        ``host:port`` that peers dial, for the card; by default what `listen` says.
    workers
        Where its workers reach its gateway.
    airflow_url, airflow_user, airflow_password_file
        Its Airflow, whom the gateway logs in as, and the file with that user's password, relative to party.yaml.

    Raises
    ------
    ConfigError
        A value cannot be used, or the party is there already: nothing is ever overwritten.
    """
    check_name(name, "name")
    file, keys = folder / "party.yaml", folder / "keys"
    for path in (file, keys):
        if path.exists():
            raise ConfigError("it is there already and is never overwritten", where=str(path))
    private.make_folders(folder)
    text = party_file.render(
        name,
        listen=listen,
        workers=workers,
        airflow_url=airflow_url,
        airflow_user=airflow_user,
        airflow_password_file=airflow_password_file,
    )
    party_file.replace_checked(file, text)
    try:
        create_identity(keys, name)
    except BaseException:
        file.unlink()
        raise
    card = folder / f"{name}.card.yaml"
    return Founded(file, keys, card, make_card(file, card, address))


def make_card(file: Path, card_file: Path, address: str | None = None) -> str:
    """Write a party's public card and return its fingerprint.

    Parameters
    ----------
    file
        Its party.yaml.
    card_file
        Where to write.
    address
        ``host:port`` that peers dial; by default where its gateway listens.
    """
    party = load_party(file)
    key = tickets.load_ticket_key(party.gateway.ticket_key).public_key()
    card = Card(
        name=party.name,
        ticket_key=tickets.public_text(key),
        authority=party.gateway.authority.read_text(encoding="ascii"),
        address=address or _dialable(party.gateway.listen),
    )
    write_card(card_file, card)
    return card.fingerprint


def _dialable(listen: str | None) -> str | None:
    """Return the address to print on the card; an address of every interface is nobody's address."""
    if listen is None or listen.rpartition(":")[0].strip("[]") in ("0.0.0.0", "::"):  # noqa: S104
        return None
    return listen


def require_new_peer(file: Path, card: Card) -> None:
    """Raise `ConfigError` if a card is of a party that party.yaml knows already, or of this party."""
    party = load_party(file)
    if card.name == party.name:
        problem = "this is your own card"
    elif card.name in (peer.name for peer in party.peers):
        problem = f"`{card.name}` is a peer already"
    else:
        return
    raise ConfigError(f"{problem}; to renew its trust, remove it from `peers` first", where=str(file))


def add_peer(file: Path, card: Card, address: str | None = None) -> str | None:
    """Trust another party: its certificate authority and its ticket key, for its name alone.

    Parameters
    ----------
    file
        This party's party.yaml.
    card
        The other party's card, whose fingerprint somebody has compared.
    address
        ``host:port`` to dial, instead of the card's.

    Returns
    -------
    str or None
        The address that is dialled.

    Raises
    ------
    ConfigError
        It is known already, or party.yaml cannot be added to; then nothing has changed.
    """
    require_new_peer(file, card)
    authority = file.parent / "peers" / f"{card.name}.pem"
    entry = {"name": card.name, "authority": f"peers/{card.name}.pem", "ticket_key": card.ticket_key}
    dial = address or card.address
    if dial:
        entry["address"] = dial
    text = party_file.with_peer(file.read_text(encoding="utf-8"), file, entry)
    authority.parent.mkdir(exist_ok=True)
    before = authority.read_bytes() if authority.exists() else None
    authority.write_text(card.authority, encoding="ascii")
    try:
        party_file.replace_checked(file, text)
    except BaseException:
        if before is None:
            authority.unlink()
        else:
            authority.write_bytes(before)
        raise
    return dial


def make_psi_key(file: Path, scheme: Scheme, bits: int | None = None, primes: int | None = None) -> tuple[Path, str]:
    """Make the key that a party signs ids with as the PSI signer, and name it in party.yaml.

    Parameters
    ----------
    file
        Its party.yaml.
    scheme
        What the key is for.
    bits, primes
        Length of an RSA modulus, and of how many primes it is; None for the scheme's default.

    Returns
    -------
    (Path, str)
        The key's file, and its id.

    Raises
    ------
    ConfigError
        There is one already: a new key makes every tag of the old one worthless, so that must be meant.
    KeyWeak
        It would be too short.
    """
    # Batch arithmetic needs NumPy, which a gateway's host need not have.
    from fedtasks.crypto.scheme import generate_key

    field, name = PSI_KEYS[scheme]
    named: Path | None = getattr(load_party(file), field)
    key = named or file.parent.absolute() / "keys" / name
    if key.exists():
        raise ConfigError("the key is there already and is never overwritten; move it away first", where=str(key))
    key_id = generate_key(scheme, key, bits, primes)
    if named is None:
        text = party_file.with_field(file.read_text(encoding="utf-8"), field, f"keys/{name}")
        party_file.replace_checked(file, text)
    return key, key_id
