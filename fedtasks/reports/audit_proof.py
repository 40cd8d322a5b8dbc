"""Whether an exported audit is what its party has signed, and whether tickets cover its runs; asks nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedtasks.checks import Finding, Verdict
from fedtasks.dataclass_io import build
from fedtasks.digests import canonical, digest
from fedtasks.errors import ConfigError, DataCorrupt, SignatureWrong, TicketInvalid
from fedtasks.reports.accounts import first_difference
from fedtasks.reports.audit_bundle import DECISION, END, FORMAT, HEAD, RUN, TICKET
from fedtasks.store import CUT, GENESIS, AuditRow, check_chain
from fedtasks.text import plain_text
from fedtasks.tickets import (
    Grant,
    read,
    read_audit,
    read_cut,
    read_receipt,
    signed_at_s,
    verify_acceptance,
    verify_declination,
    verify_revocation,
)
from fedtasks.untrusted import parse_object

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_LINE = 4 << 20
"""How many characters a line may have."""

MAX_NAMED = 20
"""So many lines with the same trouble are named; the others are counted."""

CLOCKS_S = 600
"""By how much the two clocks that have judged a ticket may have differed."""

_ORDER = {HEAD: 0, TICKET: 1, RUN: 2, DECISION: 3, END: 4}

Keys = Mapping[str, Sequence["Ed25519PublicKey"]]
"""Party → its ticket keys: more than one where it has had several."""


@dataclass(frozen=True)
class _Ticket:
    """A ticket whose signatures are in order."""

    grant: Grant
    is_accepted: bool
    revoked_s: int | None


@dataclass
class _Bundle:
    """What was read of a bundle so far."""

    keys: Keys
    troubles: list[tuple[int, str]] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    party: str = ""
    at_ms: int = 0
    tickets: dict[str, _Ticket] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    signed_runs: Counter[str] = field(default_factory=Counter)
    decided: set[str] = field(default_factory=set)
    missing: dict[str, int] = field(default_factory=dict)
    last: str = GENESIS
    kind: str = HEAD
    first: tuple[int, AuditRow] | None = None
    is_cut_signed: bool = False
    decision: AuditRow | None = None
    is_over: bool = False

    def trouble(self, line: int, text: str) -> None:
        self.troubles.append((line, text))


def prove(lines: Iterable[str], keys: Keys) -> list[Finding]:
    """Check an exported audit.

    Parameters
    ----------
    lines
        The file's lines.
    keys
        The public ticket keys that are trusted; signatures of a party without one are not checked, which is said.

    Returns
    -------
    list of Finding
        Something is wrong if one of them is; whatever is wrong with a line is told with its number.

    Notes
    -----
    Cost: a digest for each line, and one signature for each ticket's word and each receipt. In memory are the tickets
    and the names of runs.
    """
    bundle = _Bundle(keys)
    number = 0
    for number, text in enumerate(lines, 1):
        if bundle.is_over:
            bundle.trouble(number, "something follows the end")
            break
        _take(bundle, number, text)
    if bundle.first is not None and bundle.first[1].seq != 1 and not bundle.is_cut_signed:
        line, row = bundle.first
        bundle.trouble(line, f"the decisions before {row.seq} are gone, and no signed cut says so")
    if not bundle.is_over:
        bundle.trouble(number + 1, "the end is missing: the file was cut off")
    return list(_findings(bundle))


def _take(bundle: _Bundle, number: int, text: str) -> None:
    """Look at one line."""
    try:
        line = parse_object(text, max_chars=MAX_LINE)
        kind, content, previous, own = line["kind"], line["content"], line["previous"], line["digest"]
        is_line = line.keys() == {"kind", "content", "previous", "digest"} and kind in _ORDER
        if not is_line or not isinstance(content, dict) or canonical(line) != text.rstrip("\n"):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        bundle.trouble(number, "it is not a line of an audit")
        return
    if own != digest({"kind": kind, "content": content, "previous": previous}):
        bundle.trouble(number, "it was changed: its digest is another one")
    elif previous != bundle.last:
        bundle.trouble(number, "it does not follow the line before: something was left out, put in or moved")
    if (number == 1) != (kind == HEAD) or _ORDER[kind] < _ORDER[bundle.kind]:
        bundle.trouble(number, f"a line of kind {kind} does not belong here")
    before, bundle.last, bundle.kind = bundle.last, own, kind
    bundle.counts[kind] += 1
    try:
        if kind == END:
            _take_end(bundle, number, content, before)
        else:
            _READERS[kind](bundle, number, content)
    except (KeyError, TypeError, ValueError, AttributeError):
        bundle.trouble(number, f"its content is none of a line of kind {kind}")


def _take_head(bundle: _Bundle, number: int, content: Mapping[str, Any]) -> None:
    bundle.party, bundle.at_ms = str(content["party"]), int(content["at_ms"])
    if content["format"] != FORMAT:
        bundle.trouble(number, f"it is of format {content['format']}, and this release reads {FORMAT}")
    if bundle.party not in bundle.keys:
        raise ConfigError(f"name the ticket key of {plain_text(bundle.party, 64)}, whose audit this is", field="key")


def _take_ticket(bundle: _Bundle, number: int, content: Mapping[str, Any]) -> None:
    grantor, holder = bundle.party, str(content["peer"])
    if not content["granted"]:
        grantor, holder = holder, grantor
    if grantor not in bundle.keys:
        bundle.unchecked[grantor] += 1
        return
    text = content["grant"]
    try:
        grant = _signed(bundle, grantor, lambda key: read(text, key))
        if (grant.ticket_id, grant.grantor, grant.holder) != (content["ticket_id"], grantor, holder):
            raise TicketInvalid("it names other parties")
        revoked_s = None
        if revocation := content["revocation"]:
            _signed(bundle, grantor, lambda key: verify_revocation(revocation, grant.ticket_id, key))
            revoked_s = signed_at_s(revocation)
        for name, verify in (("acceptance", verify_acceptance), ("declination", verify_declination)):
            if not content[name]:
                continue
            if holder not in bundle.keys:
                bundle.unchecked[holder] += 1
                continue
            answer = content[name]
            _signed(bundle, holder, lambda key, verify=verify, answer=answer: verify(answer, text, key))  # type: ignore[misc]
    except (TicketInvalid, SignatureWrong) as error:
        bundle.trouble(number, f"ticket {plain_text(str(content['ticket_id']), 64)}: {error.detail or error.summary}")
        return
    bundle.tickets[grant.ticket_id] = _Ticket(grant, bool(content["acceptance"]), revoked_s)


def _take_run(bundle: _Bundle, number: int, content: Mapping[str, Any]) -> None:
    run_id = str(content["run_id"])
    said = plain_text(run_id, 128)
    if run_id in bundle.runs:
        bundle.trouble(number, f"run {said} stands twice")
    bundle.runs.add(run_id)
    for why in _uncovered(bundle, content):
        bundle.trouble(number, f"run {said} is not covered: {why}")
    try:
        accounts = list(_accounts(bundle, content))
    except SignatureWrong as error:
        bundle.trouble(number, f"a receipt of run {said}: {error.detail or error.summary}")
        return
    if accounts:
        bundle.signed_runs[str(content["ticket_id"])] += 1
    if content["state"] == "succeeded" and not (content["receipt"] and content["peer_receipt"]):
        bundle.trouble(number, f"run {said} is said to have succeeded without both receipts")
    elif content["state"] == "succeeded" and len(accounts) == 2:
        own, peer = accounts
        difference = first_difference(own, peer)
        if difference is not None:
            bundle.trouble(number, f"the receipts of run {said} differ in {plain_text(difference[0], 128)}")


def _uncovered(bundle: _Bundle, content: Mapping[str, Any]) -> Iterator[str]:
    """Say why a run is not covered by its ticket."""
    peer, opened_s = str(content["peer"]), int(content["opened_ms"]) / 1000
    grantor, holder = (peer, bundle.party) if content["initiated"] else (bundle.party, peer)
    ticket = bundle.tickets.get(str(content["ticket_id"]))
    if ticket is None:
        if grantor in bundle.keys:
            yield "there is no ticket of that name whose signature is in order"
        return
    grant = ticket.grant
    if (grant.grantor, grant.holder) != (grantor, holder):
        yield f"its ticket was granted by {grant.grantor} to {grant.holder}"
    if not ticket.is_accepted:
        yield "its ticket was not accepted"
    if content["pipeline"] not in grant.pipelines:
        yield "its ticket is for other pipelines"
    if not grant.not_before_s - CLOCKS_S <= opened_s < grant.expires_s + CLOCKS_S:
        yield "it was opened outside of its ticket's time"
    if ticket.revoked_s is not None and opened_s > ticket.revoked_s + CLOCKS_S:
        yield "its ticket had been revoked"


def _accounts(bundle: _Bundle, content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the accounts of both receipts of a run, as far as there is a key for them."""
    for party, receipt in ((bundle.party, content["receipt"]), (str(content["peer"]), content["peer_receipt"])):
        if not receipt:
            continue
        if party not in bundle.keys:
            bundle.unchecked[party] += 1
            continue
        account = _signed(bundle, party, lambda key, receipt=receipt: read_receipt(receipt, key))  # type: ignore[misc]
        named = {"party": party, "run_id": content["run_id"], "ticket_id": content["ticket_id"]}
        if any(account.get(name) != value for name, value in named.items()):
            raise SignatureWrong("it is of another run, ticket or party")
        yield account


