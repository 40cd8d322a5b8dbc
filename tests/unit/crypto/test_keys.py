from __future__ import annotations

import math
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from fedtasks.crypto import blind_rsa
from fedtasks.crypto.key_proof import prove_key, verify_key_proof
from fedtasks.crypto.keys import PrivateKey, PublicKey, generate_psi_key, load_psi_key
from fedtasks.errors import ConfigError, KeyInvalid, KeyWeak, SignatureWrong


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


PRIMES_HEADER = "fedtasks-rsa-three-primes"


@pytest.fixture(scope="module")
def three_primes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "psi.key"
    generate_psi_key(path, 3072, primes=3)
    return path


def write_primes(path: Path, *primes: int | str) -> Path:
    lines = [PRIMES_HEADER, *(each if isinstance(each, str) else f"{each:x}" for each in primes)]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


def test_key_of_three_primes_is_as_long_as_asked_and_loads(three_primes: Path) -> None:
    key = load_psi_key(three_primes)
    assert [prime.bit_length() for prime in key.primes] == [1024] * 3
    assert key.public.bits == 3072
    assert three_primes.stat().st_mode & 0o777 == 0o600
    assert PublicKey.from_der(key.public.der) == key.public
    assert repr(key) == "PrivateKey()"


def test_key_of_three_primes_signs_as_the_private_exponent_does(three_primes: Path) -> None:
    key = load_psi_key(three_primes)
    order = math.lcm(*(prime - 1 for prime in key.primes))
    exponent = pow(65537, -1, order)
    encoded = blind_rsa.prepare(key.public, [b"alice", b"bob"])
    expected = [pow(int.from_bytes(row.tobytes()), exponent, key.public.n) for row in encoded]
    assert [int.from_bytes(row.tobytes()) for row in blind_rsa.blind_sign(key, encoded)] == expected


def test_fault_in_one_of_three_primes_lets_nothing_out(three_primes: Path) -> None:
    key = load_psi_key(three_primes)
    faulty = PrivateKey(*key.primes)
    vars(faulty)["exponents"] = (*key.exponents[:2], key.exponents[2] ^ 2)
    with pytest.raises(SignatureWrong, match="row 0"):
        blind_rsa.sign(faulty, [b"alice"])


def test_key_proof_of_three_primes_holds(three_primes: Path) -> None:
    key = load_psi_key(three_primes)
    verify_key_proof(key.public, prove_key(key))


def test_damaged_key_of_three_primes_is_refused_naming_the_file(three_primes: Path, tmp_path: Path) -> None:
    p, q, r = load_psi_key(three_primes).primes
    bad: list[tuple[tuple[int | str, ...], type[Exception]]] = [
        ((p, q), KeyInvalid),
        ((p, q, r, r), KeyInvalid),
        ((p, q, "not hex"), KeyInvalid),
        ((p, q, r + 2), KeyInvalid),
        ((p, q, q), KeyInvalid),
        ((p, q, 65537), KeyWeak),
    ]
    for number, (primes, error) in enumerate(bad):
        path = write_primes(tmp_path / f"{number}.key", *primes)
        with pytest.raises(error) as caught:
            load_psi_key(path)
        assert caught.value.where == str(path)  # type: ignore[attr-defined]


def test_short_or_odd_keys_of_several_primes_are_refused_and_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyWeak, match="3072"):
        generate_psi_key(tmp_path / "k", 2048, primes=3)
    for primes in (1, 4):
        with pytest.raises(ConfigError, match="2 primes or 3"):
            generate_psi_key(tmp_path / "k", 4096, primes)
    assert not list(tmp_path.iterdir())
