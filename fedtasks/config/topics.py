"""Topics of Kafka as datasets: where they are, and how they are reached."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path

from fedtasks.dataclass_io import check_limits, shown, within
from fedtasks.errors import ConfigError

_SCHEME = "kafka://"
_ADDRESS = r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}"
_TOPIC = re.compile(rf"{_SCHEME}({_ADDRESS}(?:,{_ADDRESS})*)/([A-Za-z0-9._-]{{1,249}})")


class Security(enum.Enum):
    """How a connection to Kafka is kept, by Kafka's own words."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def has_login(self) -> bool:
        """Whether there are a user and a password."""
        return self in (Security.SASL_PLAINTEXT, Security.SASL_SSL)

    @property
    def has_tls(self) -> bool:
        """Whether there are certificates."""
        return self in (Security.SSL, Security.SASL_SSL)


@dataclass(frozen=True)
class Kafka:
    """How a topic is reached.

    Parameters
    ----------
    security
        How the connection is kept.
    mechanism, user, password_file
        Of SASL: how who logs in, and the file with the password.
    authority
        Of SSL: the authority that issued the brokers' certificates (PEM); by default those that the system trusts.
    certificate, private_key
        Of SSL: who this party is to the brokers (PEM), if they ask.
    """

    security: Security = Security.PLAINTEXT
    mechanism: str = within("", choices=("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))
    user: str = ""
    password_file: Path | None = None
    authority: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    def __post_init__(self) -> None:
        check_limits(self)
        for name in ("mechanism", "user", "password_file"):
            if bool(getattr(self, name)) != self.security.has_login:
                text = "is needed" if self.security.has_login else "only for SASL; leave it out"
                raise ConfigError(f"{text}: `security` is {self.security.value}", field=name)
        for name in ("authority", "certificate", "private_key"):
            if getattr(self, name) and not self.security.has_tls:
                text = f"only for SSL; leave it out: `security` is {self.security.value}"
                raise ConfigError(text, field=name)
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("goes with `certificate`: name both, or none", field="private_key")


def is_topic(uri: str) -> bool:
    """Whether a URI names a topic of Kafka."""
    return uri.startswith(_SCHEME)


def parts_of_topic(uri: str) -> tuple[list[str], str]:
    """Return the brokers that a topic's URI names, each ``host:port``, and the topic.

    Raises
    ------
    ConfigError
        It is not of the form ``kafka://host:port,host:port/topic``.
    """
    found = _TOPIC.fullmatch(uri)
    if found is None:
        raise ConfigError(f"`{shown(uri)}` is not of the form kafka://host:port/topic", field="uri")
    return found[1].split(","), found[2]
