"""The one registry of everything that can go wrong.

::

    FedtasksError
    ├── ConfigError ............ party.yaml or a task configuration is wrong
    ├── TicketError ............ a ticket does not cover what was asked
    ├── PeerError .............. the other party cannot or will not
    ├── RunError ............... the run as a whole cannot go on
    ├── LinkError .............. the conversation of two workers broke
    ├── DataError .............. a dataset is not what was declared
    ├── CryptoError ............ a key or a signature cannot be trusted
    ├── MachineError ........... this machine: store, port, process
    └── PageError .............. whoever asks through a page may not, or asks wrongly

Each leaf carries a stable ``code``, whether a retry can help, who must act, and a remedy. The same words appear in the
log, the CLI, the DAG run's note and on the wire. ``public`` is what the peer may see: by default the summary and the
``fields``, never ``detail``, which may name files, columns and rows of this party.

Both parties read the same sentences, so none says "here", "there" or "the other side": a summary names roles, and who
must act is data (`who`), which `Parties` turns into a name for whoever reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
        return _ROLE.sub(lambda found: str(getattr(self, found[1])), text)


_ROLE = re.compile(r"\{(own|peer|grantor|holder)\}")


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


# --------------------------------------------------------------------------------------------------- configuration
class ConfigError(FedtasksError):
    """Raised when party.yaml or a task configuration is wrong."""

    code = "CONFIG_INVALID"
    summary = "A configuration is wrong"
    remedy = "Correct the named field"


# ---------------------------------------------------------------------------------------------------------- tickets
class TicketError(FedtasksError):
    """Base of the refusals; ``clause`` names the part of the ticket that refused."""

    who = "holder"


class TicketMissing(TicketError):
    """Raised when no ticket covers the request."""

    code = "TICKET_MISSING"
    summary = "No ticket covers the request"
    remedy = "Name another ticket, or ask {grantor} for one (`fedtasks ticket request`) and accept what is offered"


class TicketInvalid(TicketError):
    """Raised when a ticket's signature, type or claims cannot be trusted."""

    code = "TICKET_INVALID"
    who = "both"
    summary = "The ticket cannot be trusted"
    remedy = "{grantor} issues the ticket again; {holder} checks that the pinned ticket key is that of {grantor}"


class TicketExpired(TicketError):
    """Raised after a ticket's time window."""

    code = "TICKET_EXPIRED"
    summary = "The ticket has expired"
    remedy = "Ask {grantor} for a new ticket (`fedtasks ticket request`)"


class TicketNotYetValid(TicketError):
    """Raised before a ticket's time window."""

    code = "TICKET_NOT_YET_VALID"
    summary = "The ticket is not valid yet"
    remedy = "Wait until the ticket is valid, or compare both clocks"


class TicketRevoked(TicketError):
    """Raised when the granting party has withdrawn the ticket."""

    code = "TICKET_REVOKED"
    summary = "The ticket has been revoked"
    remedy = "Ask {grantor} why, and for a new ticket (`fedtasks ticket request`)"


class TicketNotAccepted(TicketError):
    """Raised when a ticket was granted but never counter-signed."""

    code = "TICKET_NOT_ACCEPTED"
    summary = "The ticket has not been accepted"
    remedy = "Accept the ticket with `fedtasks ticket accept`"


class TicketDeclined(TicketError):
    """Raised when the holder has said no to the ticket."""

    code = "TICKET_DECLINED"
    who = "both"
    summary = "The ticket was declined by its holder"
    remedy = "Agree on another one: {holder} asks (`fedtasks ticket request`), {grantor} issues"


class TicketOffersFull(TicketError):
    """Raised when as many offered tickets as one party may have wait for the holder's answer."""

    code = "TICKET_OFFERS_FULL"
    summary = "Too many offered tickets wait for an answer"
    remedy = "Accept or decline those that wait (`fedtasks ticket accept`, `ticket decline`); then the next arrive"


