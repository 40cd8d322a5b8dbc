"""Who may call a party's gateway as a worker: a file for each, with a digest of its secret and what it may do."""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fedtasks.config.names import NAME, check_name
from fedtasks.dataclass_io import build, read_yaml
from fedtasks.errors import ConfigError

IDENTITIES = "keys/workers"
"""Where the identities of a party's workers are by default, relative to party.yaml."""

SHARED = "worker"
"""The name of whoever presents the secret that the gateway's own party.yaml names."""

MAX_SECRETS = 2
"""The one in use, and the one that takes its place or did."""

_MAX_FILE = 4_000
_DIGEST = re.compile(r"[0-9a-f]{64}")


class May(enum.Enum):
    """What an identity may ask of the gateway; each may do what those before it may."""

    READ = "read"
    """See runs, peers and models."""
    WORK = "work"
    """Open runs, and do all that tasks and their halves do."""
    DECIDE = "decide"
    """What a person answers for: tickets, approvals, the version of a model in use."""

    def covers(self, other: May) -> bool:
        """Whether who may do this may do the other."""
        order = list(May)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class WorkerIdentity:
    """One of a party's workers, as its gateway knows it.

    Parameters
    ----------
    name
        Its name, which stands in the audit.
    may
        What it may ask.
    secrets
        SHA-256 (hex) of each secret that it is known by, the newest first.
    """

    name: str
    may: May
    secrets: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.name == SHARED:
            raise ConfigError(f"`{SHARED}` is the name of the secret in party.yaml; choose another", field="name")
        if not 1 <= len(self.secrets) <= MAX_SECRETS:
            raise ConfigError(f"expected 1 to {MAX_SECRETS} digests, not {len(self.secrets)}", field="secrets")
        for secret in self.secrets:
            if not _DIGEST.fullmatch(secret):
                raise ConfigError("expected a SHA-256, 64 hexadecimal digits", field="secrets")


def secret_digest(secret: str) -> str:
    """Return what a secret is known by; secrets are random, so nobody can guess one from it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_identity(file: Path) -> WorkerIdentity:
    """Read the file of an identity, which has its name.

    Raises
    ------
    ConfigError
        Naming the line and the field that is wrong.
    """
    plain, lines = read_yaml(file, _MAX_FILE)
    if isinstance(plain, dict) and "name" not in plain:
        plain = {"name": file.name, **plain}
    identity = build(WorkerIdentity, plain, lines)
    if identity.name != file.name:
        raise ConfigError(f"the file of `{identity.name}` must have its name", where=str(file))
    return identity


def identity_files(folder: Path) -> list[Path]:
    """Return the files of all identities in a folder, by name; none if there is no folder."""
    try:
        return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name) and path.is_file())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"the identities cannot be read: {error.strerror}", where=str(folder)) from error
