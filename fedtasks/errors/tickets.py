"""The refusals: a ticket does not cover what was asked."""

from __future__ import annotations

from datetime import datetime

from fedtasks.errors.base import TicketError


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


class LabelLeakSpent(TicketError):
    """Raised when a peer would be told more of the labels than the ticket allows over all runs; AUCs in percent."""

    code = "LABEL_LEAK_SPENT"
    who = "both"
    summary = "As much of these labels has been told as the ticket allows"
    remedy = (
        "Protect the labels by what costs once (`label_protection: label_dp`), train fewer epochs or to a lower "
        "`max_label_leak`, or agree on a ticket that allows more (`--label-leak`)"
    )


class TicketBusy(TicketError):
    """Raised when as many runs as a ticket allows at once are under way."""

    code = "TICKET_BUSY"
    retryable = True
    summary = "As many runs as the ticket allows at once are under way"
    remedy = "Wait until one of them has ended, or ask {grantor} for a ticket that allows more at once"


class TicketRateLimited(TicketError):
    """Raised when a ticket's limit for 24 hours is used up; there is room again at ``room_at``."""

    code = "TICKET_RATE_LIMITED"
    retryable = True
    summary = "A daily limit of the ticket is used up"
    remedy = "Wait until the named time, or ask {grantor} for a wider ticket"

    @property
    def retry_at_ms(self) -> int:
        """When there is room again, as ``room_at`` says."""
        try:
            return int(datetime.fromisoformat(self.fields.get("room_at", "")).timestamp() * 1000)
        except (ValueError, OverflowError, OSError):
            return 0


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