class TicketScope(TicketError):
    """Raised when a request lies outside a ticket's scope."""

    code = "TICKET_SCOPE"
    summary = "The ticket does not cover what was asked"
    remedy = "Ask for what the named clause allows, or ask {grantor} for a wider ticket"


class TicketExhausted(TicketError):
    """Raised when one of a ticket's limits is used up."""

    code = "TICKET_EXHAUSTED"
    summary = "A limit of the ticket is used up"
    remedy = "Ask {grantor} for a new ticket (`fedtasks ticket request`)"


class TicketBusy(TicketError):
    """Raised when as many runs as a ticket allows at once are under way."""

    code = "TICKET_BUSY"
    retryable = True
    summary = "As many runs as the ticket allows at once are under way"
    remedy = "Start the run again once one of them has ended, or ask {grantor} for a ticket that allows more"


class TicketRateLimited(TicketError):
    """Raised when a ticket's limit for 24 hours is used up; there is room again at ``room_at``."""

    code = "TICKET_RATE_LIMITED"
    retryable = True
    summary = "A daily limit of the ticket is used up"
    remedy = "Wait until the named time, or ask {grantor} for a wider ticket"


class AttemptsExhausted(TicketError):
    """Raised when the other side has had a task repeated as often as the ticket allows within one run."""

    code = "ATTEMPTS_EXHAUSTED"
    summary = "One side has had a task repeated as often as the ticket allows within one run"
    remedy = "See why the task fails; then clear the task, which costs one more run of the ticket"


class FloorViolated(TicketError):
    """Raised when a run would fall below the ticket's privacy floor."""

    code = "FLOOR_VIOLATED"
    summary = "The run would fall below the ticket's privacy floor"
    remedy = "Raise the named setting to the floor, or ask {grantor} for a ticket that allows the laxer value by name"


# ------------------------------------------------------------------------------------------------------------- peers
class PeerError(FedtasksError):
    """Base of what the other party cannot or will not do."""

    who = "peer"


class PeerUnknown(PeerError):
    """Raised when a name is not among the peers of party.yaml."""

    code = "PEER_UNKNOWN"
    who = "own"
    summary = "The named party is not among the peers"
    remedy = "Correct the name, or add the party with `fedtasks peer add`"


class PeerIdentity(PeerError):
    """Raised when a certificate is not the one that belongs to the peer's name."""

    code = "PEER_IDENTITY"
    who = "both"
    summary = "The certificate does not belong to the peer"
    remedy = "Compare fingerprints by telephone, then add the peer again with `fedtasks peer add`"


class CertificateEnds(PeerError):
    """Raised when a gateway's certificate has little time left."""

    code = "CERTIFICATE_ENDS"
    who = "own"
    summary = "A gateway's certificate ends soon"
    remedy = "Renew the certificate with `fedtasks identity renew`, then restart the gateway"


class PeerUnreachable(PeerError):
    """Raised when the peer's gateway does not answer."""

    code = "PEER_UNREACHABLE"
    retryable = True
    who = "both"
    summary = "A peer's gateway does not answer"
    remedy = "Check that both gateways run and that the address and port are open (`fedtasks doctor`)"


class PeerDagMissing(PeerError):
    """Raised when the peer's Airflow does not know the DAG."""

    code = "PEER_DAG_MISSING"
    of_peer = True
    summary = "The DAG is not deployed in the Airflow of the party asked"
    remedy = "Deploy the same DAG file in {peer}'s Airflow"


class PeerDagBroken(PeerError):
    """Raised when the peer's Airflow cannot import the DAG."""

    code = "PEER_DAG_BROKEN"
    of_peer = True
    summary = "The DAG has import errors in the Airflow of the party asked"
    remedy = "Mend the import errors that {peer}'s Airflow shows"


class PeerPaused(PeerError):
    """Raised when the peer's DAG is paused."""

    code = "PEER_PAUSED"
    of_peer = True
    summary = "The DAG is paused in the Airflow of the party asked"
    remedy = "Unpause the DAG in {peer}'s Airflow"


