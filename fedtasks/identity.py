"""A party's keys, and the card by which its peers come to know them.

Each party is its own certificate authority: what a peer trusts is that authority for that one name, so nobody else can
speak as this party and renewing the gateway's certificate asks nothing of the peers. A text that says who is trusted
holds exactly one certificate, and what is trusted is written out again from what was read: what two people compare,
what is kept and what TLS goes by are the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtasks import durable, tickets
from fedtasks.config import Peer, check_name, split_address
from fedtasks.dataclass_io import build, check_text, read_yaml
from fedtasks.errors import ConfigError, PeerIdentity

AUTHORITY_KEY, AUTHORITY = "authority.key", "authority.pem"
CERTIFICATE_KEY, CERTIFICATE = "gateway.key", "gateway.pem"
TICKET_KEY = "ticket.key"
WORKER_SECRET = "worker.secret"

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825
"""The longest that TLS stacks accept without complaint."""

MAX_CARD = 16_000
"""How many bytes a card may have, and a certificate."""

MAX_ADDRESS = 261
"""The longest name of a host, a colon and a port."""

_ONE_CERTIFICATE = re.compile(
    r"\s*-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+?)\s*-----END CERTIFICATE-----\s*", re.ASCII
)

# What the parser raises on certificates that others have made, besides ValueError.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

_BACKDATED = timedelta(hours=1)  # a peer's clock may be behind ours


@dataclass(frozen=True)
class Card:
    """What a peer must know of a party; all of it is public.

    Parameters
    ----------
    name
        The party's name.
    ticket_key
        Its Ed25519 public key, base64.
    authority
        Its certificate authority, PEM: exactly one certificate, written out again from what was read.
    address
        Its gateway's ``host:port``; without it that party dials.

    Raises
    ------
    ConfigError
        Naming the field that is wrong.
    """

    name: str
    ticket_key: str
    authority: str
    address: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.address is not None:
            check_text(self.address, "address", MAX_ADDRESS)
            if " " in self.address:
                raise ConfigError("a space stands in it", field="address")
            split_address(self.address, "address")
        tickets.public_from_text(self.ticket_key)
        object.__setattr__(self, "authority", _pem(parse_authority(self.authority)).decode())

    @property
    def fingerprint(self) -> str:
        """128 bits over all that the card says, in groups that two people can read to each other."""
        authority = parse_authority(self.authority).public_bytes(serialization.Encoding.DER)
        parts = [self.name.encode(), authority, self.ticket_key.encode()]
        if self.address is not None:
            parts.append(self.address.encode())
        hasher = hashlib.sha256(b"fedtasks card")
        for part in parts:
            hasher.update(len(part).to_bytes(4, "big") + part)
        text = hasher.hexdigest()[:32]
        return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def parse_authority(text: str) -> x509.Certificate:
    """Read the one certificate of an authority.

    Raises
    ------
    ConfigError
        There is anything else in the text: another certificate, a key, words before or behind it; or it is no
        authority's.
    """
    found = _ONE_CERTIFICATE.fullmatch(text) if len(text) <= MAX_CARD else None
    if found is None:
        wanted = "exactly one, from BEGIN CERTIFICATE to END CERTIFICATE, and nothing else"
        raise ConfigError(f"not a certificate in PEM: expected {wanted}", field="authority")
    try:
        der = base64.b64decode("".join(found[1].split()), validate=True)
        authority = x509.load_der_x509_certificate(der)
        is_authority = _is_authority(authority)
    except (binascii.Error, *_UNREADABLE) as error:
        raise ConfigError("not a certificate in PEM", field="authority") from error
    if not is_authority:
        raise ConfigError("this certificate is not an authority's", field="authority")
    return authority


def read_authority(path: Path) -> x509.Certificate:
    """Read the file of an authority, a peer's or this party's.

    Raises
    ------
    ConfigError
        It cannot be read, or does not hold exactly one certificate, which is an authority's.
    """
    try:
        with path.open("rb") as file:
            return parse_authority(file.read(MAX_CARD + 1).decode("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the authority cannot be read: {error}", where=str(path)) from error
    except ConfigError as error:
        remedy = "if it is a peer's, compare its fingerprint again and add its card anew: `fedtasks peer add`"
        raise ConfigError(f"{error.detail}; {remedy}", where=str(path)) from error


def trusted_authority(path: Path) -> bytes:
    """Return the authority of a file as TLS may trust it: PEM, written out again from the one certificate in it.

    Raises
    ------
    ConfigError
        As `read_authority`.
    """
    return _pem(read_authority(path))


def same_fingerprint(ours: str, theirs: str) -> bool:
    """Whether two fingerprints are equal, however people grouped or typed them."""
    plain = ("".join(sign for sign in text.lower() if sign.isalnum()) for text in (ours, theirs))
    return secrets.compare_digest(*(text.encode() for text in plain))


def create_identity(folder: Path, name: str) -> None:
    """Make all keys of a party: own authority, gateway certificate, ticket key and worker secret.

    Parameters
    ----------
    folder
        Appears complete or not at all, readable by its owner only.
    name
        The party's name; common name of the certificate, which is also valid for ``<name>.fedtasks``.

    Raises
    ------
    ConfigError
        The folder is there already: keys are never overwritten.
    """
    check_name(name, "name")
    if folder.exists():
        raise ConfigError("keys are there already and are never overwritten", where=str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # mode 0700
    try:
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _authority(name, authority_key)
        _write_key(partial / AUTHORITY_KEY, authority_key)
        _write(partial / AUTHORITY, authority.public_bytes(serialization.Encoding.PEM), 0o644)
        _write_certificate(partial, name, authority, authority_key)
        tickets.save_ticket_key(tickets.generate_ticket_key(), partial / TICKET_KEY)
        _write(partial / WORKER_SECRET, secrets.token_urlsafe(32).encode(), 0o600)
        durable.replace(partial, folder)
        durable.sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def renew_certificate(folder: Path, name: str) -> None:
    """Make a new gateway key and certificate under the same authority; peers notice nothing.

    Raises
    ------
    ConfigError
        The authority's key is not in `folder`.
    """
    authority = read_authority(folder / AUTHORITY)
    try:
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the authority's key cannot be read: {error}", where=str(folder)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("the authority's key is not an EC key", where=str(folder / AUTHORITY_KEY))
    _write_certificate(folder, name, authority, key)


def write_card(path: Path, card: Card) -> None:
    """Write a card as YAML."""
    head = "# Public. Hand this file to the other party, who adds it with `fedtasks peer add`,\n"
    head += f"# and compare this fingerprint by telephone: {card.fingerprint}\n"
    plain = {"name": card.name, "address": card.address, "ticket_key": card.ticket_key, "authority": card.authority}
    body = yaml.dump({key: value for key, value in plain.items() if value}, Dumper=_Blocks, sort_keys=False)
    _write(path, (head + body).encode(), 0o644)


def read_card(path: Path) -> Card:
    """Read a card.

    Raises
    ------
    ConfigError
        Naming the line and the field that is wrong.
    """
    plain, lines = read_yaml(path, MAX_CARD)
    return build(Card, plain, lines)


def leaf_belongs_to(leaf_pem: bytes, peer: Peer, now: datetime | None = None) -> None:
    """Check that a certificate is the one of `peer`, and not merely one of some known authority.

    Parameters
    ----------
    leaf_pem
        The certificate that the TLS layer saw, PEM.
    peer
        Whom it must belong to.
    now
        The time to judge its validity by; by default the clock's.

    Raises
    ------
    PeerIdentity
        Naming what is wrong with it.
    """
    now = now or datetime.now(UTC)
    try:
        leaf = x509.load_pem_x509_certificate(leaf_pem)
        authority = read_authority(peer.authority)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_authority = _is_authority(leaf)
    except (ConfigError, x509.ExtensionNotFound, *_UNREADABLE) as error:
        raise PeerIdentity(f"the certificate of {peer.name} cannot be judged: {error}") from error
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise PeerIdentity(f"the certificate was not issued by the authority of {peer.name}") from error
    for kind, certificate in (("certificate", leaf), ("authority", authority)):
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise PeerIdentity(
                f"the {kind} of {peer.name} is valid from {certificate.not_valid_before_utc:%Y-%m-%d}"
                f" to {certificate.not_valid_after_utc:%Y-%m-%d} only"
            )
    if is_authority:
        raise PeerIdentity(f"{peer.name} presents an authority, not a gateway's certificate")
    if common_name(leaf) != peer.name or names.get_values_for_type(x509.DNSName) != [f"{peer.name}.fedtasks"]:
        raise PeerIdentity(f"the certificate does not say the name of {peer.name}")


def valid_until(path: Path) -> int:
    """Return when a certificate ends, in milliseconds since the epoch; of several in one file, that which ends first.

    Raises
    ------
    ConfigError
        The file is missing, or no certificate.
    """
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, *_UNREADABLE) as error:
        raise ConfigError("not a certificate in PEM", where=str(path)) from error
    return min(int(certificate.not_valid_after_utc.timestamp() * 1000) for certificate in certificates)


def common_name(certificate: x509.Certificate) -> str:
    """Return the one common name of a certificate, empty when there are none or several."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _authority(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} fedtasks CA")])
    builder = _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(for_authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


def _write_certificate(
    folder: Path, name: str, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = _builder(subject, authority.subject, key.public_key(), CERTIFICATE_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(for_authority=False), critical=True)
    builder = builder.add_extension(purposes, critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{name}.fedtasks")]), critical=False)
    builder = builder.add_extension(issuer_key, critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    _write_key(folder / CERTIFICATE_KEY, key)
    _write(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - _BACKDATED
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))


def _usage(*, for_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not for_authority,
        key_cert_sign=for_authority,
        crl_sign=for_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(encoding, form, serialization.NoEncryption()), 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write by rename; the file never exists with wider permissions than `mode`."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    durable.replace(partial, path)
    durable.sync(path.parent)


class _Blocks(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that a PEM reads like a PEM."""


def _block(dumper: _Blocks, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _block)
