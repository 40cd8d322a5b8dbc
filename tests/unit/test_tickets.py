"""Tickets: signatures that nobody can bend, and refusals that name their clause."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.config import Dataset, FeatureType
from fedtasks.errors import (
    ConfigError,
    FloorViolated,
    SignatureWrong,
    TicketError,
    TicketExpired,
    TicketInvalid,
    TicketNotYetValid,
    TicketScope,
)
from fedtasks.tickets import (
    APPROVALS,
    FIRST_TREES,
    INTERSECTIONS,
    ROLES,
    SCORES,
    DatasetScope,
    Floor,
    Grant,
    Limits,
    Outputs,
    Request,
    accept,
    check,
    check_window,
    fingerprint,
    generate_ticket_key,
    issue,
    load_ticket_key,
    new_ticket_id,
    public_from_text,
    public_text,
    read,
    read_receipt,
    revoke,
    save_ticket_key,
    sign_receipt,
    verify_acceptance,
    verify_revocation,
)

GRANTOR = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HOLDER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
SCHEMA = Dataset("loans", "loans.parquet", "id", {"age": FeatureType.NUMERIC}).schema_digest

GRANT = Grant(
    ticket_id="t-1",
    grantor="bank",
    holder="shop",
    datasets=(DatasetScope("loans", SCHEMA, ("age", "amount")), DatasetScope("cards", "0" * 64, ("limit",))),
    pipelines=("credit_retrain",),
    roles=("follower", "client"),
    not_before_s=1000,
    expires_s=2000,
    limits=Limits(runs=3, epochs=10, trees=20),
    floor=Floor(key_bits=3072, min_intersection=50, min_leaf_rows=30, first_tree="leader"),
)
REQUEST = Request(
    "shop", "credit_retrain", "loans", SCHEMA, ("age",), "follower", 10, 3072, 50, trees=20, min_leaf_rows=30
)
TOKEN = issue(GRANT, GRANTOR)


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signed(header: dict[str, Any], payload: bytes, key: Ed25519PrivateKey = GRANTOR) -> str:
    """Sign by hand, so that no library's own checks stand between the test and the module."""
    text = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{text}.{b64(key.sign(text.encode()))}"


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(unb64(token.split(".")[1]))
    return claims


HEADER = {"alg": "EdDSA", "typ": "fedtasks-ticket"}

names = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
name_sets = st.lists(names, min_size=1, max_size=3, unique=True).map(tuple)
limits = st.none() | st.integers(1, 2**40)


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    grantor, holder = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    not_before_s = draw(st.integers(0, 2**33))
    digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
    columns = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=3, unique=True)
    return Grant(
        ticket_id=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)),
        grantor=grantor,
        holder=holder,
        datasets=tuple(DatasetScope(name, draw(digests), tuple(draw(columns))) for name in draw(name_sets)),
        pipelines=draw(name_sets),
        roles=tuple(draw(st.lists(st.sampled_from(ROLES), min_size=1, unique=True))),
        not_before_s=not_before_s,
        expires_s=not_before_s + draw(st.integers(1, 2**33)),
        limits=Limits(*(draw(limits) for _ in dataclasses.fields(Limits))),
        outputs=Outputs(draw(st.sampled_from(INTERSECTIONS)), scores=draw(st.sampled_from(SCORES))),
        floor=Floor(
            draw(st.integers(2048, 8192)),
            draw(st.integers(1, 2**40)),
            draw(st.integers(1, 2**40)),
            draw(st.sampled_from(FIRST_TREES)),
        ),
        approval=draw(st.sampled_from(APPROVALS)),
    )


# ------------------------------------------------------------------------------------------------------- signatures
@pytest.mark.parametrize(("approval", "asks"), [("automatic", False), ("person", True)])
def test_grant_says_whether_a_person_is_asked(approval: str, asks: bool) -> None:
    assert dataclasses.replace(GRANT, approval=approval).asks_for_a_person is asks


@given(grants())
def test_ticket_issued_and_read_is_the_same_grant(grant: Grant) -> None:
    assert read(issue(grant, GRANTOR), GRANTOR.public_key()) == grant