class PeerAirflowUnreachable(PeerError):
    """Raised when the peer's gateway cannot reach its own Airflow."""

    code = "PEER_AIRFLOW_UNREACHABLE"
    retryable = True
    of_peer = True
    summary = "The gateway of the party asked cannot reach its Airflow"
    remedy = "Start {peer}'s Airflow, or correct `airflow` in {peer}'s party.yaml"


class PeerFailed(PeerError):
    """Raised when the other side's half of the run failed."""

    code = "PEER_FAILED"
    of_peer = True
    summary = "One party's half has failed"
    remedy = "See the named reason, and the log of the failed task in {peer}'s Airflow"


class PeerCancelled(PeerError):
    """Raised when a person ended the run on the other side."""

    code = "PEER_CANCELLED"
    of_peer = True
    who = "own"
    summary = "One party has cancelled the run"
    remedy = "Ask {peer} why; start the partition again when both agree"


class PeerRestarted(PeerError):
    """Raised when the other half began again, so that this half must meet it anew."""

    code = "PEER_RESTARTED"
    retryable = True
    who = "nobody"
    summary = "A half has started a new attempt"
    remedy = "Nothing to do: both halves meet again by a retry"


class PeerStalled(PeerError):
    """Raised when the other half is there, but nothing that this half waits for has come for too long."""

    code = "PEER_STALLED"
    retryable = True
    who = "both"
    summary = "A half has not moved for too long"
    remedy = (
        "Nothing to do while Airflow tries again; if {peer}'s half is only slow, raise `stall_s` in {own}'s "
        "party.yaml, else see why {peer}'s half hangs"
    )


class LookupsNotServed(PeerError):
    """Raised when nobody answers lookups of a dataset on the other side."""

    code = "LOOKUPS_NOT_SERVED"
    retryable = True
    summary = "Nobody answers lookups of the dataset now"
    remedy = "Start `fedtasks psi serve` for the dataset at {peer}"


class ClockSkew(PeerError):
    """Raised when the clocks of two gateways are too far apart for time windows to mean the same."""

    code = "CLOCK_SKEW"
    who = "both"
    summary = "The two gateways' clocks differ too much"
    remedy = "Synchronise both clocks (NTP)"


class VersionDiffers(PeerError):
    """Raised when two gateways or workers speak no common protocol version."""

    code = "VERSION_DIFFERS"
    who = "both"
    summary = "The two sides speak no common protocol version"
    remedy = "Upgrade the party with the older release"


class MessageTooLarge(PeerError):
    """Raised when a message between two gateways is longer, or holds more, than one of them takes."""

    code = "MESSAGE_TOO_LARGE"
    who = "both"
    summary = "A message between the gateways is too large"
    remedy = "Use fewer steps, shards or columns, or shorter outcomes; for live lookups, smaller batches"


class CallsExceeded(PeerError):
    """Raised when a caller has more calls open at a gateway than it may."""

    code = "CALLS_EXCEEDED"
    retryable = True
    who = "both"
    summary = "Too many calls are open at once"
    remedy = "Wait until some have ended; run fewer tasks of both parties at once"


class GatewayFailed(PeerError):
    """Raised when a gateway fails at a request in a way that nobody foresaw."""

    code = "GATEWAY_FAILED"
    who = "both"
    summary = "A gateway could not deal with the request"
    remedy = "See the log of the gateway that was asked, and its audit if a peer has asked"


# -------------------------------------------------------------------------------------------------------------- runs
class RunError(FedtasksError):
    """Base of what ends a run as a whole."""

    who = "both"


class RunUnknown(RunError):
    """Raised when nobody opened the run."""

    code = "RUN_UNKNOWN"
    who = "own"
    summary = "No such run is known"
    remedy = "List the known runs with `fedtasks runs`; a run begins with its DAG's `open_run`"


class RunExists(RunError):
    """Raised when a run's id, or its DAG run, is taken by another run."""

    code = "RUN_EXISTS"
    retryable = True
    who = "own"
    summary = "Another run has the name or the DAG run"
    remedy = "Wait until the other run has ended, or cancel the other one (`fedtasks run cancel`)"


