"""Certificates belong to one party only; cards carry what a peer needs and nothing secret."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedtasks import identity, tickets
from fedtasks.config import Peer
from fedtasks.errors import ConfigError, PeerIdentity

MAX_CARD = 16_000
"""How many bytes a card may have."""


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    identity.create_identity(tmp_path / "bank", "bank")
    return tmp_path / "bank"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    identity.create_identity(tmp_path / "shop", "shop")
    return tmp_path / "shop"


def peer_of(folder: Path, name: str) -> Peer:
    return Peer(name, folder / identity.AUTHORITY, "")


def card_of(folder: Path, name: str, address: str | None = None) -> identity.Card:
    key = tickets.load_ticket_key(folder / identity.TICKET_KEY)
    authority = (folder / identity.AUTHORITY).read_text(encoding="ascii")
    return identity.Card(name, tickets.public_text(key), authority, address)


def test_create_identity_keeps_secrets_to_their_owner(bank: Path) -> None:
    assert bank.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in bank.iterdir()}
    assert modes == {
        "authority.key": 0o600,
        "authority.pem": 0o644,
        "gateway.key": 0o600,
        "gateway.pem": 0o644,
        "ticket.key": 0o600,
        "worker.secret": 0o600,
    }


def test_create_identity_makes_a_certificate_for_both_directions(bank: Path) -> None:
    leaf = x509.load_pem_x509_certificate((bank / identity.CERTIFICATE).read_bytes())
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == identity.CERTIFICATE_DAYS
    assert identity.common_name(leaf) == "bank"


def test_create_identity_makes_two_parties_that_meet_over_tls_1_3(bank: Path, shop: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.verify_mode = ssl.CERT_REQUIRED
    for context, own, other in ((server, bank, shop), (client, shop, bank)):
        context.load_cert_chain(own / identity.CERTIFICATE, own / identity.CERTIFICATE_KEY)
        context.load_verify_locations(other / identity.AUTHORITY)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="bank.fedtasks"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[int] = set()
    for _ in range(6):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                continue
    assert done == {0, 1}
    assert ends[0].version() == "TLSv1.3"
    assert ends[1].getpeercert(binary_form=True) is not None


def test_create_identity_never_overwrites(bank: Path) -> None:
    before = {path.name: path.read_bytes() for path in bank.iterdir()}
    with pytest.raises(ConfigError, match="never overwritten"):
        identity.create_identity(bank, "bank")
    assert {path.name: path.read_bytes() for path in bank.iterdir()} == before


def test_create_identity_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tickets, "save_ticket_key", fail)
    with pytest.raises(OSError, match="disk full"):
        identity.create_identity(tmp_path / "keys", "bank")
    assert list(tmp_path.iterdir()) == []


def test_leaf_of_the_peer_is_accepted(bank: Path) -> None:
    identity.leaf_belongs_to((bank / identity.CERTIFICATE).read_bytes(), peer_of(bank, "bank"))


def test_leaf_after_renewal_is_accepted_under_the_same_authority(bank: Path) -> None:
    before = (bank / identity.CERTIFICATE).read_bytes()
    authority = (bank / identity.AUTHORITY).read_bytes()
    identity.renew_certificate(bank, "bank")
    after = (bank / identity.CERTIFICATE).read_bytes()
    assert after != before
    assert (bank / identity.AUTHORITY).read_bytes() == authority
    identity.leaf_belongs_to(after, peer_of(bank, "bank"))
    key = serialization.load_pem_private_key((bank / identity.CERTIFICATE_KEY).read_bytes(), None)
    assert key.public_key() == x509.load_pem_x509_certificate(after).public_key()


def test_leaf_of_another_authority_is_refused(bank: Path, shop: Path) -> None:
    with pytest.raises(PeerIdentity, match="not issued by the authority of shop"):
        identity.leaf_belongs_to((bank / identity.CERTIFICATE).read_bytes(), peer_of(shop, "shop"))


def test_leaf_with_a_stolen_name_under_the_own_authority_is_refused(bank: Path, shop: Path) -> None:
    # The shop's authority certifies itself as the bank: known to us, but not for that name.
    identity.renew_certificate(shop, "bank")
    stolen = (shop / identity.CERTIFICATE).read_bytes()
    with pytest.raises(PeerIdentity, match="not issued by the authority of bank"):
        identity.leaf_belongs_to(stolen, peer_of(bank, "bank"))
    with pytest.raises(PeerIdentity, match="does not say the name of shop"):
        identity.leaf_belongs_to(stolen, peer_of(shop, "shop"))


def test_authority_itself_is_not_a_leaf(bank: Path) -> None:
    with pytest.raises(PeerIdentity):
        identity.leaf_belongs_to((bank / identity.AUTHORITY).read_bytes(), peer_of(bank, "bank"))


@pytest.mark.parametrize("days", [-1, identity.CERTIFICATE_DAYS + 1, identity.AUTHORITY_DAYS + 1])
def test_leaf_outside_its_time_is_refused(bank: Path, days: int) -> None:
    when = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    with pytest.raises(PeerIdentity, match="is valid from"):
        identity.leaf_belongs_to((bank / identity.CERTIFICATE).read_bytes(), peer_of(bank, "bank"), when)


@pytest.mark.parametrize("leaf", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_leaf_that_is_no_certificate_is_refused(bank: Path, leaf: bytes) -> None:
    with pytest.raises(PeerIdentity, match="cannot be judged"):
        identity.leaf_belongs_to(leaf, peer_of(bank, "bank"))


def test_card_written_and_read_is_the_same(bank: Path, tmp_path: Path) -> None:
    card = card_of(bank, "bank", "gateway.bank.example:7400")
    identity.write_card(tmp_path / "bank.card.yaml", card)
    assert identity.read_card(tmp_path / "bank.card.yaml") == card


def test_card_holds_no_secret(bank: Path, tmp_path: Path) -> None:
    identity.write_card(tmp_path / "card.yaml", card_of(bank, "bank"))
    text = (tmp_path / "card.yaml").read_text(encoding="utf-8")
    assert "PRIVATE" not in text
    assert (bank / identity.WORKER_SECRET).read_text(encoding="ascii") not in text


def test_fingerprint_changes_with_every_part_of_the_card(bank: Path, shop: Path) -> None:
    ours, theirs = card_of(bank, "bank"), card_of(shop, "bank")
    mixed = [
        identity.Card("bank", ours.ticket_key, theirs.authority),
        identity.Card("bank", theirs.ticket_key, ours.authority),
        identity.Card("bunk", ours.ticket_key, ours.authority),
    ]
    assert len({ours.fingerprint, theirs.fingerprint, *(card.fingerprint for card in mixed)}) == 5


def test_fingerprint_covers_the_address(bank: Path) -> None:
    addresses = (None, "gateway.bank.example:7400", "gateway.bank.example:7401")
    assert len({card_of(bank, "bank", address).fingerprint for address in addresses}) == 3


def test_same_fingerprint_ignores_grouping_and_case(bank: Path) -> None:
    text = card_of(bank, "bank").fingerprint
    assert identity.same_fingerprint(text, text.replace(" ", "-").upper())
    assert not identity.same_fingerprint(text, text[:-1])


def besides(bank: Path, shop: Path) -> dict[str, str]:
    """Return texts that hold the bank's authority and something else."""
    ours, theirs = ((folder / identity.AUTHORITY).read_text(encoding="ascii") for folder in (bank, shop))
    key = (shop / identity.AUTHORITY_KEY).read_text(encoding="ascii")
    return {
        "a second authority": ours + theirs,
        "a second authority before it": theirs + ours,
        "a second authority on its last line": ours.rstrip() + theirs,
        "the same twice": ours * 2,
        "a key": ours + key,
        "words behind it": ours + "bank",
        "words before it": "subject=bank\n" + ours,
        "another object": ours + "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        "trusted of OpenSSL's": ours.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        "more than a card may have": " " * MAX_CARD + ours,
    }


