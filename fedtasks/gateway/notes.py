"""What stands at the top of a DAG run's page: the words of the reports as Markdown, and the way to our page.

Airflow shows one line of it: the link comes first, then who must act and what is the matter; times and the run id last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedtasks.names import parts_of, pipeline_of
from fedtasks.reports.markdown import escape
from fedtasks.reports.status import ICONS, State, Status, counts_of, refusal_icon, refusal_words, words_of
from fedtasks.store import HalfRow, RefusalRow
from fedtasks.text import printable, shortened

MAX_NOTE = 1000
"""So many characters Airflow takes."""


def run_note(run_id: str, status: Status, own: Sequence[HalfRow], link: str, warning: str = "") -> str:
    """Say in one line of Markdown how a run stands.

    Parameters
    ----------
    run_id
        The run.
    status
        How it stands; part of it may be the peer's words.
    own
        This side's halves, whose counts are shown once the run is done.
    link
        Where our page of this DAG run is.
    warning
        What whoever uses the result must know: what the peer can read of the labels, and what halves have remarked.
    """
    counts = _counts(own) if status.state == State.DONE else ""
    warned = f"⚠ {warning}" if warning else ""
    return _note(ICONS[status.state], words_of(status, warned, counts), pipeline_of(run_id), run_id, link)


def refused(refusal: RefusalRow, party: str, link: str) -> str:
    """Say in one line of Markdown why a DAG run came to no run, or to none yet; `party` is this one."""
    return _note(refusal_icon(refusal), refusal_words(refusal, party), refusal.pipeline, "", link)


def not_needed(run_id: str, peer: str, link: str, *, done: bool) -> str:
    """Say that a DAG run has nothing to do."""
    state = "was done before" if done else "is running in another DAG run"
    return _note(ICONS[State.DONE], f"Nothing to do · the run with {peer} {state}", pipeline_of(run_id), run_id, link)


def together(notes: Iterable[str]) -> str:
    """Return the note of a DAG run that holds several runs: a line of each, the last ones where all have no room."""
    kept: list[str] = []
    for note in reversed(list(filter(None, notes))):
        if sum(map(len, kept)) + len(note) + 2 * len(kept) <= MAX_NOTE:
            kept.insert(0, note)
    return "\n\n".join(kept)


def _note(icon: str, text: str, pipeline: str, run_id: str, link: str) -> str:
    _, run = parts_of(pipeline)
    beginning, ending = f"{icon} [details]({link}) · {f'{run}: ' if run else ''}", f" · `{run_id}`" if run_id else ""
    room, kept = MAX_NOTE - len(beginning) - len(ending), MAX_NOTE
    # Escaped, a text has at most twice its length: it is cut before, so that no mark is parted from what it escapes.
    while len(escaped := escape(printable(shortened(text, kept, "details")))) > room:
        kept -= max(1, (len(escaped) - room) // 2)
    return f"{beginning}{escaped}{ending}"


def _counts(own: Sequence[HalfRow]) -> str:
    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts_of(own).items())