def test_ticket_is_a_jws_with_registered_claims() -> None:
    header, payload, signature = (unb64(part) for part in TOKEN.split("."))
    assert json.loads(header) == HEADER
    assert {"jti": "t-1", "iss": "bank", "sub": "shop", "nbf": 1000, "exp": 2000}.items() <= json.loads(payload).items()
    GRANTOR.public_key().verify(signature, TOKEN.rpartition(".")[0].encode())


def test_ticket_with_any_character_changed_is_refused() -> None:
    for position, old in enumerate(TOKEN):
        for new in {"A", "B", "_", "=", ".", "!"} - {old}:
            with pytest.raises(TicketInvalid):
                read(TOKEN[:position] + new + TOKEN[position + 1 :], GRANTOR.public_key())


def test_ticket_with_spare_bits_set_in_a_part_is_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    second_spelling = TOKEN[:-1] + alphabet[alphabet.index(TOKEN[-1]) + 1]
    assert unb64(second_spelling.split(".")[2]) == unb64(TOKEN.split(".")[2])
    with pytest.raises(TicketInvalid):
        read(second_spelling, GRANTOR.public_key())


@pytest.mark.parametrize("ending", ["=", "==", "\n", " ", ".", ".A"])
def test_ticket_with_something_after_it_is_refused(ending: str) -> None:
    with pytest.raises(TicketInvalid):
        read(TOKEN + ending, GRANTOR.public_key())


@given(st.text() | st.lists(st.binary().map(b64), min_size=1, max_size=4).map(".".join))
def test_ticket_of_arbitrary_text_is_refused(text: str) -> None:
    with pytest.raises(TicketInvalid):
        read(text, GRANTOR.public_key())


def test_ticket_with_deeply_nested_header_is_refused() -> None:
    header = b64(b"[" * 200_000)
    with pytest.raises(TicketInvalid):
        read(f"{header}.{TOKEN.partition('.')[2]}", GRANTOR.public_key())


def test_ticket_signed_by_another_key_is_refused() -> None:
    with pytest.raises(TicketInvalid):
        read(issue(GRANT, HOLDER), GRANTOR.public_key())


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
def test_ticket_with_algorithm_none_is_refused(alg: str) -> None:
    header = b64(json.dumps({**HEADER, "alg": alg}).encode())
    payload, signature = TOKEN.split(".")[1:]
    for ending in ("", signature):
        with pytest.raises(TicketInvalid):
            read(f"{header}.{payload}.{ending}", GRANTOR.public_key())


def test_ticket_with_public_key_as_hmac_secret_is_refused() -> None:
    public = GRANTOR.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, public.public_bytes_raw(), public_text(public).encode()):
        text = f"{b64(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{TOKEN.split('.')[1]}"
        token = f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}"
        with pytest.raises(TicketInvalid):
            read(token, public)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "EdDSA", "typ": "JWT"},
        {"alg": "EdDSA", "typ": "fedtasks-receipt"},
        {"alg": "EdDSA"},
        {**HEADER, "crit": ["exp"], "exp": 1},
        {**HEADER, "crit": ["b64"], "b64": True},
        {**HEADER, "crit": []},
        {**HEADER, "kid": "another"},
        {**HEADER, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(HOLDER.public_key().public_bytes_raw())}},
        {**HEADER, "alg": "Ed448"},
        {**HEADER, "alg": ["EdDSA"]},
    ],
)
def test_ticket_with_wrong_or_unknown_header_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(TicketInvalid):
        read(signed(header, unb64(TOKEN.split(".")[1])), GRANTOR.public_key())