class RunEnded(RunError):
    """Raised when a run has already ended."""

    code = "RUN_ENDED"
    who = "own"
    summary = "The run has ended"
    remedy = "Start the partition again"


class RunCancelled(RunError):
    """Raised when a person ended the run on this side."""

    code = "RUN_CANCELLED"
    who = "nobody"
    summary = "The run was cancelled"
    remedy = "Nothing to do; start the partition again when both agree"


class ApprovalPending(RunError):
    """Raised when a half would begin although the person whom the ticket asks for has not answered."""

    code = "APPROVAL_PENDING"
    who = "grantor"
    summary = "A person has yet to approve the run"
    remedy = "Answer the question of the task `approve` in {grantor}'s Airflow; marking the task is no answer"


class ApprovalRejected(RunError):
    """Raised when the person whom a ticket asks for has said no."""

    code = "APPROVAL_REJECTED"
    summary = "A person of the granting party has rejected the run"
    remedy = "Agree on what may run, then start the partition again"


class ApprovalExpired(RunError):
    """Raised when nobody answered whether a run may begin."""

    code = "APPROVAL_EXPIRED"
    who = "holder"
    summary = "Nobody of the granting party has approved the run in time"
    remedy = "Let {grantor} know, then start the partition again"


class RunFailed(RunError):
    """Raised when the Airflow of this side failed the run outside of a federated task."""

    code = "RUN_FAILED"
    who = "own"
    summary = "The DAG run failed"
    remedy = "See the failed task's log in Airflow"


class ConfigDiffers(RunError):
    """Raised when both sides' configurations differ in the named ``field``."""

    code = "CONFIG_DIFFERS"
    summary = "The two sides' configurations differ"
    remedy = "Agree on the named field and deploy the same DAG on both sides"


class RowOrderDiffers(RunError):
    """Raised when the two sides hold rows in different orders."""

    code = "ROW_ORDER_DIFFERS"
    summary = "The two sides' rows are not in the same order"
    remedy = "Clear the task `align` on both sides"


class ReceiptsDiffer(RunError):
    """Raised when the two sides' accounts of a run differ."""

    code = "RECEIPTS_DIFFER"
    summary = "The two sides' receipts differ"
    remedy = "Compare the named count or digest; do not use the outputs"


class DeadlinePassed(RunError):
    """Raised when the other half was not ready in time."""

    code = "DEADLINE"
    summary = "A half was not ready in time"
    remedy = "See what {peer}'s half waits for; raise the deadline if more time is all that is needed"


class TrainingDiverged(RunError):
    """Raised when a loss, a weight, a score or what would be sent is no longer a finite number of a sensible size."""

    code = "TRAINING_DIVERGED"
    summary = "The training diverged"
    remedy = "Lower `learning_rate`, or look for extreme values among the features"


class LabelLeaks(RunError):
    """Raised when attacks on what a training has sent read the labels better than the run allows."""

    code = "LABEL_LEAK"
    who = "own"
    summary = "The labels leak more than the run allows"
    remedy = (
        "Look at the metrics `label_leak_…`; then train boosted trees, or allow more by `max_label_leak`, as far "
        "as the ticket does"
    )


class ModelTaken(RunError):
    """Raised when a model's name belongs to another pipeline or peer, or a version's number to another version."""

    code = "MODEL_TAKEN"
    who = "own"
    summary = "This name of a model is in use elsewhere"
    remedy = "Give the pipeline's steps another `model`; `fedtasks models` lists those that are taken"


class ModelUnknown(RunError):
    """Raised when there is no such version of a model."""

    code = "MODEL_UNKNOWN"
    who = "own"
    summary = "There is no such version of the model"
    remedy = "Choose one that `fedtasks models` lists"


class ChampionDiffers(RunError):
    """Raised when the two sides cannot put the same version of a model into use."""

    code = "CHAMPION_DIFFERS"
    summary = "The two sides do not hold the same version of the model"
    remedy = "Compare `fedtasks models show` of both sides and choose a version with equal digests"


