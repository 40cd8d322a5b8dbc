"""Makes, renews and revokes the secrets of a party's workers."""

from __future__ import annotations

import dataclasses
import os
import secrets
from pathlib import Path

import yaml

from fedtasks import durable, private
from fedtasks.config import load_party
from fedtasks.config.workers import (
    MAX_SECRETS,
    May,
    WorkerIdentity,
    identity_files,
    read_identity,
    secret_digest,
)
from fedtasks.errors import ConfigError


def list_workers(party_file: Path) -> list[WorkerIdentity]:
    """Return all identities of a party's workers, by name; raise `ConfigError` for one that cannot be read."""
    return [read_identity(file) for file in identity_files(load_party(party_file).gateway.identities)]


def add_worker(party_file: Path, name: str, may: May, secret_file: Path) -> None:
    """Make an identity and its secret, which stands in `secret_file` alone.

    Raises
    ------
    ConfigError
        There is one of that name, or something at that place, already.
    """
    folder = load_party(party_file).gateway.identities
    if (folder / name).exists():
        raise ConfigError(f"`{name}` is there already; give it another secret: `fedtasks worker rotate`", field="name")
    secret = secrets.token_urlsafe(32)
    identity = WorkerIdentity(name, may, (secret_digest(secret),))
    _write_secret(secret_file, secret)
    private.make_folder(folder)
    _write(folder, identity)


def rotate_worker(party_file: Path, name: str, secret_file: Path) -> None:
    """Make another secret for an identity; the one before goes on to count until the next time, or until it is ended.

    Raises
    ------
    ConfigError
        There is no such identity, or something is at that place already.
    """
    folder, identity = _found(party_file, name)
    secret = secrets.token_urlsafe(32)
    _write_secret(secret_file, secret)
    kept = (secret_digest(secret), *identity.secrets)[:MAX_SECRETS]
    _write(folder, dataclasses.replace(identity, secrets=kept))


def revoke_worker(party_file: Path, name: str, *, only_old: bool = False) -> None:
    """Let nobody in by an identity's secrets any more; with `only_old`, by those that the newest has replaced.

    Raises
    ------
    ConfigError
        There is no such identity.
    """
    folder, identity = _found(party_file, name)
    if only_old:
        _write(folder, dataclasses.replace(identity, secrets=identity.secrets[:1]))
        return
    (folder / name).unlink()
    durable.sync(folder)


def _found(party_file: Path, name: str) -> tuple[Path, WorkerIdentity]:
    folder = load_party(party_file).gateway.identities
    if (folder / name) not in identity_files(folder):
        known = ", ".join(file.name for file in identity_files(folder)) or "none"
        raise ConfigError(f"there is no identity `{name}`; known are: {known}", field="name")
    return folder, read_identity(folder / name)


def _write_secret(file: Path, secret: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("secrets are never overwritten; name another file", where=str(file)) from None
    except OSError as error:
        raise ConfigError(f"the secret cannot be written: {error.strerror}", where=str(file)) from error
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(f"{secret}\n")


def _write(folder: Path, identity: WorkerIdentity) -> None:
    plain = {"may": identity.may.value, "secrets": list(identity.secrets)}
    partial = folder / f".{identity.name}.partial"
    partial.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="ascii")
    partial.chmod(0o600)
    durable.replace(partial, folder / identity.name)
    durable.sync(folder)