def test_ticket_with_detached_payload_is_refused() -> None:
    payload = unb64(TOKEN.split(".")[1])
    header = b64(json.dumps({**HEADER, "b64": False, "crit": ["b64"]}).encode())
    signature = GRANTOR.sign(header.encode() + b"." + payload)
    with pytest.raises(TicketInvalid):
        read(f"{header}..{b64(signature)}", GRANTOR.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"admin": True},
        {"crit": ["admin"]},
        {"ticket_id": "t-2"},
        {"holder": "mallory"},
        {"nbf": "1000"},
        {"exp": 1.5e3},
        {"exp": True},
        {"exp": 999},
        {"sub": "bank"},
        {"roles": ["admin"]},
        {"roles": "follower"},
        {"roles": []},
        {"datasets": []},
        {"datasets": [{"name": "loans", "schema_digest": SCHEMA, "columns": ["age"], "rows": 5}]},
        {"limits": {"runs": 0}},
        {"limits": {"rows": 3}},
        {"limits": {"trees": 0}},
        {"limits": {"ids_blinded": 0}},
        {"limits": {"ids_blinded_per_day": "9"}},
        {"floor": {"key_bits": 1024}},
        {"floor": {"min_leaf_rows": 0}},
        {"floor": {"first_tree": "follower"}},
        {"outputs": {"intersection": "everyone"}},
        {"outputs": {"scores": "follower"}},
        {"approval": "never"},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_ticket_with_unknown_or_wrong_claim_is_refused(change: dict[str, Any]) -> None:
    token = signed(HEADER, json.dumps({**claims_of(TOKEN), **change}).encode())
    with pytest.raises(TicketInvalid) as caught:
        read(token, GRANTOR.public_key())
    assert caught.value.detail


@pytest.mark.parametrize("claim", ["jti", "iss", "sub", "nbf", "exp", "datasets", "pipelines", "roles"])
def test_ticket_without_a_required_claim_is_refused(claim: str) -> None:
    claims = claims_of(TOKEN)
    del claims[claim]
    with pytest.raises(TicketInvalid):
        read(signed(HEADER, json.dumps(claims).encode()), GRANTOR.public_key())


@pytest.mark.parametrize("payload", [b"", b"[]", b'"text"', b"{", b"\xff", b"[" * 200_000], ids=len)
def test_ticket_whose_payload_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(TicketInvalid):
        read(signed(HEADER, payload), GRANTOR.public_key())


# ------------------------------------------------------------------------------------------ acceptance, revocation
def test_acceptance_of_the_same_ticket_verifies() -> None:
    acceptance = accept(TOKEN, HOLDER, "shop", 1500.9)
    verify_acceptance(acceptance, TOKEN, HOLDER.public_key())
    assert claims_of(acceptance) == {
        "iss": "shop",
        "iat": 1500,
        "ticket_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
    }


def test_acceptance_for_another_ticket_is_refused() -> None:
    other = issue(dataclasses.replace(GRANT, pipelines=("credit_retrain", "score")), GRANTOR)
    with pytest.raises(TicketInvalid, match="another ticket"):
        verify_acceptance(accept(TOKEN, HOLDER, "shop", 1500), other, HOLDER.public_key())


def test_acceptance_by_another_key_is_refused() -> None:
    with pytest.raises(TicketInvalid):
        verify_acceptance(accept(TOKEN, GRANTOR, "shop", 1500), TOKEN, HOLDER.public_key())