def test_card_with_more_than_one_certificate_is_refused(bank: Path, shop: Path) -> None:
    for text in besides(bank, shop).values():
        with pytest.raises(ConfigError, match="exactly one"):
            identity.Card("bank", card_of(bank, "bank").ticket_key, text)


def test_authority_file_with_more_than_one_certificate_is_trusted_by_nobody(bank: Path, shop: Path) -> None:
    leaf = (bank / identity.CERTIFICATE).read_bytes()
    texts = besides(bank, shop)
    for what, text in texts.items():
        (bank / identity.AUTHORITY).write_text(text, encoding="ascii")
        with pytest.raises(ConfigError, match=r"exactly one.*compare its fingerprint again"):
            identity.trusted_authority(bank / identity.AUTHORITY)
        with pytest.raises(PeerIdentity):
            identity.leaf_belongs_to(leaf, peer_of(bank, "bank"))
        assert what


def test_authority_is_kept_as_it_was_read_however_it_was_written(bank: Path) -> None:
    honest = card_of(bank, "bank")
    for written in (honest.authority.replace("\n", "\r\n"), f"\n {honest.authority}\n\n", honest.authority.strip()):
        assert identity.Card("bank", honest.ticket_key, written) == honest
    (bank / identity.AUTHORITY).write_text(f"\n{honest.authority}\n", encoding="ascii")
    assert identity.trusted_authority(bank / identity.AUTHORITY).decode() == honest.authority


def test_authority_with_bytes_behind_its_certificate_is_refused(bank: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert((bank / identity.AUTHORITY).read_text(encoding="ascii"))
    with pytest.raises(ConfigError, match="not a certificate"):
        identity.parse_authority(ssl.DER_cert_to_PEM_cert(der + b"\0"))


@pytest.mark.parametrize("length", [1000, MAX_CARD + 1])
def test_card_that_refers_to_itself_or_is_too_long_is_refused_at_once(tmp_path: Path, length: int) -> None:
    file = tmp_path / "card.yaml"
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 7))
    file.write_text(f"name: bank\na0: &a0 [x]\n{levels}\n".ljust(length, "#"), encoding="utf-8")
    began = time.process_time()
    with pytest.raises(ConfigError, match="longer than" if length > MAX_CARD else "aliases"):
        identity.read_card(file)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("address", "2001-99-99 1:1", "a space"),
        ("address", "gateway\x1b[2J:1", "cannot be shown"),
        ("address", "g" * 300 + ":1", "longer than"),
        ("ticket_key", "abc", "base64 of an Ed25519 public key"),
        ("authority", "hello", "not a certificate in PEM"),
        ("name", "The Bank", "is not a name"),
        ("address", "nowhere", "is not host:port"),
    ],
)
def test_card_with_a_wrong_field_is_refused(bank: Path, field: str, value: str, words: str) -> None:
    good = card_of(bank, "bank")
    with pytest.raises(ConfigError, match=words):
        identity.Card(**{**vars(good), field: value})


def test_card_with_a_leaf_for_an_authority_is_refused(bank: Path) -> None:
    leaf = (bank / identity.CERTIFICATE).read_text(encoding="ascii")
    with pytest.raises(ConfigError, match="is not an authority's"):
        identity.Card("bank", card_of(bank, "bank").ticket_key, leaf)
