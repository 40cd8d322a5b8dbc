"""The other party cannot or will not, or the conversation with it broke."""

from __future__ import annotations

from fedtasks.errors.base import LinkError, PeerError


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


class PartyTwice(PeerError):
    """Raised when a gateway of a party calls while another gateway of the same party is connected."""

    code = "PARTY_TWICE"
    retryable = True
    who = "both"
    summary = "Two gateways of one party run at once"
    remedy = "Stop one of both gateways of the named party; a gateway that is replaced gives way when it stops"


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
    summary = "The Airflow of the party asked does not answer its gateway, or a part of it does not run"
    remedy = "Start {peer}'s Airflow with all of its parts, or correct `airflow` in {peer}'s party.yaml"


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
    remedy = (
        "Check `gateway.worker_secret_file` and its permissions; at the gateway, `fedtasks worker list` shows who is "
        "let in, and `fedtasks worker rotate` makes another secret"
    )


class WorkerForbidden(LinkError):
    """Raised when a worker that its gateway knows asks for what its identity may not do; ``identity`` names it."""

    code = "WORKER_FORBIDDEN"
    who = "own"
    summary = "A worker has asked its gateway for what its identity may not do"
    remedy = (
        "Use an identity that may do it; or revoke this one and add it anew: `fedtasks worker revoke`, then "
        "`fedtasks worker add` with another `--may`"
    )


class GatewayUnreachable(LinkError):
    """Raised when a worker cannot reach its own gateway."""

    code = "GATEWAY_UNREACHABLE"
    retryable = True
    who = "own"
    summary = "A worker's own gateway does not answer"
    remedy = "Start the gateway with `fedtasks gateway`, or correct `gateway.workers` in party.yaml"
