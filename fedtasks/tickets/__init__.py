"""Tickets: what one party lets the other do, signed by both.

============= ==========================================================================================
`clauses`     what a ticket can say: each clause is declared once, by the package whose settings it bounds
`grant`       what one ticket says
`asked`       what a run asks for
`check`       refuses what a ticket does not cover
`signature`   signed texts
`keys`        the keys that sign
============= ==========================================================================================

A declaration is read while a DAG file is parsed or a help page is printed, so what needs cryptography is imported when
it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedtasks.tickets.asked import Asked, Request, asked_by, check_readable, request_of, settings_of
    from fedtasks.tickets.check import check_lookup, check_request, check_settings, check_window
    from fedtasks.tickets.clauses import Clause, Group, Per
    from fedtasks.tickets.grant import APPROVALS, ROLES, DatasetScope, Grant, new_ticket_id
    from fedtasks.tickets.keys import (
        fingerprint,
        generate_ticket_key,
        load_ticket_key,
        public_from_text,
        public_text,
        save_ticket_key,
    )
    from fedtasks.tickets.offers import offer
    from fedtasks.tickets.signature import (
        accept,
        decline,
        issue,
        peek,
        peek_reason,
        read,
        read_audit,
        read_cut,
        read_receipt,
        revoke,
        sign_audit,
        sign_cut,
        sign_receipt,
        signed_at_s,
        verify_acceptance,
        verify_declination,
        verify_revocation,
    )

__all__ = [
    "APPROVALS",
    "ROLES",
    "Asked",
    "Clause",
    "DatasetScope",
    "Grant",
    "Group",
    "Per",
    "Request",
    "accept",
    "asked_by",
    "check_lookup",
    "check_readable",
    "check_request",
    "check_settings",
    "check_window",
    "decline",
    "fingerprint",
    "generate_ticket_key",
    "issue",
    "load_ticket_key",
    "new_ticket_id",
    "offer",
    "peek",
    "peek_reason",
    "public_from_text",
    "public_text",
    "read",
    "read_audit",
    "read_cut",
    "read_receipt",
    "request_of",
    "revoke",
    "save_ticket_key",
    "settings_of",
    "sign_audit",
    "sign_cut",
    "sign_receipt",
    "signed_at_s",
    "verify_acceptance",
    "verify_declination",
    "verify_revocation",
]

_HOMES = {
    "APPROVALS": "grant",
    "Asked": "asked",
    "Clause": "clauses",
    "DatasetScope": "grant",
    "Grant": "grant",
    "Group": "clauses",
    "Per": "clauses",
    "ROLES": "grant",
    "Request": "asked",
    "accept": "signature",
    "asked_by": "asked",
    "check_lookup": "check",
    "check_readable": "asked",
    "check_request": "check",
    "check_settings": "check",
    "check_window": "check",
    "decline": "signature",
    "fingerprint": "keys",
    "generate_ticket_key": "keys",
    "issue": "signature",
    "load_ticket_key": "keys",
    "new_ticket_id": "grant",
    "offer": "offers",
    "peek": "signature",
    "peek_reason": "signature",
    "public_from_text": "keys",
    "public_text": "keys",
    "read": "signature",
    "read_audit": "signature",
    "read_cut": "signature",
    "read_receipt": "signature",
    "request_of": "asked",
    "revoke": "signature",
    "save_ticket_key": "keys",
    "settings_of": "asked",
    "sign_audit": "signature",
    "sign_cut": "signature",
    "sign_receipt": "signature",
    "signed_at_s": "signature",
    "verify_acceptance": "signature",
    "verify_declination": "signature",
    "verify_revocation": "signature",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
