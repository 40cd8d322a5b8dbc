"""Looks at a DAG file before anybody deploys it: does it parse, can it run, and does a ticket cover it."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedtasks import tickets
from fedtasks.airflow.dagfiles import Declared, declared_in
from fedtasks.checks import Finding, Verdict, wrong
from fedtasks.config import Party, load_party
from fedtasks.errors import (
    ConfigError,
    FedtasksError,
    TicketDeclined,
    TicketError,
    TicketMissing,
    TicketNotAccepted,
    TicketRevoked,
)
from fedtasks.label_budget import ALL, percent_of
from fedtasks.pipeline.shared import check_steps
from fedtasks.pipeline.step import Step

if TYPE_CHECKING:
    from fedtasks.store import Store

PARSE_S = 1.0
"""How much processor time a DAG file may take: Airflow parses it every few seconds."""

_CUT_FORWARD = (
    "A network that is cut further forward, with more of its layers at the label's side, costs nothing and hides more"
)
_IN_FUNCTIONS = "Import inside the function that uses it"


def check(file: Path, party_file: Path, pipeline: str = "") -> Iterator[Finding]:
    """Check a DAG file; yields findings as they come.

    Parameters
    ----------
    file
        The DAG file.
    party_file
        As whom; if that file is not there, what needs it is left out.
    pipeline
        Which of the file's pipelines, where it holds several.
    """
    party = None
    try:
        declared = declared_in(file, party_file if party_file.is_file() else None, pipeline)
        party = load_party(party_file) if party_file.is_file() else None
    except FedtasksError as error:
        yield wrong("parses", error)
        return
    yield from _parsing(declared, has_party=party is not None)
    yield from _entries(declared)
    if party is None:
        text = f"not checked: there is no {party_file}"
        remedy = "Run `fedtasks init`, or name the file with --party"
        yield from (Finding(subject, Verdict.NOTE, text, remedy) for subject in ("form", "ticket"))
        return
    if declared.open_fields and declared.starts_itself:
        remedy = "A scheduled run fills in no form: name `dataset` or `peer` in the pipeline"
        yield Finding("form", Verdict.WRONG, declared.open_fields, remedy)
        return
    if declared.open_fields:
        yield Finding("form", Verdict.NOTE, declared.open_fields, "Whoever triggers it fills this in")
        return
    shared = declared.shared
    datasets = ", ".join(f"{name}: {dataset}" for name, dataset in shared["datasets"].items())
    yield Finding("form", Verdict.OK, f"with {declared.asks['peer']}, {shared['leader']} leads, {datasets}")
    yield from _ticket(declared, party)


def _parsing(declared: Declared, *, has_party: bool) -> Iterator[Finding]:
    steps = ", ".join(step.name for step in declared.steps)
    roles = "as the side that starts it and as the other" if has_party else "as a party without party.yaml"
    yield Finding("parses", Verdict.OK, f"{declared.pipeline}: {steps}; {roles}")
    if declared.took_s >= PARSE_S:
        text = f"parsing takes {declared.took_s:.1f} s of processor time, {PARSE_S:g} s at most is good"
        yield Finding("parse time", Verdict.WRONG, text, _IN_FUNCTIONS)
    elif declared.heavy:
        yield Finding("parse time", Verdict.WARNING, f"it imports {', '.join(declared.heavy)}", _IN_FUNCTIONS)
    else:
        yield Finding("parse time", Verdict.OK, f"{1000 * declared.took_s:.0f} ms")
    if declared.has_schedule and not declared.starts_itself:
        remedy = "List it in `schedules` of party.yaml at the one side that starts it"
        yield Finding("schedule", Verdict.NOTE, "here it only answers", remedy)
    elif declared.has_schedule:
        yield Finding("schedule", Verdict.OK, "this side starts it")


def _entries(declared: Declared) -> Iterator[Finding]:
    try:
        check_steps(declared.steps, {step.name: step.settings for step in declared.steps})
    except ConfigError as error:
        yield wrong("settings", error)
    missing = [f"{step.name}: {problem}" for step in declared.steps if (problem := _missing(step))]
    if missing:
        yield Finding("steps", Verdict.WRONG, "; ".join(missing), "Install it on this machine, or correct `entry`")
    else:
        yield Finding("steps", Verdict.OK, "what they run is installed here")


def _missing(step: Step) -> str:
    """Say what of a step's code is not here; looks into the source, since importing it could be slow."""
    place, _, name = step.entry.rpartition(":")
    try:
        spec = None if place.endswith(".py") else find_spec(place)
    except ModuleNotFoundError:
        spec = None
    source = Path(place if place.endswith(".py") else (spec.origin if spec and spec.origin else ""))
    if not source.is_file():
        return f"there is no module {place}"
    names = {node.name for node in ast.parse(source.read_text(encoding="utf-8")).body if hasattr(node, "name")}
    return "" if name in names else f"{place} defines no {name}"


