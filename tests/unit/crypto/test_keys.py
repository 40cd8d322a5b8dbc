from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from fedtasks.crypto.keys import PrivateKey, PublicKey, generate_psi_key, load_psi_key
from fedtasks.errors import KeyInvalid, KeyWeak


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "deep" / "psi.key"
    generate_psi_key(path, 2048)
    return path


def write(path: Path, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, password: bytes | None = None) -> Path:
    secret = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    path.write_bytes(pem)
    path.chmod(0o600)
    return path


def test_generated_key_loads_and_only_its_owner_may_read_it(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert load_psi_key(key_file).public.bits == 2048


def test_generated_key_has_3072_bits_by_default(tmp_path: Path) -> None:
    assert generate_psi_key(tmp_path / "k").bits == 3072


def test_generate_of_a_short_key_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyWeak):
        generate_psi_key(tmp_path / "k", 1024)
    assert not (tmp_path / "k").exists()


def test_generate_over_an_existing_key_is_refused(key_file: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(KeyInvalid, match="never overwritten"):
        generate_psi_key(key_file, 2048)
    assert key_file.read_bytes() == before


def test_load_of_a_key_readable_by_others_is_refused(tmp_path: Path, key_file: Path) -> None:
    copy = tmp_path / "k"
    copy.write_bytes(key_file.read_bytes())
    copy.chmod(0o640)
    with pytest.raises(KeyInvalid, match="chmod 600"):
        load_psi_key(copy)


def test_load_of_a_short_key_is_refused_naming_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "k", rsa.generate_private_key(65537, 1024))
    with pytest.raises(KeyWeak) as caught:
        load_psi_key(path)
    assert caught.value.where == str(path)


def test_load_of_a_key_with_another_exponent_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "k", rsa.generate_private_key(3, 2048))
    with pytest.raises(KeyInvalid, match="65537"):
        load_psi_key(path)


def test_load_of_what_is_no_plain_rsa_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyInvalid, match="not an RSA key"):
        load_psi_key(write(tmp_path / "e", ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(KeyInvalid, match="unencrypted"):
        load_psi_key(write(tmp_path / "p", rsa.generate_private_key(65537, 2048), b"secret"))
    with pytest.raises(KeyInvalid, match="cannot be read"):
        load_psi_key(tmp_path / "nowhere")


def test_public_key_survives_the_wire(key_file: Path) -> None:
    public = load_psi_key(key_file).public
    assert PublicKey.from_der(public.der) == public
    assert len(bytes.fromhex(public.key_id)) == 16


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01\x05"])
def test_public_key_that_is_none_is_refused(der: bytes) -> None:
    with pytest.raises(KeyInvalid):
        PublicKey.from_der(der)


def test_public_key_of_another_kind_is_refused() -> None:
    der = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(KeyInvalid, match="not an RSA key"):
        PublicKey.from_der(der)


@pytest.mark.parametrize(
    ("n", "e", "error"),
    [
        (2**1024 + 1, 65537, KeyWeak),
        (2**2050 + 1, 3, KeyInvalid),
        (2**2050, 65537, KeyInvalid),
        (2**9000 + 1, 65537, KeyInvalid),
    ],
)
def test_public_key_out_of_bounds_is_refused(n: int, e: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        PublicKey(n, e)


def test_private_key_never_shows_its_primes(key_file: Path) -> None:
    key = load_psi_key(key_file)
    assert str(key.p) not in repr(key)
    assert repr(key) == "PrivateKey()"
    assert isinstance(key, PrivateKey)
