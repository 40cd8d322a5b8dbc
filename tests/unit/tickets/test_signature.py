"""Signed texts that nobody can bend, and tickets of earlier releases that still read."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.errors import ConfigError, SignatureWrong, TicketInvalid
from fedtasks.tickets import (
    APPROVALS,
    ROLES,
    Clause,
    DatasetScope,
    Grant,
    Group,
    accept,
    decline,
    issue,
    peek,
    public_from_text,
    public_text,
    read,
    read_receipt,
    revoke,
    sign_receipt,
    verify_acceptance,
    verify_declination,
    verify_revocation,
)
from fedtasks.tickets.clauses import clauses
from tests.support.tickets import GRANT, GRANTOR, HEADER, HOLDER, SCHEMA, b64, claims_of, signed, unb64

TOKEN = issue(GRANT, GRANTOR)

OF_THE_PREVIOUS_RELEASE = (
    "eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXRpY2tldCJ9.eyJhcHByb3ZhbCI6InBlcnNvbiIsImRhdGFzZXRzIjpbeyJ"
    "jb2x1bW5zIjpbImFnZSIsImFtb3VudCJdLCJuYW1lIjoibG9hbnMiLCJzY2hlbWFfZGlnZXN0IjoiNTU1NTU1NTU1NTU1NTU1NTU"
    "1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NSJ9XSwiZXhwIjoyMDAwLCJmbG9vciI6eyJmaXJ"
    "zdF90cmVlIjoibGVhZGVyIiwia2V5X2JpdHMiOjMwNzIsIm1pbl9pbnRlcnNlY3Rpb24iOjUwLCJtaW5fbGVhZl9yb3dzIjozMH0"
    "sImlzcyI6ImJhbmsiLCJqdGkiOiJ0LW9sZCIsImxpbWl0cyI6eyJjb25jdXJyZW50X3J1bnMiOm51bGwsImVwb2NocyI6bnVsbCw"
    "iaWRzX2JsaW5kZWQiOjEwMDAsImlkc19ibGluZGVkX3Blcl9kYXkiOjEwMCwibG9va3VwcyI6bnVsbCwibG9va3Vwc19wZXJfZGF"
    "5IjpudWxsLCJydW5zIjozLCJ0cmVlcyI6MjB9LCJuYmYiOjEwMDAsIm91dHB1dHMiOnsiYW5zd2VyX2NvbHVtbnMiOlsiYWdlIl0"
    "sImFuc3dlcnMiOiJjb2x1bW5zIiwiaW50ZXJzZWN0aW9uIjoiY2xpZW50IiwibWV0cmljcyI6ImxlYWRlciIsInNjb3JlcyI6ImJ"
    "vdGgifSwicGlwZWxpbmVzIjpbImNyZWRpdF90cmVlcyIsIm9ubGluZV9wc2kiXSwicm9sZXMiOlsibGVhZGVyIl0sInN1YiI6InN"
    "ob3AifQ.KT9lpqCaZnDmxDSxoA8RNFWNFN9rnJjxKHynInD1HLAa8tWRlykQD2-ks1WE7qDqGfwX-McQ-BPdA3N90nJSAg"
)
"""Signed by fedtasks before clauses were declared, with the key of `GRANTOR`."""

names = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
name_sets = st.lists(names, min_size=1, max_size=3, unique=True).map(tuple)


def bounds(clause: Clause) -> st.SearchStrategy[Any]:
    if clause.choices:
        return st.sampled_from(clause.choices)
    whole = st.integers(clause.least, 2**40)
    return st.none() | whole if clause.group is Group.LIMIT else whole


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    grantor, holder = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    not_before_s = draw(st.integers(0, 2**33))
    digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
    signs = st.characters(codec="utf-8").filter(str.isprintable)
    columns = st.lists(st.text(signs, min_size=1, max_size=128), min_size=1, max_size=3, unique=True)
    said: dict[str, dict[str, Any]] = {group.value: {} for group in Group}
    for clause in clauses().values():
        if not clause.only_with:
            said[clause.group.value][clause.field] = draw(bounds(clause))
    if said["outputs"]["answers"] == "columns":
        said["outputs"]["answer_columns"] = tuple(draw(columns))
    return Grant(
        ticket_id=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)),
        grantor=grantor,
        holder=holder,
        datasets=tuple(DatasetScope(name, draw(digests), tuple(draw(columns))) for name in draw(name_sets)),
        pipelines=draw(name_sets),
        roles=tuple(draw(st.lists(st.sampled_from(ROLES), min_size=1, unique=True))),
        not_before_s=not_before_s,
        expires_s=not_before_s + draw(st.integers(1, 2**33)),
        **said,
        approval=draw(st.sampled_from(APPROVALS)),
    )


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
        {"floor": {"pad_rows": 0}},
        {"floor": []},
        {"outputs": {"intersection": "everyone"}},
        {"outputs": {"scores": "follower"}},
        {"approval": "never"},
        {"exp": 2**40 + 1},
        {"exp": 10**4299},
        {"nbf": -1},
        {"limits": {"runs": 2**53 + 1}},
        {"limits": {"runs": 10**4299}},
        {"floor": {"min_intersection": 10**40}},
        {"pipelines": [f"p{number}" for number in range(101)]},
        {"datasets": [{"name": "loans", "schema_digest": SCHEMA, "columns": [f"c{n}" for n in range(1001)]}]},
        *(
            {"datasets": [{"name": "loans", "schema_digest": SCHEMA, "columns": [column]}]}
            for column in ("c" * 129, "\x1b[2J", "a\nb", "\ud800", "\u202eegas", "\x9b31m", "a\u200bb")
        ),
        {"outputs": {"answers": "columns", "answer_columns": ["\ud800"]}},
        {"outputs": {"answers": "columns", "answer_columns": [f"c{n}" for n in range(1001)]}},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_ticket_with_unknown_or_wrong_claim_is_refused(change: dict[str, Any]) -> None:
    token = signed(HEADER, json.dumps({**claims_of(TOKEN), **change}).encode())
    with pytest.raises(TicketInvalid) as caught:
        read(token, GRANTOR.public_key())
    assert caught.value.detail


def test_ticket_of_too_many_characters_is_neither_issued_nor_read() -> None:
    columns = tuple(f"{number:0>127}" for number in range(1000))
    with pytest.raises(ConfigError, match="grant fewer columns"):
        issue(dataclasses.replace(GRANT, datasets=(DatasetScope("loans", SCHEMA, columns),)), GRANTOR)
    claims = {**claims_of(TOKEN), "roles": ["follower"], "datasets": [{"columns": columns}]}
    token = signed(HEADER, json.dumps(claims).encode())
    for reader in (peek, lambda text: read(text, GRANTOR.public_key())):
        with pytest.raises(TicketInvalid, match="longer than"):
            reader(token)


def test_largest_ticket_is_read_in_little_time() -> None:
    columns = tuple(f"c{number}" for number in range(1000))
    token = issue(dataclasses.replace(GRANT, datasets=(DatasetScope("loans", SCHEMA, columns),)), GRANTOR)
    began = time.process_time()
    for _ in range(20):
        read(token, GRANTOR.public_key())
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "payload",
    ['{"exp": 1e999}', '{"exp": NaN}', '{"exp": -Infinity}', '{"exp": 1, "exp": 2}', f'{{"exp": {"9" * 5000}}}'],
    ids=["beyond", "nan", "infinite", "twice", "digits"],
)
def test_signed_text_with_a_number_or_a_name_that_will_not_do_is_refused(payload: str) -> None:
    for kind, reader in (("ticket", read), ("receipt", read_receipt)):
        token = signed({"alg": "EdDSA", "typ": f"fedtasks-{kind}"}, payload.encode())
        with pytest.raises((TicketInvalid, SignatureWrong), match="not a text signed"):
            reader(token, GRANTOR.public_key())


@pytest.mark.parametrize("payload", [b"[" * 40_000, b'{"exp": ' + b"9" * 4299 + b"}", b"\xff"], ids=len)
def test_peek_at_what_no_ticket_says_is_refused(payload: bytes) -> None:
    with pytest.raises(TicketInvalid):
        peek(signed(HEADER, payload))


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


def test_reason_is_signed_and_read_as_it_may_be_shown() -> None:
    poison = "\x1b[2J\ud800\u202e" + "x" * 5000
    header = {"alg": "EdDSA", "typ": "fedtasks-revocation"}
    revoked = signed(header, json.dumps({"jti": "t-1", "iat": 1, "reason": poison[:600]}).encode())
    for token in (revoked, revoke("t-1", GRANTOR, 1500, poison)):
        reason = verify_revocation(token, "t-1", GRANTOR.public_key())
        assert reason.isprintable()
        assert len(reason) <= 500
        assert reason.endswith("more characters")


def test_statement_of_too_many_characters_is_refused() -> None:
    header = {"alg": "EdDSA", "typ": "fedtasks-revocation"}
    revoked = signed(header, json.dumps({"jti": "t-1", "iat": 1, "reason": "x" * 10_000}).encode())
    with pytest.raises(TicketInvalid, match="longer than"):
        verify_revocation(revoked, "t-1", GRANTOR.public_key())


def test_declination_of_this_ticket_verifies_and_gives_the_reason() -> None:
    declined = decline(TOKEN, HOLDER, "shop", 1500, "too wide\n")
    assert verify_declination(declined, TOKEN, HOLDER.public_key()) == "too wide "
    other = issue(dataclasses.replace(GRANT, expires_s=3000), GRANTOR)
    with pytest.raises(TicketInvalid, match="another ticket"):
        verify_declination(declined, other, HOLDER.public_key())
    with pytest.raises(TicketInvalid):
        verify_declination(declined, TOKEN, GRANTOR.public_key())
    with pytest.raises(TicketInvalid, match="another holder"):
        decline(TOKEN, HOLDER, "mall", 1500, "")


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
        "declination": decline(TOKEN, GRANTOR, "shop", 1, ""),
        "revocation": revoke("t-1", GRANTOR, 1, ""),
        "receipt": sign_receipt(claims_of(TOKEN), GRANTOR),
    }
    public = GRANTOR.public_key()
    readers = {
        "ticket": lambda text: read(text, public),
        "acceptance": lambda text: verify_acceptance(text, TOKEN, public),
        "declination": lambda text: verify_declination(text, TOKEN, public),
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


# ------------------------------------------------------------------------------------------------- earlier releases
def test_ticket_that_the_previous_release_signed_reads_as_it_was_meant() -> None:
    grant = read(OF_THE_PREVIOUS_RELEASE, public_from_text("A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="))
    assert peek(OF_THE_PREVIOUS_RELEASE) == grant
    assert (grant.ticket_id, grant.grantor, grant.holder, grant.approval) == ("t-old", "bank", "shop", "person")
    assert grant.datasets == (DatasetScope("loans", "5" * 64, ("age", "amount")),)
    said = {
        "limits.runs": 3,
        "limits.concurrent_runs": None,
        "limits.epochs": None,
        "limits.trees": 20,
        "limits.ids_blinded": 1000,
        "limits.ids_blinded_per_day": 100,
        "limits.lookups": None,
        "limits.lookups_per_day": None,
        "outputs.intersection": "client",
        "outputs.metrics": "leader",
        "outputs.scores": "both",
        "outputs.answers": "columns",
        "outputs.answer_columns": ("age",),
        "floor.key_bits": 3072,
        "floor.min_intersection": 50,
        "floor.min_leaf_rows": 30,
        "floor.first_tree": "leader",
    }
    since = {
        "limits.attempts": 3,
        "limits.trees_per_round": None,
        "limits.label_leak": 60,
        "outputs.held_out": "person",
        "outputs.id_shapes": "none",
        "outputs.join_ids": "keyed",
        "floor.pad_rows": 1,
        "floor.noise_rows": 0,
        "floor.label_protection": "any",
    }
    assert grant.bounds == {**said, **since}


def test_ticket_that_allows_labels_without_protection_says_so_in_what_is_signed() -> None:
    allowed = dataclasses.replace(GRANT, floor={"label_protection": "none"})
    token = issue(allowed, GRANTOR)
    assert claims_of(token)["floor"]["label_protection"] == "none"
    assert read(token, GRANTOR.public_key()).warnings == allowed.warnings
    assert ["can read the labels of all train rows" in warning for warning in allowed.warnings] == [True]
    assert read(TOKEN, GRANTOR.public_key()).warnings == ()


def test_claims_of_a_ticket_keep_their_form_and_leave_out_what_demands_nothing() -> None:
    claims = claims_of(TOKEN)
    limits = {"runs": 3, "concurrent_runs": 1, "attempts": 3, "epochs": 10, "trees": 20, "label_leak": 60}
    assert claims["limits"] == limits
    assert {**claims["floor"], "noise_rows": 0} == GRANT.floor
    assert claims["outputs"] == {
        "held_out": "person",
        "scores": "leader",
        "answers": "nothing",
        "answer_columns": [],
        "id_shapes": "none",
        "join_ids": "keyed",
    }


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
    bounded = {"limits": {"runs": 3, "epochs": 10}, "floor": {"key_bits": 3072, "min_intersection": 50}}
    assert old == dataclasses.replace(GRANT, **bounded)
