"""Tickets: what one party lets the other do, signed by both; the only module that knows the claims' names.

A ticket is a JWS (RFC 7515) signed with Ed25519 (RFC 8037). The grantor issues it, the holder counter-signs it, the
grantor may revoke it. Whatever a ticket does not name is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedtasks.config import check_name, read_secret
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import (
    ConfigError,
    FedtasksError,
    FloorViolated,
    SignatureWrong,
    TicketExpired,
    TicketInvalid,
    TicketNotYetValid,
    TicketScope,
)

ROLES = ("leader", "follower", "signer", "client")
"""What a holder may be in a run."""

INTERSECTIONS = ("size", "client", "both")
"""Who may learn which people are shared, from least to most: nobody (only how many), the client of the PSI, or both."""

ANSWERS = ("nothing", "matched", "columns")
"""What a live lookup may be answered with, from least to most: nothing, whether the person is known, named columns."""

SCORES = ("leader", "both")
"""Who may learn the scores of rows, from least to most: the party with the label, or both."""

FIRST_TREES = ("leader", "both")
"""Whose features the first of boosted trees may split by, from least to most: those of the party with the label, which
then tells the other nothing of it, or both's."""

APPROVALS = ("automatic", "person")
"""Who lets a run begin: nobody is asked, or a person of the granting side says yes to the first run of its kind."""

ONLINE = "online_psi"
"""The pipeline that a ticket must name to let its holder look up live tags."""

MIN_KEY_BITS = 2048
"""No floor may be lower than this."""

_ALGORITHM = "EdDSA"
_TICKET = "fedtasks-ticket"
_ACCEPTANCE = "fedtasks-acceptance"
_REVOCATION = "fedtasks-revocation"
_RECEIPT = "fedtasks-receipt"

_TICKET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

# Grant's fields that have a registered name (RFC 7519); the others keep their own.
_CLAIMS = {"ticket_id": "jti", "grantor": "iss", "holder": "sub", "not_before_s": "nbf", "expires_s": "exp"}
_FIELDS = {claim: name for name, claim in _CLAIMS.items()}


# ------------------------------------------------------------------------------------------------------------ scope
@dataclass(frozen=True)
class DatasetScope:
    """One of the grantor's datasets.

    Parameters
    ----------
    name
        Its name in the grantor's party.yaml.
    schema_digest
        Its schema as granted (`fedtasks.config.Dataset.schema_digest`).
    columns
        The columns that may enter a run.
    """

    name: str
    schema_digest: str
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if not _SHA256.fullmatch(self.schema_digest):
            raise ConfigError("expected a SHA-256 in 64 lower-case hex digits", field="schema_digest")
        _check_set(self.columns, "columns")
        if not all(self.columns):
            raise ConfigError("a column's name cannot be empty", field="columns")


@dataclass(frozen=True)
class Limits:
    """How much may be used; None is no limit.

    Parameters
    ----------
    runs, concurrent_runs
        Over the ticket's life, and at any one time.
    epochs, trees
        In one run.
    ids_blinded, ids_blinded_per_day
        Blinded ids that may be signed over the ticket's life, and within any 24 hours.
    lookups, lookups_per_day
        Live tags that may be looked up, likewise.
    """

    runs: int | None = None
    concurrent_runs: int | None = 1
    epochs: int | None = None
    trees: int | None = None
    ids_blinded: int | None = None
    ids_blinded_per_day: int | None = None
    lookups: int | None = None
    lookups_per_day: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ConfigError("expected at least 1, or nothing for no limit", field=name)


@dataclass(frozen=True)
class Outputs:
    """Who may learn what comes out; a ticket can only say what the algorithms keep to: any other value is refused.

    Parameters
    ----------
    intersection
        The most that a run may reveal of who is shared, of `INTERSECTIONS`.
    metrics
        ``leader``: the party with the label.
    scores
        The most that may learn the scores of rows, of `SCORES`.
    answers
        The most that a live lookup may be answered with, of `ANSWERS`.
    answer_columns
        Columns whose values leave the house in such answers; only with ``columns``.
    """

    intersection: str = "both"
    metrics: str = "leader"
    scores: str = SCORES[0]
    answers: str = ANSWERS[0]
    answer_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choices = {"intersection": INTERSECTIONS, "metrics": ("leader",), "scores": SCORES, "answers": ANSWERS}
        for name, kept in choices.items():
            if getattr(self, name) not in kept:
                raise ConfigError(
                    f"`{getattr(self, name)}` cannot be kept to; this version knows {_listed(kept)}", field=name
                )
        check_answer_columns(self.answers, self.answer_columns, "answer_columns")


