from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fedtasks.crypto.scheme import generate_key, load_signer, open_client
from fedtasks.crypto.schemes import Scheme
from fedtasks.errors import ConfigError, FedtasksError, KeyInvalid

IDS = [b"alice", "Zoë".encode(), b"007", b""]


@pytest.fixture(scope="module", params=list(Scheme), ids=lambda scheme: scheme.value)
def scheme(request: pytest.FixtureRequest) -> Scheme:
    found: Scheme = request.param
    return found


@pytest.fixture(scope="module")
def file(scheme: Scheme, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "psi.key"
    generate_key(scheme, path, 2048 if scheme is Scheme.BLIND_RSA else None)
    return path


def test_client_and_signer_give_equal_ids_equal_tags(scheme: Scheme, file: Path) -> None:
    signer = load_signer(scheme, file)
    # As it travels to an engine's workers.
    client = pickle.loads(pickle.dumps(open_client(scheme, signer.public, signer.key_proof)))

    blinded, secrets = client.blind(IDS)
    answers, proof = signer.evaluate(blinded)
    tags = client.finalize(IDS, blinded, answers, proof, secrets)

    assert tags.tolist() == signer.tag(IDS).tolist()
    assert blinded.shape == answers.shape == (len(IDS), client.element_bytes)
    assert secrets.shape == (len(IDS), client.secret_bytes)
    assert len(proof) == client.proof_bytes
    assert tags.shape == (len(IDS), 16)
    assert client.key_id == signer.client.key_id


def test_tags_of_another_key_differ(scheme: Scheme, file: Path, tmp_path: Path) -> None:
    generate_key(scheme, tmp_path / "other.key", 2048 if scheme is Scheme.BLIND_RSA else None)
    own, other = load_signer(scheme, file), load_signer(scheme, tmp_path / "other.key")
    assert not {row.tobytes() for row in own.tag(IDS)} & {row.tobytes() for row in other.tag(IDS)}


def test_client_of_a_key_without_its_proof_is_refused(scheme: Scheme, file: Path) -> None:
    signer = load_signer(scheme, file)
    for proof in (b"", bytes(len(signer.key_proof)), signer.key_proof[:-1]):
        with pytest.raises(FedtasksError):
            open_client(scheme, signer.public, proof)
    with pytest.raises(KeyInvalid):
        open_client(scheme, b"no key", signer.key_proof)


def test_key_is_private_and_never_overwritten_nor_shown(scheme: Scheme, file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyInvalid, match="never overwritten"):
        generate_key(scheme, file)
    assert "=" not in repr(load_signer(scheme, file)).partition("key=")[2].partition("public")[0]


def test_key_that_others_may_read_or_of_the_other_scheme_is_refused(scheme: Scheme, file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.key"
    copy.write_bytes(file.read_bytes())
    copy.chmod(0o640)
    with pytest.raises(KeyInvalid, match="chmod 600"):
        load_signer(scheme, copy)
    copy.chmod(0o600)
    (other,) = set(Scheme) - {scheme}
    with pytest.raises(KeyInvalid):
        load_signer(other, copy)


def test_length_is_for_rsa_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="blind_rsa"):
        generate_key(Scheme.OPRF, tmp_path / "psi.key", 3072)
    with pytest.raises(ConfigError, match="blind_rsa"):
        generate_key(Scheme.OPRF, tmp_path / "psi.key", primes=3)
    assert not (tmp_path / "psi.key").exists()
