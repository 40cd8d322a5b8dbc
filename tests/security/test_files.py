"""Files and texts that a peer hands over by mail, or that somebody has tampered with: an error that names the place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedtasks import identity, tickets
from fedtasks.config import load_party
from fedtasks.errors import FedtasksError
from fedtasks.kinds import kinds
from fedtasks.tickets import asked_by
from tests.support.gateways import Member, make_members, set_address
from tests.support.hostile import TALLY, Outcome
from tests.support.tickets import GRANT, GRANTOR, HEADER, claims_of, signed

ALIASES = "\n".join(
    ["a: &a [x,x,x,x,x,x,x,x]", *(f"{new}: &{new} [{','.join([f'*{old}'] * 8)}]" for old, new in pairwise("abcdefgh"))]
)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    victim, attacker, listen = make_members(tmp_path_factory.mktemp("files"))
    set_address(attacker, listen)
    yield victim
    victim.close()
    attacker.close()


def judge(read: Callable[[], object]) -> str:
    """Count what becomes of an input; returns what is wrong with that, or nothing."""
    try:
        read()
    except FedtasksError:
        TALLY.add(Outcome.REFUSED)
        return ""
    except Exception as error:
        TALLY.add(Outcome.CRASHED)
        return f"{type(error).__name__}: {error}"
    TALLY.add(Outcome.TAKEN)
    return "taken"


def card_texts(good: dict[str, Any]) -> Iterator[tuple[str, str]]:
    other = good["authority"].replace("A", "B", 1)

    def card(**changes: Any) -> str:
        return yaml.safe_dump({**good, **changes})

    yield "empty", ""
    yield "list", "[]"
    yield "aliases", ALIASES
    yield "large", card() + "#" * 17_000
    yield "two authorities", card(authority=good["authority"] * 2)
    yield "an authority and noise", card(authority=good["authority"] + "noise\n" + other)
    yield "a key instead", card(authority="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    yield "no authority", card(authority="")
    yield "half an authority", card(authority=good["authority"][:200])
    yield "name with escapes", card(name="\x1b[2Jshop")
    yield "name upwards", card(name="../shop")
    yield "name a list", card(name=["shop"])
    yield "address without port", card(address="shop.example")
    yield "address port 99999", card(address="shop.example:99999")
    yield "address with a newline", card(address="shop.example\n:1")
    yield "ticket key short", card(ticket_key="AAAA")
    yield "ticket key no base64", card(ticket_key="!" * 44)
    yield "unknown field", card(surprise=1)
    yield "python tag", "!!python/object/apply:os.system [true]"
    yield "a tag", card() + "extra: !!binary AAAA\n"
    yield "duplicate field", card() + "name: mint\n"
    yield "control characters", "name: \x00\n"
    yield "tabs", "\tname: shop"
    yield "deep", "[" * 5_000
    yield "date for a name", card().replace("name: shop", "name: 2026-11-29")


def test_card_that_is_wrong_is_refused(bank: Member, tmp_path: Path) -> None:
    peer = bank.party.peers[0]
    good = {"name": "shop", "address": "shop.example:1", "ticket_key": peer.ticket_key}
    good["authority"] = peer.authority.read_text()
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(good))
    identity.read_card(file)
    wrong = {}
    for name, text in card_texts(good):
        file.write_text(text)
        if found := judge(lambda: identity.read_card(file)):
            wrong[name] = found
    assert wrong == {}


def grants() -> Iterator[tuple[str, bytes]]:
    good = claims_of(tickets.issue(GRANT, GRANTOR))
    for name, value in {
        "list": [],
        "object": {},
        "huge": 10**4000,
        "negative": -1,
        "text": "x",
        "null": None,
        "escapes": "\x1b[2J",
        "surrogate": "\ud800",
        "float": 1.5,
        "long": "x" * 70_000,
    }.items():
        for claim in ("jti", "iss", "exp", "nbf", "datasets", "pipelines", "roles", "limits", "floor"):
            if claim in ("limits", "floor") and name == "object":
                continue  # no clause at all is a ticket
            if (claim, name) in (("jti", "text"), ("iss", "text")):
                continue  # a name like any other
            yield f"{claim} {name}", json.dumps({**good, claim: value}).encode()
    yield "both spellings", json.dumps({**good, "ticket_id": "t-2"}).encode()
    yield "claims twice", json.dumps(good).encode()[:-1] + b',"exp":2}'


def test_ticket_whose_claims_are_wrong_is_refused() -> None:
    key = GRANTOR.public_key()
    wrong = {}
    for name, payload in grants():
        if found := judge(lambda payload=payload: tickets.read(signed(HEADER, payload), key)):  # type: ignore[misc]
            wrong[name] = found
    assert wrong == {}


def settings() -> Iterator[tuple[str, str, object]]:
    for kind in kinds():
        for name, value in {
            "list": [],
            "text": "x",
            "unknown": {"surprise": 1},
            "escapes": {"\x1b[2J": 1},
            "deep": {"epochs": [[[[]]]]},
            "number for a name": {1: 1},
        }.items():
            yield kind, name, value
        for field in kinds()[kind].settings.__dataclass_fields__:
            for name, value in {"object": {}, "huge": 10**400, "nan": float("nan"), "surrogate": "\ud800"}.items():
                yield kind, f"{field} {name}", {field: value}


def test_settings_that_are_wrong_are_refused() -> None:
    wrong = {}
    for kind, name, value in settings():
        if found := judge(lambda kind=kind, value=value: list(asked_by("step", kind, value))):  # type: ignore[misc]
            wrong[f"{kind} {name}"] = found
    assert wrong == {}


def party_files(good: str) -> Iterator[tuple[str, str]]:
    yield "empty", ""
    yield "list", "[]"
    yield "aliases", good + "\nspark: {conf: " + "{a: &a x, b: *a}}"
    yield "many aliases", ALIASES
    yield "deep", "[" * 5_000
    yield "unknown field", good + "\nsurprise: 1\n"
    yield "python tag", good + "\nstorage: !!python/object/apply:os.system [true]\n"
    yield "duplicate field", good + "\nname: mint\n"
    for old, new in (
        ("name: bank", "name: ../bank"),
        ("name: bank", "name: [bank]"),
        ("name: bank", "name: shop"),
        ("storage: storage", "storage: ftp://x"),
        ("storage: storage", "storage: 7"),
        ("max_clock_skew_s: 60", "max_clock_skew_s: soon"),
        ("max_clock_skew_s: 60", "max_clock_skew_s: .nan"),
        ("features: {a: numeric}", "features: {a: vector}"),
        ("features: {a: numeric}", "features: [a]"),
        ("user: admin", "user: {}"),
        ("certificate: keys/gateway.pem", "certificate: {}"),
        ("ticket_key: keys/ticket.key", "ticket_key: []"),
    ):
        assert old in good
        yield new, good.replace(old, new, 1)


def test_party_file_that_is_wrong_is_refused(bank: Member, tmp_path: Path) -> None:
    good = (bank.folder / "party.yaml").read_text()
    file = tmp_path / "party.yaml"
    wrong = {}
    for name, text in party_files(good):
        file.write_text(text)
        if found := judge(lambda: load_party(file)):
            wrong[name] = found
    assert wrong == {}