def _take_decision(bundle: _Bundle, number: int, content: Mapping[str, Any]) -> None:
    try:
        row = build(AuditRow, content)
    except ConfigError as error:
        raise ValueError(error.detail) from error
    before = bundle.decision
    try:
        if before is None:
            bundle.first = number, row
            check_chain([row], None, GENESIS if row.seq == 1 else None)
        else:
            check_chain([row], before.seq + 1, before.digest)
    except DataCorrupt as error:
        bundle.trouble(number, error.detail)
    bundle.decision = row
    if row.action == CUT:
        _take_cut(bundle, number, row)
    run_id = row.detail.get("run_id")
    if isinstance(run_id, str) and row.decision != "refused" and row.action in ("run.start", "run.open"):
        bundle.decided.add(run_id)
        if run_id not in bundle.runs and row.at_ms < bundle.at_ms:
            bundle.missing.setdefault(run_id, number)


def _take_cut(bundle: _Bundle, number: int, row: AuditRow) -> None:
    """Look whether a signed cut stands for what is gone before the first decision."""
    said = {name: row.detail[name] for name in ("until", "digest")}
    try:
        claims = _signed(bundle, bundle.party, lambda key: read_cut(str(row.detail["signed"]), key))
    except SignatureWrong as error:
        bundle.trouble(number, f"a cut of the chain: {error.detail or error.summary}")
        return
    if any(claims.get(name) != value for name, value in said.items()):
        bundle.trouble(number, "a cut of the chain was signed as another one")
    elif bundle.first is not None:
        first = bundle.first[1]
        bundle.is_cut_signed |= (said["until"] + 1, said["digest"]) == (first.seq, first.previous)