class AttemptStale(RunError):
    """Raised when an old attempt tries to speak or write after a newer one has begun."""

    code = "ATTEMPT_STALE"
    retryable = True
    who = "nobody"
    summary = "A newer attempt of the task has begun"
    remedy = "Nothing to do: the newer attempt goes on"


# -------------------------------------------------------------------------------------------------------------- link
class LinkError(FedtasksError):
    """Base of what breaks a conversation of two workers."""

    who = "both"


class LinkLost(LinkError):
    """Raised when a link could not be resumed in time."""

    code = "LINK_LOST"
    retryable = True
    who = "both"
    summary = "The connection of the two halves was lost"
    remedy = "Nothing to do while Airflow tries again; else check the network and both gateways"


class ProtocolViolated(LinkError):
    """Raised when the other half sends what nobody asked for."""

    code = "PROTOCOL_VIOLATED"
    summary = "A half or a gateway has sent an unexpected message"
    remedy = "See that both sides run the same release"


class SecretRejected(LinkError):
    """Raised when a worker does not present its gateway's secret."""

    code = "SECRET_REJECTED"
    who = "own"
    summary = "The gateway rejected the worker's secret"
    remedy = "Check `gateway.worker_secret_file` and its permissions"


class GatewayUnreachable(LinkError):
    """Raised when a worker cannot reach its own gateway."""

    code = "GATEWAY_UNREACHABLE"
    retryable = True
    who = "own"
    summary = "A worker's own gateway does not answer"
    remedy = "Start the gateway with `fedtasks gateway`, or correct `gateway.workers` in party.yaml"


# -------------------------------------------------------------------------------------------------------------- data
class DataError(FedtasksError):
    """Base of what is wrong with a dataset; ``detail`` names file, column and row."""


class DataMissing(DataError):
    """Raised when a file or table is not there."""

    code = "DATA_MISSING"
    summary = "A dataset's file is missing"
    remedy = "Put the file in place or correct the dataset's `uri`"


class DataNotLanded(DataError):
    """Raised when a partition of a dataset is not complete; ``dataset`` and ``partition`` name it."""

    code = "DATA_NOT_LANDED"
    retryable = True
    summary = "The partition's data has not landed"
    remedy = "Land the partition with `fedtasks data land`, or choose one that has landed"


class DatasetChanged(DataError):
    """Raised when a dataset is declared otherwise than when the run opened."""

    code = "DATA_DECLARED_ANEW"
    summary = "A dataset is declared otherwise than when the run opened"
    remedy = "Clear `open_run`, so that the run takes up what party.yaml declares now"


class FileInvalid(DataError):
    """Raised when a file is not of its declared format."""

    code = "DATA_FILE_INVALID"
    summary = "A file cannot be read as its declared format"
    remedy = "Correct the file or the dataset's `format`"


class FileForbidden(DataError):
    """Raised when a file is there and this process may not read it."""

    code = "DATA_FILE_FORBIDDEN"
    summary = "A dataset's file may not be read"
    remedy = "Let the user whom Airflow's tasks run as read it"


class FileUnexpected(DataError):
    """Raised when a dataset's folder holds a file that is neither hidden nor of the declared format."""

    code = "DATA_FILE_UNEXPECTED"
    summary = "A dataset's folder holds a file of another format"
    remedy = "Move the file away, let its name begin with `_`, or name its ending in the dataset's `endings`"


class ColumnMissing(DataError):
    """Raised when a declared column is not in the file."""

    code = "DATA_COLUMN_MISSING"
    summary = "A declared column is missing"
    remedy = "Add the column to the file or remove it from the dataset"


class ColumnType(DataError):
    """Raised when a column's values are not of the declared type."""

    code = "DATA_COLUMN_TYPE"
    summary = "A column has another type than declared"
    remedy = "Correct the file or the declared type"


class ColumnEmpty(DataError):
    """Raised when a feature has no value in any train row."""

    code = "DATA_COLUMN_EMPTY"
    summary = "A feature has no value in any row"
    remedy = "Take the named feature out of the dataset in party.yaml, or fill it"