def check_answer_columns(policy: str, columns: tuple[str, ...], field_name: str) -> None:
    """Raise `ConfigError` unless columns are named exactly when the answers are ``columns``."""
    if policy == ANSWERS[-1]:
        _check_set(columns, field_name)
    elif columns:
        raise ConfigError(f"only answers of `{ANSWERS[-1]}` name columns", field=field_name)


@dataclass(frozen=True)
class Floor:
    """The privacy floor: no run may go below it.

    Parameters
    ----------
    key_bits
        Shortest key, RSA or Paillier.
    min_intersection
        Fewest people that both sides must share.
    min_leaf_rows
        Fewest rows in a leaf of a tree; a leaf of fewer would say too much about few people.
    first_tree
        Whose features the first tree may split by, of `FIRST_TREES`; ``both`` demands nothing.
    """

    key_bits: int = MIN_KEY_BITS
    min_intersection: int = 1
    min_leaf_rows: int = 1
    first_tree: str = FIRST_TREES[-1]

    def __post_init__(self) -> None:
        if self.key_bits < MIN_KEY_BITS:
            raise ConfigError(f"expected at least {MIN_KEY_BITS}", field="key_bits")
        for name in ("min_intersection", "min_leaf_rows"):
            if getattr(self, name) < 1:
                raise ConfigError("expected at least 1", field=name)
        if self.first_tree not in FIRST_TREES:
            raise ConfigError(f"`{self.first_tree}` is not one of: {', '.join(FIRST_TREES)}", field="first_tree")


@dataclass(frozen=True)
class Grant:
    """What a ticket says.

    Parameters
    ----------
    ticket_id
        Its name (`new_ticket_id`).
    grantor, holder
        Who grants, and who may use it.
    datasets
        The grantor's datasets that may be used.
    pipelines
        The pipelines that may run.
    roles
        What the holder may be in a run, of `ROLES`.
    not_before_s, expires_s
        Time window, seconds since the epoch: from the first, until before the second.
    limits, outputs, floor
        How much, who learns what, and what no run may go below.
    approval
        Whether a person of the grantor's is asked before a run begins, of `APPROVALS`; runs with the same steps and the
        same shared configuration are asked about once.

    Raises
    ------
    ConfigError
        Naming the field.
    """

    ticket_id: str
    grantor: str
    holder: str
    datasets: tuple[DatasetScope, ...]
    pipelines: tuple[str, ...]
    roles: tuple[str, ...]
    not_before_s: int
    expires_s: int
    limits: Limits = field(default_factory=Limits)
    outputs: Outputs = field(default_factory=Outputs)
    floor: Floor = field(default_factory=Floor)
    approval: str = APPROVALS[0]

    def __post_init__(self) -> None:
        if not _TICKET_ID.fullmatch(self.ticket_id):
            raise ConfigError("expected 1–64 letters, digits, `_` or `-`", field="ticket_id")
        check_name(self.grantor, "grantor")
        check_name(self.holder, "holder")
        if self.grantor == self.holder:
            raise ConfigError("a party cannot grant a ticket to itself", field="holder")
        _check_set([scope.name for scope in self.datasets], "datasets")
        _check_set(self.pipelines, "pipelines")
        for pipeline in self.pipelines:
            check_name(pipeline, "pipelines")
        _check_set(self.roles, "roles")
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown:
            raise ConfigError(f"`{unknown[0]}` is not one of: {', '.join(ROLES)}", field="roles")
        if self.not_before_s < 0:
            raise ConfigError("expected seconds since 1970", field="not_before_s")
        if self.expires_s <= self.not_before_s:
            raise ConfigError("must be later than `not_before_s`", field="expires_s")
        if self.approval not in APPROVALS:
            raise ConfigError(f"`{self.approval}` is not one of: {', '.join(APPROVALS)}", field="approval")

    @property
    def asks_for_a_person(self) -> bool:
        """Whether somebody must approve a run before it begins."""
        return self.approval == APPROVALS[-1]


def _check_set(values: Iterable[str], field_name: str) -> None:
    listed = list(values)
    if not listed:
        raise ConfigError("name at least one", field=field_name)
    for value in listed:
        if listed.count(value) > 1:
            raise ConfigError(f"`{value}` stands twice", field=field_name)


