"""Signed texts: tickets, answers to them, revocations and receipts; the only module that knows the claims' names.

A ticket is a JWS (RFC 7515) signed with Ed25519 (RFC 8037). The grantor issues it, the holder counter-signs or declines
it, the grantor may revoke it. Whatever a ticket does not name is refused. A text is measured before it is read, and so
is each number in it before it becomes one: who may sign is not for that reason trusted with this party's time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ConfigError, FedtasksError, SignatureWrong, TicketInvalid
from fedtasks.text import plain_text
from fedtasks.tickets.clauses import Group, clauses
from fedtasks.tickets.grant import Grant

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ALGORITHM = "EdDSA"
_TICKET = "fedtasks-ticket"
_ACCEPTANCE = "fedtasks-acceptance"
_DECLINATION = "fedtasks-declination"
_REVOCATION = "fedtasks-revocation"
_CUT = "fedtasks-audit-cut"
_RECEIPT = "fedtasks-receipt"
_AUDIT = "fedtasks-audit"

# Grant's fields that have a registered name (RFC 7519); the others keep their own.
_CLAIMS = {"ticket_id": "jti", "grantor": "iss", "holder": "sub", "not_before_s": "nbf", "expires_s": "exp"}
_FIELDS = {claim: name for name, claim in _CLAIMS.items()}

MAX_TICKET = 64_000
"""How many characters a ticket may have."""

_MAX_STATEMENT, _MAX_RECEIPT, _MAX_DIGITS = 8_000, 1_000_000, 40


def issue(grant: Grant, key: Ed25519PrivateKey) -> str:
    """Sign a grant as its grantor; returns the ticket's text.

    Raises
    ------
    ConfigError
        It says more than one ticket may.

    Notes
    -----
    Reveals: everything in the grant, to the holder; it is signed, not encrypted.
    Source: RFC 7515 (JWS), RFC 8037 (EdDSA).
    """
    plain = {**to_plain(grant), **{group.value: {} for group in Group}}
    for name, clause in clauses().items():
        bound = grant.bound(name)
        # What demands nothing is not written: so a party without the algorithm whose clause it is can read the ticket.
        if bound != clause.default or clause.demands(bound):
            plain[clause.group.value][clause.field] = to_plain(bound)
    text = _sign({_CLAIMS.get(name, name): value for name, value in plain.items()}, key, _TICKET)
    if len(text) > MAX_TICKET:
        problem = f"{len(text):,} characters, of which a ticket has at most {MAX_TICKET:,}"
        raise ConfigError(f"{problem}: grant fewer columns or pipelines in one", field="datasets")
    return text


def read(token: str, grantor_public_key: Ed25519PublicKey) -> Grant:
    """Verify a ticket and return what it says; the time window and the scope are left to `check_request`.

    Raises
    ------
    TicketInvalid
        The signature, type or algorithm is wrong, there is a header or a claim that this version does not know, or a
        claim says more or other than a ticket may.
    """
    return _grant(_verify(token, grantor_public_key, _TICKET, TicketInvalid, MAX_TICKET))


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
    """Return what a ticket of this party's store says without verifying it: to be shown, never to be relied on.

    Raises
    ------
    TicketInvalid
        It is no ticket, or has a claim that this version does not know.
    """
    if len(token) > MAX_TICKET:
        raise TicketInvalid(f"longer than the {MAX_TICKET:,} characters that a ticket may have")
    try:
        return _grant(_parsed(_decoded(token.split(".")[1])))
    except (IndexError, ValueError, AttributeError, RecursionError) as error:
        raise TicketInvalid(f"not a ticket: {type(error).__name__}") from error


def peek_reason(signed: str) -> str:
    """Return why a stored ticket was revoked or declined, unverified: both are verified before they are stored."""
    try:
        return plain_text(str(_parsed(_decoded(signed.split(".")[1])).get("reason", "")))
    except (IndexError, ValueError, AttributeError, RecursionError):
        return ""


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
    _require_answer_to(token, claims)


def decline(token: str, key: Ed25519PrivateKey, holder: str, now_s: float, reason: str) -> str:
    """Refuse a ticket as its holder, after `read`; the grantor is shown the reason.

    Raises
    ------
    TicketInvalid
        The ticket is for another holder.
    """
    _require_holder(token, holder)
    claims = {"iss": holder, "iat": int(now_s), "ticket_sha256": _sha256(token), "reason": plain_text(reason)}
    return _sign(claims, key, _DECLINATION)


def verify_declination(declination: str, token: str, holder_public_key: Ed25519PublicKey) -> str:
    """Verify that the holder of `token` has declined exactly this text; returns its reason, as it may be shown.

    Raises
    ------
    TicketInvalid
        It has not.
    """
    claims = _verify(declination, holder_public_key, _DECLINATION, TicketInvalid)
    _require_claims(claims, {"iss": str, "iat": int, "ticket_sha256": str, "reason": str})
    _require_answer_to(token, claims)
    return plain_text(claims["reason"])


def revoke(ticket_id: str, key: Ed25519PrivateKey, now_s: float, reason: str) -> str:
    """Withdraw a ticket as its grantor; the holder is shown the reason."""
    return _sign({"jti": ticket_id, "iat": int(now_s), "reason": plain_text(reason)}, key, _REVOCATION)


def verify_revocation(revocation: str, ticket_id: str, grantor_public_key: Ed25519PublicKey) -> str:
    """Verify that the grantor has withdrawn this ticket; returns its reason, as it may be shown.

    Raises
    ------
    TicketInvalid
        It has not.
    """
    claims = _verify(revocation, grantor_public_key, _REVOCATION, TicketInvalid)
    _require_claims(claims, {"jti": str, "iat": int, "reason": str})
    if claims["jti"] != ticket_id:
        raise TicketInvalid("the revocation is of another ticket")
    return plain_text(claims["reason"])


def sign_cut(claims: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """Sign up to where a party has cut off the beginning of its audit."""
    return _sign(claims, key, _CUT)


def read_cut(token: str, public_key: Ed25519PublicKey) -> dict[str, Any]:
    """Verify what a party says that it has cut off, and return it.

    Raises
    ------
    SignatureWrong
        It was not signed with this party's key, or is something else.
    """
    return _verify(token, public_key, _CUT, SignatureWrong)


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
    return _verify(token, public_key, _RECEIPT, SignatureWrong, _MAX_RECEIPT)


def sign_audit(claims: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """Sign what a party's exported audit ends with."""
    return _sign(claims, key, _AUDIT)