class ModelNewer(DataError):
    """Raised when a half of a model was written by a newer release, in a way that this one cannot read."""

    code = "MODEL_NEWER"
    summary = "A model was written by a newer release of fedtasks"
    remedy = "Upgrade fedtasks, or use a version that was trained before"


class CategoryUnknown(DataError):
    """Raised when a row to be scored has a category that no train row had."""

    code = "DATA_CATEGORY_UNKNOWN"
    summary = "A category was not seen in training"
    remedy = "Train anew with such rows, or set `unknown: missing` to treat it as no value"


class IdNull(DataError):
    """Raised when no row has an id; rows without one are left out where others have one."""

    code = "DATA_ID_NULL"
    summary = "No row has an id"
    remedy = "Name the column that identifies people in the dataset's `id`, or complete it"


class IdLong(DataError):
    """Raised when an id has more bytes than an intersection can take."""

    code = "DATA_ID_LONG"
    summary = "An id is longer than 65,535 bytes"
    remedy = "Correct the row: what stands there is hardly an id, as when a quote is never closed"


class IntersectionEmpty(DataError):
    """Raised when the parties share no one, or fewer people than the privacy floor asks for."""

    code = "DATA_INTERSECTION_EMPTY"
    who = "both"
    summary = "The two sides share too few ids"
    remedy = "Check that both ids mean the same and are normalised alike (`fedtasks doctor --data`)"


class LabelInvalid(DataError):
    """Raised when the label is missing, constant, or held by both parties."""

    code = "DATA_LABEL_INVALID"
    who = "both"
    summary = "The label cannot be used"
    remedy = "Exactly one party declares a label, and it has at least two different values"


class DataCorrupt(DataError):
    """Raised when a file does not match its manifest."""

    code = "DATA_CORRUPT"
    summary = "A file does not match its manifest"
    remedy = "Clear the task that wrote the file"


# ------------------------------------------------------------------------------------------------------------ crypto
class CryptoError(FedtasksError):
    """Base of keys and signatures that cannot be trusted."""


class KeyWeak(CryptoError):
    """Raised when a key is too short or of a form that leaks."""

    code = "KEY_WEAK"
    summary = "The key is too weak"
    remedy = "Make a new key with `fedtasks psi keygen`"


class KeyInvalid(CryptoError):
    """Raised when a key cannot be read or its proof does not hold."""

    code = "KEY_INVALID"
    who = "both"
    summary = "The key or its proof is invalid"
    remedy = "Make a new key with `fedtasks psi keygen`"


class SignatureWrong(CryptoError):
    """Raised when a signature does not verify."""

    code = "SIGNATURE_WRONG"
    who = "both"
    summary = "A signature does not verify"
    remedy = "Do not go on with this peer before the cause is known"


# ------------------------------------------------------------------------------------------------------------- pages
class PageError(FedtasksError):
    """Base of what a page's caller is refused."""


class NotSignedIn(PageError):
    """Raised when a page's caller has not signed in to Airflow."""

    code = "NOT_SIGNED_IN"
    summary = "Nobody is signed in"
    remedy = "Sign in to Airflow again, then reload the page"


class NotAllowed(PageError):
    """Raised when Airflow does not give the caller the right."""

    code = "NOT_ALLOWED"
    summary = "Airflow does not give the caller the right"
    remedy = "Ask whoever administers Airflow for the right"


class RequestInvalid(PageError):
    """Raised when a request to a page's API is not one that it understands."""

    code = "REQUEST_INVALID"
    summary = "The page's request is not understood"
    remedy = "Reload the page; if that does not help, compare the versions of page and server"


# ------------------------------------------------------------------------------------------------------ this machine
class MachineError(FedtasksError):
    """Base of what is wrong on this machine."""


class NotPrivate(MachineError):
    """Raised when other users of this machine could read, or have made, what must be this party's alone."""

    code = "NOT_PRIVATE"
    summary = "What must be one party's alone is open to other users of its machine"
    remedy = "Run the command that is named, then see who may have read the files"


