"""The base of all errors, and the families that they come in."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import ClassVar

WHO = ("own", "peer", "both", "grantor", "holder", "nobody")
"""Who may have to act: the party at which an error came up, the other one, both, one of a ticket, or nobody."""


@dataclass(frozen=True, kw_only=True)
class Parties:
    """What the parties that an error concerns are called; by default by their roles.

    Parameters
    ----------
    own, peer
        The party at which the error came up, and the other one.
    grantor, holder
        Who has granted the ticket in question, and to whom.
    """

    own: str = "this party"
    peer: str = "the other party"
    grantor: str = "the granting party"
    holder: str = "the ticket's holder"

    def acting(self, who: str) -> str:
        """Return what whoever must act is called; empty for nobody."""
        names = asdict(self) | {"both": f"{self.own} and {self.peer}", "nobody": ""}
        return str(names[who])

    def naming(self, text: str) -> str:
        """Put the parties' names into a text that has ``{own}``, ``{peer}``, ``{grantor}`` or ``{holder}``."""
        return re.sub(_ROLE, lambda found: str(getattr(self, found[1])), text)


_ROLE = r"\{(own|peer|grantor|holder)\}"


class FedtasksError(Exception):
    """Base of every error that fedtasks raises on purpose.

    Parameters
    ----------
    detail
        What happened, for this party only: may name files, columns, row numbers. Never an id, never a secret.
    where
        The place: ``party.yaml:12``, a task, a file.
    **fields
        Named facts that are safe to show to the peer, e.g. ``field="epochs", ours="8", theirs="10"``.

    Notes
    -----
    ``summary`` and ``remedy`` are read on both sides. A remedy speaks to whoever must act, names other parties as
    ``{own}``, ``{peer}``, ``{grantor}`` and ``{holder}``, and is shown as `advice` has it. ``of_peer`` tells errors
    that name what is wrong at the peer, whoever noticed: what they say came up at one party is a matter of the other.
    """

    code: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    who: ClassVar[str] = "own"
    of_peer: ClassVar[bool] = False
    summary: ClassVar[str] = ""
    remedy: ClassVar[str] = ""

    def __init__(self, detail: str = "", *, where: str = "", **fields: object) -> None:
        self.detail = detail
        self.where = where
        self.fields: dict[str, str] = {name: str(value) for name, value in fields.items()}
        super().__init__(detail)

    @property
    def public(self) -> str:
        """The text that the peer may see."""
        facts = ", ".join(f"{name}={value}" for name, value in self.fields.items())
        return f"{self.summary} ({facts})" if facts else self.summary

    @property
    def retry_at_ms(self) -> int:
        """When asking again can help, in milliseconds since the epoch; 0 where that is not known."""
        return 0

    @classmethod
    def among(cls, at: str, other: str, *, holder: str = "") -> Parties:
        """Return who is who for an error that came up `at` one of two parties; `holder` has the ticket, if that counts.

        What is wrong at the peer (`of_peer`) came up where it is, so that the other one is who reads of its peer.
        """
        own, peer = (other, at) if cls.of_peer else (at, other)
        if not holder:
            return Parties(own=own, peer=peer)
        return Parties(own=own, peer=peer, grantor=peer if holder == own else own, holder=holder)

    @classmethod
    def advice(cls, parties: Parties = Parties()) -> str:
        """Return the remedy with the parties' names in it."""
        return parties.naming(cls.remedy)

    def __str__(self) -> str:
        head = f"{self.code}: {self.detail or self.public}"
        if self.where:
            head = f"{head} [{self.where}]"
        return f"{head}. {self.advice()}" if self.remedy else head


class ConfigError(FedtasksError):
    """Raised when party.yaml or a task configuration is wrong."""

    code = "CONFIG_INVALID"
    summary = "A configuration is wrong"
    remedy = "Correct the named field"


class TicketError(FedtasksError):
    """Base of the refusals; ``clause`` names the part of the ticket that refused."""

    who = "holder"


class PeerError(FedtasksError):
    """Base of what the other party cannot or will not do."""

    who = "peer"


class RunError(FedtasksError):
    """Base of what ends a run as a whole."""

    who = "both"


class LinkError(FedtasksError):
    """Base of what breaks a conversation of two workers."""

    who = "both"


class DataError(FedtasksError):
    """Base of what is wrong with a dataset; ``detail`` names file, column and row."""


class CryptoError(FedtasksError):
    """Base of keys and signatures that cannot be trusted."""


class PageError(FedtasksError):
    """Base of what a page's caller is refused."""


class MachineError(FedtasksError):
    """Base of what is wrong on this machine."""