def _ticket(declared: Declared, party: Party) -> Iterator[Finding]:
    """Say which of the tickets held covers a run with the form's defaults, or why none does."""
    refusals: list[str] = []
    peer = declared.asks["peer"]
    for ticket_id, refusal in _held(declared, party, peer):
        if refusal is None:
            yield Finding("ticket", Verdict.OK, f"{ticket_id} of {peer} covers it")
            yield from _labels(declared, party)
            return
        refusals.append(f"{ticket_id}: {refusal.code}: {refusal.detail or refusal.public}")
    if refusals:
        remedy = f"Change what is named, or ask {peer} for another ticket: `fedtasks ticket request`"
        yield Finding("ticket", Verdict.WRONG, "; ".join(refusals), remedy)
    else:
        yield wrong("ticket", TicketMissing(f"{peer} has granted no ticket that names `{declared.pipeline}`"))


def _labels(declared: Declared, party: Party) -> Iterator[Finding]:
    """Say how well a run would let the peer read this party's labels."""
    from fedtasks.reports.labels import labels_of, what_is_told
    from fedtasks.store import Store

    peer, shared = declared.asks["peer"], declared.shared
    labels = labels_of(party, peer, shared)
    if labels is None:
        return
    with Store.open(party.store.url, party.store.password_file) as store:
        asked = what_is_told(store, labels, shared, _kinds(declared))
        before = store.label_spends.total(labels)
    if not asked:
        return
    if asked >= ALL:
        text = f"a run lets {peer} read every `{labels.label}` of `{labels.dataset}`"
        yield Finding("labels", Verdict.WARNING, text, "Set `label_protection` to one that bounds what can be read")
        return
    told = f", and {percent_of(before + asked):g} % with what it was told before" if before else ""
    text = (
        f"a run lets {peer} read `{labels.label}` of `{labels.dataset}` with an AUC of at most {percent_of(asked):g} %"
    )
    yield Finding("labels", Verdict.OK, f"{text} (50 % is guessing){told}", _CUT_FORWARD)


def _kinds(declared: Declared) -> dict[str, str]:
    return {step.name: step.kind for step in declared.steps}


def _held(declared: Declared, party: Party, peer: str) -> Iterator[tuple[str, FedtasksError | None]]:
    """Yield each ticket held that names the pipeline, and what it refuses."""
    from fedtasks.store import Store

    with Store.open(party.store.url, party.store.password_file) as store:
        yield from _judged(store, declared, party, peer)


def _judged(store: Store, declared: Declared, party: Party, peer: str) -> Iterator[tuple[str, FedtasksError | None]]:
    from fedtasks.reports.labels import labels_of, require_budget

    for row in store.tickets.list(peer=peer, granted=False):
        try:
            grant = tickets.read(row.grant, tickets.public_from_text(party.peer(peer).ticket_key))
            if declared.pipeline not in grant.pipelines:
                continue
            if row.revocation:
                raise TicketRevoked(clause="revocation", ticket=row.ticket_id)
            if row.declination:
                raise TicketDeclined(clause="declination", ticket=row.ticket_id)
            if not row.acceptance:
                raise TicketNotAccepted(clause="acceptance", ticket=row.ticket_id)
            scopes = {scope.name: scope for scope in grant.datasets}
            shared = declared.shared
            if len(scopes) == 1:
                shared["datasets"].setdefault(peer, *scopes)
            asked = tickets.request_of(
                shared,
                grantor=peer,
                holder=party.name,
                pipeline=declared.pipeline,
                datasets=scopes,
                step_kinds=_kinds(declared),
            )
            tickets.check_request(grant, asked, time.time())
            require_budget(store, labels_of(party, peer, shared), grant, shared, _kinds(declared))
        except (TicketError, ConfigError) as error:
            yield row.ticket_id, error
        else:
            yield row.ticket_id, None