class StoreUnavailable(MachineError):
    """Raised when the store cannot be reached or is of another version."""

    code = "STORE_UNAVAILABLE"
    retryable = True
    summary = "The store is not available"
    remedy = "Check `store` in party.yaml; migrate with `fedtasks store migrate`"


class StorageUnavailable(MachineError):
    """Raised when a remote store of files did not serve, though it was asked again; ``where`` is the file's URI."""

    code = "STORAGE_UNAVAILABLE"
    retryable = True
    summary = "The storage of files does not serve"
    remedy = "Look why HDFS, or whatever `storage` and the datasets' `uri` name, does not serve; then clear the task"


class AirflowUnreachable(MachineError):
    """Raised when this party's own Airflow does not answer."""

    code = "AIRFLOW_UNREACHABLE"
    retryable = True
    summary = "The gateway's own Airflow does not answer"
    remedy = "Start Airflow, or correct `airflow` in party.yaml"


class AirflowRefused(AirflowUnreachable):
    """Raised when Airflow answers, but does not let the gateway's user in or gives that user too few rights."""

    code = "AIRFLOW_REFUSED"
    summary = "The gateway's own Airflow refuses the gateway's login"
    remedy = (
        "Correct the login in the section `airflow` of party.yaml, or what its file holds; or give that user its "
        "rights in Airflow"
    )


class GatewayOutdated(MachineError):
    """Raised when the gateway runs with another party.yaml than the one that is there, in parts that are read once."""

    code = "GATEWAY_OUTDATED"
    summary = "The gateway was started before its party.yaml was changed"
    remedy = "Restart the gateway; then party.yaml counts as it stands"


class NoticeFailed(MachineError):
    """Raised when a notice could not be posted."""

    code = "NOTICE_FAILED"
    retryable = True
    summary = "A notice could not be posted"
    remedy = "Check the URL in `notify.webhook_url_file` of party.yaml, and that this machine may reach it"


class PortInUse(MachineError):
    """Raised when a listener's port is taken."""

    code = "PORT_IN_USE"
    summary = "A port or socket is in use"
    remedy = "Stop the other process or name another port or socket in party.yaml"


class DemoRunning(MachineError):
    """Raised when a demo is started while another one of this user runs on the same machine."""

    code = "DEMO_RUNNING"
    summary = "Another demo runs on the same machine"
    remedy = "Wait until the other demo has ended, or end it where it was started (Ctrl-C), then start again"


class MemoryShort(MachineError):
    """Raised when a process needs more memory than it may take."""

    code = "MEMORY_SHORT"
    summary = "A task needs more memory than it may take"
    remedy = "Raise `duckdb.memory` in party.yaml, or lower `duckdb.threads`; then clear the task"


class DiskFull(MachineError):
    """Raised when what a process keeps in files finds no room."""

    code = "DISK_FULL"
    retryable = True
    summary = "A disk is full"
    remedy = "Free the disk that `storage` of party.yaml, or the folder for temporary files, is on"


class ProcessFailed(MachineError):
    """Raised when an algorithm's process ended without saying why."""

    code = "PROCESS_FAILED"
    retryable = True
    summary = "The algorithm's process died"
    remedy = "See the task's log; a retry goes on from the newest joint checkpoint"


def leaves(root: type[FedtasksError] = FedtasksError) -> Iterator[type[FedtasksError]]:
    """Yield every error class that has a code of its own, in the order of definition."""
    if root.code:
        yield root
    for child in root.__subclasses__():
        yield from leaves(child)


def from_code(code: str, detail: str = "", *, where: str = "") -> FedtasksError:
    """Rebuild an error from its code, as read from the wire, the store or a process.

    An unknown code (a newer peer) becomes `PeerFailed` with the code in its text, never an exception of its own.
    """
    for leaf in leaves():
        if leaf.code == code:
            return leaf(detail, where=where)
    return PeerFailed(f"{code}: {detail}" if detail else code, where=where)
