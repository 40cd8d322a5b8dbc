"""Ticket keys: private on disk, never overwritten, and one public text of each."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedtasks.errors import ConfigError
from fedtasks.tickets import (
    fingerprint,
    generate_ticket_key,
    load_ticket_key,
    public_from_text,
    public_text,
    save_ticket_key,
)
from tests.support.tickets import GRANTOR, HOLDER


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