def new_ticket_id() -> str:
    """Return an id that no other ticket has."""
    return secrets.token_hex(8)


# ------------------------------------------------------------------------------------------------------- signatures
def issue(grant: Grant, key: Ed25519PrivateKey) -> str:
    """Sign a grant as its grantor; returns the ticket's text.

    Notes
    -----
    Reveals: everything in the grant, to the holder; it is signed, not encrypted.
    Source: RFC 7515 (JWS), RFC 8037 (EdDSA).
    """
    return _sign({_CLAIMS.get(name, name): value for name, value in to_plain(grant).items()}, key, _TICKET)


def read(token: str, grantor_public_key: Ed25519PublicKey) -> Grant:
    """Verify a ticket and return what it says; the time window and the scope are left to `check`.

    Raises
    ------
    TicketInvalid
        The signature, type or algorithm is wrong, or there is a header or a claim that this version does not know.
    """
    return _grant(_verify(token, grantor_public_key, _TICKET, TicketInvalid))


def _grant(claims: Mapping[str, Any]) -> Grant:
    # A field under its own name beside its registered one would overwrite it.
    named = {_FIELDS.get(claim, claim): value for claim, value in claims.items() if claim not in _CLAIMS}
    if len(named) != len(claims):
        raise TicketInvalid("an unknown claim")
    try:
        return build(Grant, named)
    except ConfigError as error:
        raise TicketInvalid(error.detail) from error


def peek(token: str) -> Grant:
    """Return what a ticket of the own store says without verifying it: to be shown, never to be relied on.

    Raises
    ------
    TicketInvalid
        It is no ticket, or has a claim that this version does not know.
    """
    try:
        return _grant(json.loads(_decoded(token.split(".")[1])))
    except (IndexError, ValueError, AttributeError) as error:
        raise TicketInvalid(f"not a ticket: {type(error).__name__}") from error


def accept(token: str, key: Ed25519PrivateKey, holder: str, now_s: float) -> str:
    """Counter-sign a ticket as its holder, after `read`.

    Raises
    ------
    TicketInvalid
        The ticket is for another holder.
    """
    _require_holder(token, holder)
    return _sign({"iss": holder, "iat": int(now_s), "ticket_sha256": _sha256(token)}, key, _ACCEPTANCE)


def verify_acceptance(acceptance: str, token: str, holder_public_key: Ed25519PublicKey) -> None:
    """Verify that the holder of `token` has counter-signed exactly this text.

    Raises
    ------
    TicketInvalid
        It has not.
    """
    claims = _verify(acceptance, holder_public_key, _ACCEPTANCE, TicketInvalid)
    _require_claims(claims, {"iss": str, "iat": int, "ticket_sha256": str})
    if claims["ticket_sha256"] != _sha256(token):
        raise TicketInvalid("the acceptance is of another ticket")
    _require_holder(token, claims["iss"])


def revoke(ticket_id: str, key: Ed25519PrivateKey, now_s: float, reason: str) -> str:
    """Withdraw a ticket as its grantor; the holder is shown the reason."""
    return _sign({"jti": ticket_id, "iat": int(now_s), "reason": reason}, key, _REVOCATION)


def verify_revocation(revocation: str, ticket_id: str, grantor_public_key: Ed25519PublicKey) -> str:
    """Verify that the grantor has withdrawn this ticket; returns its reason.

    Raises
    ------
    TicketInvalid
        It has not.
    """
    claims = _verify(revocation, grantor_public_key, _REVOCATION, TicketInvalid)
    _require_claims(claims, {"jti": str, "iat": int, "reason": str})
    if claims["jti"] != ticket_id:
        raise TicketInvalid("the revocation is of another ticket")
    return str(claims["reason"])