def read_audit(token: str, public_key: Ed25519PublicKey) -> dict[str, Any]:
    """Verify what an exported audit ends with and return it.

    Raises
    ------
    SignatureWrong
        It was not signed with this party's key, or is something else.
    """
    return _verify(token, public_key, _AUDIT, SignatureWrong)


def signed_at_s(token: str) -> int:
    """Return when a signed text that the caller has verified says that it was signed."""
    return int(_parsed(_decoded(token.split(".")[1])).get("iat", 0))


def _sign(claims: Mapping[str, Any], key: Ed25519PrivateKey, kind: str) -> str:
    import jwt  # with cryptography, most of what a list of runs would import; it verifies nothing

    payload = json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return jwt.PyJWS().encode(payload.encode(), key, _ALGORITHM, headers={"typ": kind})


def _verify(
    token: str, key: Ed25519PublicKey, kind: str, refusal: type[FedtasksError], most: int = _MAX_STATEMENT
) -> dict[str, Any]:
    """Return the claims of a signed text of this kind; raise `refusal` for anything else."""
    import jwt

    if len(token) > most:
        raise refusal(f"longer than the {most:,} characters that it may have")
    try:
        signed = jwt.PyJWS().decode_complete(token, key, algorithms=[_ALGORITHM])
        claims = _parsed(signed["payload"])
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


def _parsed(payload: bytes) -> Any:
    """Return what JSON says; raise ValueError for numbers that are too long or none, and for names that stand twice."""
    return json.loads(
        payload,
        parse_int=lambda text: int(_measured(text)),
        parse_float=lambda text: _finite(float(_measured(text))),
        parse_constant=lambda text: _finite(float(text)),
        object_pairs_hook=_once,
    )


def _measured(text: str) -> str:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number of too many digits")
    return text


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("no number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


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


def _require_answer_to(token: str, claims: Mapping[str, Any]) -> None:
    """Raise `TicketInvalid` unless these claims of its holder are about exactly this ticket."""
    if claims["ticket_sha256"] != _sha256(token):
        raise TicketInvalid("the answer is to another ticket")
    _require_holder(token, claims["iss"])


def _require_holder(token: str, holder: str) -> None:
    """Raise `TicketInvalid` unless the ticket, whose signature the caller has verified, names this holder."""
    if peek(token).holder != holder:
        raise TicketInvalid("the ticket is for another holder")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