def _take_end(bundle: _Bundle, number: int, content: Mapping[str, Any], before: str) -> None:
    bundle.is_over = True
    try:
        claims = _signed(bundle, bundle.party, lambda key: read_audit(content["signed"], key))
    except SignatureWrong as error:
        bundle.trouble(number, f"the end: {error.detail or error.summary}")
        return
    if claims.get("iss") != bundle.party:
        bundle.trouble(number, "the end was signed as another party's")
    if (claims.get("lines"), claims.get("last")) != (number - 1, before):
        bundle.trouble(number, f"{bundle.party} has signed other lines than these")
    if content["decisions"] != bundle.counts[DECISION]:
        bundle.trouble(number, f"{bundle.party} has signed {content['decisions']} decisions")


_READERS: Mapping[str, Callable[[_Bundle, int, Mapping[str, Any]], None]] = {
    HEAD: _take_head,
    TICKET: _take_ticket,
    RUN: _take_run,
    DECISION: _take_decision,
}


def _signed(bundle: _Bundle, party: str, verify: Callable[[Ed25519PublicKey], Any]) -> Any:
    """Return what a check returns with the first key of a party that fits; raise what it raises with the last."""
    *others, last = bundle.keys[party]
    for key in others:
        with suppress(TicketInvalid, SignatureWrong):
            return verify(key)
    return verify(last)


# ------------------------------------------------------------------------------------------------------------- in words
def _findings(bundle: _Bundle) -> Iterator[Finding]:
    for line, text in bundle.troubles[:MAX_NAMED]:
        yield Finding(f"line {line}", Verdict.WRONG, text, "Ask the party for its audit again, and compare")
    if (more := len(bundle.troubles) - MAX_NAMED) > 0:
        yield Finding("lines", Verdict.WRONG, f"{more} more are wrong")
    for ticket_id, n_runs in bundle.signed_runs.items():
        ticket = bundle.tickets.get(ticket_id)
        limit = ticket.grant.bound("limits.runs") if ticket is not None else None
        if limit is not None and n_runs > limit:
            text = f"ticket {ticket_id} allows {limit} runs, and {n_runs} have receipts"
            yield Finding("limits", Verdict.WRONG, text, "Ask both parties")
    for party, n_signed in sorted(bundle.unchecked.items()):
        text = f"{n_signed} signatures of {plain_text(party, 64)} were not checked"
        yield Finding("signatures", Verdict.WARNING, text, "Give its public ticket key too: --key NAME=KEY")
    undecided = sorted(bundle.runs - bundle.decided)
    for run_id in undecided[:MAX_NAMED]:
        yield Finding("runs", Verdict.WARNING, f"no decision speaks of run {plain_text(run_id, 128)}", _PARTIAL)
    for run_id, line in list(bundle.missing.items())[:MAX_NAMED]:
        text = f"line {line} decides on run {plain_text(run_id, 128)}, which is not in the file"
        yield Finding("runs", Verdict.WARNING, text, _PARTIAL)
    if not bundle.troubles:
        counts, last = bundle.counts, bundle.decision
        head = f", the last one {last.seq}: {last.digest}" if last is not None else ""
        text = f"{counts[TICKET]} tickets, {counts[RUN]} runs, {counts[DECISION]} decisions{head}"
        yield Finding(f"audit of {bundle.party}", Verdict.OK, text)


_PARTIAL = "Ask the party whether it keeps runs and decisions for a while only"