def sign_receipt(claims: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """Sign a party's account of a run."""
    return _sign(to_plain(claims), key, _RECEIPT)


def read_receipt(token: str, public_key: Ed25519PublicKey) -> dict[str, Any]:
    """Verify a receipt and return the account in it.

    Raises
    ------
    SignatureWrong
        It was not signed with this party's key, or is no receipt.
    """
    return _verify(token, public_key, _RECEIPT, SignatureWrong)


def _sign(claims: Mapping[str, Any], key: Ed25519PrivateKey, kind: str) -> str:
    payload = json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return jwt.PyJWS().encode(payload.encode(), key, _ALGORITHM, headers={"typ": kind})


def _verify(token: str, key: Ed25519PublicKey, kind: str, refusal: type[FedtasksError]) -> dict[str, Any]:
    """Return the claims of a signed text of this kind; raise `refusal` for anything else."""
    try:
        signed = jwt.PyJWS().decode_complete(token, key, algorithms=[_ALGORITHM])
        claims = json.loads(signed["payload"])
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise refusal(f"not a text signed with this key: {type(error).__name__}") from error
    header = signed["header"]
    if header.get("typ") != kind:
        raise refusal(f"expected the type {kind}")
    # Also refuses `crit`: no extension is understood, and a key in a header is never looked at.
    if header.keys() != {"alg", "typ"}:
        raise refusal("an unknown header")
    if not isinstance(claims, dict):
        raise refusal("the claims are not a JSON object")
    # One text, one digest: padding or spare bits would give a signed text a second spelling.
    if not all(_is_canonical(part) for part in token.split(".")):
        raise refusal("the text is not in its canonical spelling")
    return claims


def _is_canonical(part: str) -> bool:
    return base64.urlsafe_b64encode(_decoded(part)).decode().rstrip("=") == part


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _require_claims(claims: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    if claims.keys() != kinds.keys():
        raise TicketInvalid("a claim is missing or unknown")
    for name, kind in kinds.items():
        if not isinstance(claims[name], kind):
            raise TicketInvalid(f"the claim {name} is of the wrong type")


def _require_holder(token: str, holder: str) -> None:
    """Raise `TicketInvalid` unless the ticket, whose signature the caller has verified, names this holder."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise TicketInvalid("not a ticket") from error
    if claims.get("sub") != holder:
        raise TicketInvalid("the ticket is for another holder")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ checks
@dataclass(frozen=True)
class Request:
    """What a holder asks for; what is not known yet (None) is checked when it is.

    Parameters
    ----------
    holder, pipeline
        Who, and what is to run.
    grantor_dataset, schema_digest, columns
        Which of the grantor's datasets, as it is now, and what it would use of it.
    holder_role
        What the holder would be in the run.
    epochs, trees
        How much this run would use.
    key_bits, min_intersection, min_leaf_rows, first_tree
        The run's own settings, compared with the floor.
    learns, scores
        Who learns which people are shared, and the scores of rows; compared with `Outputs`.
    """

    holder: str
    pipeline: str
    grantor_dataset: str
    schema_digest: str
    columns: tuple[str, ...]
    holder_role: str
    epochs: int | None = None
    key_bits: int | None = None
    min_intersection: int | None = None
    learns: str = INTERSECTIONS[-1]
    trees: int | None = None
    min_leaf_rows: int | None = None
    first_tree: str = FIRST_TREES[0]
    scores: str = SCORES[0]


def check(grant: Grant, request: Request, now_s: float) -> None:
    """Refuse what a ticket does not cover.

    Raises
    ------
    TicketNotYetValid, TicketExpired
        Outside the time window.
    TicketScope, FloorViolated
        The field ``clause`` names what refused; ``asked`` and ``allowed`` are safe to show to the holder.

    Notes
    -----
    Limits over the ticket's life (runs, ids) need counting, which is the store's part.
    """
    check_window(grant, now_s)
    _require(request.holder == grant.holder, "holder", request.holder, grant.holder)
    _require(request.pipeline in grant.pipelines, "pipelines", request.pipeline, _listed(grant.pipelines))
    _check_dataset(grant, request)
    _require(request.holder_role in grant.roles, "roles", request.holder_role, _listed(grant.roles))
    for limit in ("epochs", "trees"):
        most, used = getattr(grant.limits, limit), getattr(request, limit)
        if most is not None and used is not None:
            _require(used <= most, f"limits.{limit}", used, most)
    bounded = INTERSECTIONS[: INTERSECTIONS.index(grant.outputs.intersection) + 1]
    _require(request.learns in bounded, "outputs.intersection", request.learns, _listed(bounded))
    bounded = SCORES[: SCORES.index(grant.outputs.scores) + 1]
    _require(request.scores in bounded, "outputs.scores", request.scores, _listed(bounded))
    for floor in ("key_bits", "min_intersection", "min_leaf_rows"):
        least, setting = getattr(grant.floor, floor), getattr(request, floor)
        if setting is not None and setting < least:
            raise FloorViolated(clause=f"floor.{floor}", asked=setting, allowed=least)
    if grant.floor.first_tree == FIRST_TREES[0] != request.first_tree:
        raise FloorViolated(clause="floor.first_tree", asked=request.first_tree, allowed=FIRST_TREES[0])


def check_lookup(
    grant: Grant, *, dataset: str, schema_digest: str, policy: str, columns: tuple[str, ...], now_s: float
) -> None:
    """Refuse a live lookup that a ticket does not cover.

    Parameters
    ----------
    dataset, schema_digest
        Which of the grantor's datasets, as it is now.
    policy, columns
        What the grantor's own service would answer with.

    Raises
    ------
    TicketNotYetValid, TicketExpired, TicketScope
        As `check`.
    """
    check_window(grant, now_s)
    _require(ONLINE in grant.pipelines, "pipelines", ONLINE, _listed(grant.pipelines))
    _require_schema(grant, dataset, schema_digest)
    bounded = ANSWERS[: ANSWERS.index(grant.outputs.answers) + 1]
    _require(policy in bounded, "outputs.answers", policy, _listed(bounded))
    others = [column for column in columns if column not in grant.outputs.answer_columns]
    _require(not others, "outputs.answer_columns", f"{len(others)} other", _listed(grant.outputs.answer_columns))


def check_window(grant: Grant, now_s: float) -> None:
    """Refuse a ticket before or after its time.

    Raises
    ------
    TicketNotYetValid, TicketExpired
        With the bound that was passed.
    """
    if now_s < grant.not_before_s:
        raise TicketNotYetValid(clause="not_before_s", asked=int(now_s), allowed=grant.not_before_s)
    if now_s >= grant.expires_s:
        raise TicketExpired(clause="expires_s", asked=int(now_s), allowed=grant.expires_s)


def _check_dataset(grant: Grant, request: Request) -> None:
    scope = _require_schema(grant, request.grantor_dataset, request.schema_digest)
    others = [column for column in request.columns if column not in scope.columns]
    if others:
        # The holder has no right to the names of columns that were not granted.
        raise TicketScope(
            f"columns outside the ticket: {_listed(others)}",
            clause=f"datasets.{scope.name}.columns",
            asked=f"{len(others)} other",
            allowed=_listed(scope.columns),
        )


def _require_schema(grant: Grant, dataset: str, schema_digest: str) -> DatasetScope:
    scopes = {scope.name: scope for scope in grant.datasets}
    scope = scopes.get(dataset)
    if scope is None:
        raise TicketScope(clause="datasets", asked=dataset, allowed=_listed(scopes))
    same_schema = schema_digest == scope.schema_digest
    _require(same_schema, f"datasets.{scope.name}.schema", schema_digest[:12] or "none", scope.schema_digest[:12])
    return scope


def _require(condition: bool, clause: str, asked: object, allowed: object) -> None:
    if not condition:
        raise TicketScope(clause=clause, asked=asked, allowed=allowed)


def _listed(names: Iterable[str]) -> str:
    return " ".join(names)


# -------------------------------------------------------------------------------------------------------------- keys
def generate_ticket_key() -> Ed25519PrivateKey:
    """Make a key that signs tickets and receipts."""
    return Ed25519PrivateKey.generate()


def save_ticket_key(key: Ed25519PrivateKey, path: Path) -> None:
    """Write a key as PEM that only its owner can read.

    Raises
    ------
    ConfigError
        The file exists already, or cannot be written.
    """
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        # The mode is set as the file comes to be: it is never readable by others.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("the file exists; a ticket key is never overwritten", where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"the key cannot be written: {error.strerror}", where=str(path)) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)


def load_ticket_key(path: Path) -> Ed25519PrivateKey:
    """Read a key that `save_ticket_key` wrote.

    Raises
    ------
    ConfigError
        The file is missing, readable by others, or holds no Ed25519 key.
    """
    pem = read_secret(path)
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("not a private key in PEM without a password", where=str(path)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("not an Ed25519 key", where=str(path))
    return key


def public_text(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """Return the public key as base64 of its 32 bytes, as party.yaml pins it."""
    return base64.b64encode(_public_bytes(key)).decode()


def public_from_text(text: str) -> Ed25519PublicKey:
    """Read what `public_text` wrote.

    Raises
    ------
    ConfigError
        It is not base64 of 32 bytes.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ConfigError("expected the base64 of an Ed25519 public key (44 characters)", field="ticket_key") from None


def fingerprint(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """Return 128 bits of the public key's SHA-256 in groups of four hex digits, to be read out over the telephone."""
    text = hashlib.sha256(_public_bytes(key)).hexdigest()[:32]
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def _public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes_raw()