def test_acceptance_in_another_name_is_refused() -> None:
    claims = {"iss": "mallory", "iat": 1500, "ticket_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    header = {"alg": "EdDSA", "typ": "fedtasks-acceptance"}
    with pytest.raises(TicketInvalid, match="another holder"):
        verify_acceptance(signed(header, json.dumps(claims).encode(), HOLDER), TOKEN, HOLDER.public_key())


def test_accept_of_a_ticket_for_someone_else_is_refused() -> None:
    with pytest.raises(TicketInvalid, match="another holder"):
        accept(TOKEN, HOLDER, "mall", 1500)


@pytest.mark.parametrize("text", ["", "a.b.c", "\ud800", TOKEN[:10]])
def test_accept_of_no_ticket_is_refused(text: str) -> None:
    with pytest.raises(TicketInvalid):
        accept(text, HOLDER, "shop", 1500)


def test_revocation_of_this_ticket_verifies_and_gives_the_reason() -> None:
    assert (
        verify_revocation(revoke("t-1", GRANTOR, 1500, "contract ended"), "t-1", GRANTOR.public_key())
        == "contract ended"
    )


def test_revocation_of_another_ticket_is_refused() -> None:
    with pytest.raises(TicketInvalid, match="another ticket"):
        verify_revocation(revoke("t-2", GRANTOR, 1500, ""), "t-1", GRANTOR.public_key())


def test_revocation_by_the_holder_is_refused() -> None:
    with pytest.raises(TicketInvalid):
        verify_revocation(revoke("t-1", HOLDER, 1500, ""), "t-1", GRANTOR.public_key())


@pytest.mark.parametrize("claims", [{"jti": "t-1"}, {"jti": "t-1", "iat": 1, "reason": 2}])
def test_revocation_with_wrong_claims_is_refused(claims: dict[str, Any]) -> None:
    token = signed({"alg": "EdDSA", "typ": "fedtasks-revocation"}, json.dumps(claims).encode())
    with pytest.raises(TicketInvalid):
        verify_revocation(token, "t-1", GRANTOR.public_key())


def test_signed_text_of_one_kind_never_passes_as_another() -> None:
    texts = {
        "ticket": TOKEN,
        "acceptance": accept(TOKEN, GRANTOR, "shop", 1),
        "revocation": revoke("t-1", GRANTOR, 1, ""),
        "receipt": sign_receipt(claims_of(TOKEN), GRANTOR),
    }
    public = GRANTOR.public_key()
    readers = {
        "ticket": lambda text: read(text, public),
        "acceptance": lambda text: verify_acceptance(text, TOKEN, public),
        "revocation": lambda text: verify_revocation(text, "t-1", public),
        "receipt": lambda text: read_receipt(text, public),
    }
    for kind, reader in readers.items():
        reader(texts[kind])
        for other in texts.keys() - {kind}:
            with pytest.raises((TicketInvalid, SignatureWrong), match="expected the type"):
                reader(texts[other])


def test_receipt_signed_and_read_is_the_same_account() -> None:
    account = {
        "run_id": "a.b.1",
        "tasks": {"train": {"counts": {"rows": 3}, "digests": {"order": "ä"}}},
        "party": "bank",
    }
    assert read_receipt(sign_receipt(account, GRANTOR), GRANTOR.public_key()) == account


def test_receipt_by_another_key_is_refused() -> None:
    with pytest.raises(SignatureWrong):
        read_receipt(sign_receipt({"run_id": "a.b.1"}, HOLDER), GRANTOR.public_key())


# ------------------------------------------------------------------------------------------------------------ checks
def test_request_at_every_limit_is_allowed() -> None:
    for now_s in (1000, 1999.9):
        check(GRANT, REQUEST, now_s)


def test_request_whose_numbers_are_not_known_yet_is_allowed() -> None:
    open_request = dataclasses.replace(
        REQUEST, epochs=None, trees=None, key_bits=None, min_intersection=None, min_leaf_rows=None
    )
    check(GRANT, open_request, 1500)


@pytest.mark.parametrize(
    ("change", "error", "clause", "asked", "allowed"),
    [
        ({"holder": "mall"}, TicketScope, "holder", "mall", "shop"),
        ({"pipeline": "score"}, TicketScope, "pipelines", "score", "credit_retrain"),
        ({"grantor_dataset": "people"}, TicketScope, "datasets", "people", "loans cards"),
        ({"schema_digest": "f" * 64}, TicketScope, "datasets.loans.schema", "f" * 12, SCHEMA[:12]),
        ({"schema_digest": ""}, TicketScope, "datasets.loans.schema", "none", SCHEMA[:12]),
        ({"columns": ("age", "income")}, TicketScope, "datasets.loans.columns", "1 other", "age amount"),
        ({"holder_role": "leader"}, TicketScope, "roles", "leader", "follower client"),
        ({"epochs": 11}, TicketScope, "limits.epochs", "11", "10"),
        ({"trees": 21}, TicketScope, "limits.trees", "21", "20"),
        ({"scores": "both"}, TicketScope, "outputs.scores", "both", "leader"),
        ({"min_leaf_rows": 29}, FloorViolated, "floor.min_leaf_rows", "29", "30"),
        ({"first_tree": "both"}, FloorViolated, "floor.first_tree", "both", "leader"),
        ({"first_tree": ""}, FloorViolated, "floor.first_tree", "", "leader"),
        ({"key_bits": 2048}, FloorViolated, "floor.key_bits", "2048", "3072"),
        ({"min_intersection": 49}, FloorViolated, "floor.min_intersection", "49", "50"),
        ({"learns": "everyone"}, TicketScope, "outputs.intersection", "everyone", "size client both"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_request_outside_one_clause_is_refused_by_its_name(
    change: dict[str, Any], error: type[TicketError], clause: str, asked: str, allowed: str
) -> None:
    with pytest.raises(error) as caught:
        check(GRANT, dataclasses.replace(REQUEST, **change), 1500)
    assert caught.value.fields == {"clause": clause, "asked": asked, "allowed": allowed}


@pytest.mark.parametrize(
    ("granted", "covered"), [("size", {"size"}), ("client", {"size", "client"}), ("both", {"size", "client", "both"})]
)
@pytest.mark.parametrize("learns", ["size", "client", "both", "signer", ""])
def test_request_to_learn_is_bounded_by_the_ticket(granted: str, covered: set[str], learns: str) -> None:
    grant = dataclasses.replace(GRANT, outputs=Outputs(intersection=granted))
    request = dataclasses.replace(REQUEST, learns=learns)
    if learns in covered:
        check(grant, request, 1500)
        return
    with pytest.raises(TicketScope) as caught:
        check(grant, request, 1500)
    assert caught.value.fields["clause"] == "outputs.intersection"
    assert set(caught.value.fields["allowed"].split()) == covered


@pytest.mark.parametrize(("granted", "covered"), [("leader", {"leader"}), ("both", {"leader", "both"})])
@pytest.mark.parametrize("scores", ["leader", "both", "follower", ""])
def test_request_to_learn_scores_is_bounded_by_the_ticket(granted: str, covered: set[str], scores: str) -> None:
    grant = dataclasses.replace(GRANT, outputs=Outputs(scores=granted))
    request = dataclasses.replace(REQUEST, scores=scores)
    if scores in covered:
        check(grant, request, 1500)
        return
    with pytest.raises(TicketScope) as caught:
        check(grant, request, 1500)
    assert caught.value.fields["clause"] == "outputs.scores"
    assert set(caught.value.fields["allowed"].split()) == covered


def test_ticket_of_before_ids_were_counted_limits_none_of_them() -> None:
    claims = claims_of(TOKEN)
    claims["limits"] = {"runs": 3, "epochs": 10, "trees": 20}
    assert read(signed(HEADER, json.dumps(claims).encode()), GRANTOR.public_key()) == GRANT


def test_ticket_of_before_there_were_trees_demands_nothing_of_them() -> None:
    claims = claims_of(TOKEN)
    claims["limits"] = {"runs": 3, "concurrent_runs": 1, "epochs": 10}
    claims["floor"] = {"key_bits": 3072, "min_intersection": 50}
    claims["outputs"] = {"intersection": "both", "metrics": "leader", "scores": "leader"}
    old = read(signed(HEADER, json.dumps(claims).encode()), GRANTOR.public_key())
    assert old == dataclasses.replace(
        GRANT, limits=Limits(runs=3, epochs=10), floor=Floor(key_bits=3072, min_intersection=50)
    )
    check(old, dataclasses.replace(REQUEST, trees=10_000, min_leaf_rows=1, first_tree="both"), 1500)
    with pytest.raises(TicketScope, match=r"outputs\.scores"):
        check(old, dataclasses.replace(REQUEST, scores="both"), 1500)


def test_request_for_a_column_outside_the_ticket_hides_its_name_from_the_holder() -> None:
    with pytest.raises(TicketScope) as caught:
        check(GRANT, dataclasses.replace(REQUEST, columns=("age", "income")), 1500)
    assert "income" in caught.value.detail
    assert "income" not in caught.value.public


@pytest.mark.parametrize(
    ("now_s", "error", "clause"), [(999.9, TicketNotYetValid, "not_before_s"), (2000, TicketExpired, "expires_s")]
)
def test_request_outside_the_time_window_is_refused(now_s: float, error: type[TicketError], clause: str) -> None:
    for refused in (lambda: check(GRANT, REQUEST, now_s), lambda: check_window(GRANT, now_s)):
        with pytest.raises(error) as caught:
            refused()
        assert caught.value.fields["clause"] == clause


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ticket_id": ""}, "ticket_id"),
        ({"ticket_id": "a b"}, "ticket_id"),
        ({"grantor": "Bank"}, "grantor"),
        ({"holder": "bank"}, "holder"),
        ({"datasets": ()}, "datasets"),
        ({"datasets": GRANT.datasets * 2}, "datasets"),
        ({"pipelines": ()}, "pipelines"),
        ({"pipelines": ("Credit",)}, "pipelines"),
        ({"roles": ("admin",)}, "roles"),
        ({"not_before_s": -1}, "not_before_s"),
        ({"expires_s": 1000}, "expires_s"),
        ({"approval": "nobody"}, "approval"),
    ],
)
def test_grant_with_a_wrong_field_names_it(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(GRANT, **change)
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: DatasetScope("loans", "abc", ("age",)), "schema_digest"),
        (lambda: DatasetScope("loans", SCHEMA, ()), "columns"),
        (lambda: DatasetScope("loans", SCHEMA, ("",)), "columns"),
        (lambda: Limits(runs=0), "runs"),
        (lambda: Limits(epochs=-1), "epochs"),
        (lambda: Limits(ids_blinded=0), "ids_blinded"),
        (lambda: Limits(ids_blinded_per_day=0), "ids_blinded_per_day"),
        (lambda: Floor(key_bits=2047), "key_bits"),
        (lambda: Floor(min_intersection=0), "min_intersection"),
        (lambda: Outputs(intersection="holder"), "intersection"),
        (lambda: Outputs(scores="follower"), "scores"),
        (lambda: Limits(trees=0), "trees"),
        (lambda: Floor(min_leaf_rows=0), "min_leaf_rows"),
        (lambda: Floor(first_tree="follower"), "first_tree"),
    ],
)
def test_part_of_a_grant_with_a_wrong_field_names_it(build: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.fields["field"] == field


def test_new_ticket_ids_differ_and_fit_a_grant() -> None:
    ids = {new_ticket_id() for _ in range(100)}
    assert len(ids) == 100
    for ticket_id in ids:
        assert dataclasses.replace(GRANT, ticket_id=ticket_id).ticket_id == ticket_id


# -------------------------------------------------------------------------------------------------------------- keys
def test_key_saved_and_loaded_is_the_same_and_private(tmp_path: Path) -> None:
    key, path = generate_ticket_key(), tmp_path / "ticket.pem"
    save_ticket_key(key, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_ticket_key(path).private_bytes_raw() == key.private_bytes_raw()


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ticket.pem"
    save_ticket_key(GRANTOR, path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        load_ticket_key(path)
    assert caught.value.where == str(path)


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ticket.pem"
    save_ticket_key(GRANTOR, path)
    with pytest.raises(ConfigError, match="never overwritten"):
        save_ticket_key(HOLDER, path)
    assert load_ticket_key(path).private_bytes_raw() == GRANTOR.private_bytes_raw()


def test_key_into_a_missing_folder_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "ticket.pem"
    for use in (lambda: save_ticket_key(GRANTOR, path), lambda: load_ticket_key(path)):
        with pytest.raises(ConfigError) as caught:
            use()
        assert caught.value.where == str(path)


def test_key_of_another_kind_or_with_a_password_is_refused(tmp_path: Path) -> None:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    open_key = serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(b"secret")
    curve = ec.generate_private_key(ec.SECP256R1())
    contents = [
        curve.private_bytes(pem, pkcs8, open_key),
        GRANTOR.private_bytes(pem, pkcs8, locked),
        b"not a key",
    ]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.pem"
        path.touch(mode=0o600)
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_ticket_key(path)
        assert caught.value.where == str(path)


def test_public_key_as_text_and_back_is_the_same() -> None:
    text = public_text(GRANTOR)
    assert text == public_text(GRANTOR.public_key()) == public_text(public_from_text(text))
    assert base64.b64decode(text) == GRANTOR.public_key().public_bytes_raw()


@pytest.mark.parametrize("text", ["", "abc", "A" * 43, "A" * 44 + "!", base64.b64encode(bytes(31)).decode(), "ä" * 44])
def test_public_key_of_wrong_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="base64"):
        public_from_text(text)


def test_fingerprint_is_the_start_of_the_sha256_in_groups() -> None:
    expected = hashlib.sha256(GRANTOR.public_key().public_bytes_raw()).hexdigest()[:32]
    groups = fingerprint(GRANTOR).split(" ")
    assert "".join(groups) == expected
    assert {len(group) for group in groups} == {4}
    assert fingerprint(GRANTOR.public_key()) == fingerprint(GRANTOR) != fingerprint(HOLDER)
