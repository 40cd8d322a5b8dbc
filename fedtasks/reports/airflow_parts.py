"""Which parts of this party's own Airflow do not run, as the gateway has seen it; said by all in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from fedtasks.clock import utc
from fedtasks.store import PeerRow, Store

API_SERVER = "api-server"
STARTING = frozenset({"metadatabase", "scheduler"})
"""Without one of these, no task of a new DAG run begins; without an api-server there is no DAG run at all."""

_PARTS = {"metadatabase": "metadatabase", "scheduler": "scheduler", "triggerer": "triggerer"} | {
    "dag_processor": "dag-processor"
}
"""What Airflow calls a part in its health → how people know it."""


@dataclass(frozen=True)
class Silent:
    """A part of Airflow that has not been heard of for longer than Airflow's own settings let pass.

    Parameters
    ----------
    part
        Its name: ``scheduler``, ``triggerer``, ``dag-processor``, ``metadatabase`` or ``api-server``.
    since_ms
        When it was last heard of; 0 if never.
    """

    part: str
    since_ms: int

    def said(self, party: str) -> str:
        """Say it in one sentence that names the party whose part it is."""
        if not self.since_ms:
            return f"{party}'s {self.part} does not run"
        return f"{party}'s {self.part} has not been heard of since {utc(self.since_ms, '%H:%M:%S')} UTC"


def silent_parts(health: Mapping[str, Any]) -> tuple[Silent, ...]:
    """Return which parts do not run, by the answer of ``/monitor/health``; what is not understood of it counts as well.

    Notes
    -----
    Airflow knows no dag-processor and no triggerer (``null``) where none has ever been started. Without a triggerer
    nothing that waits goes on; a dag-processor may be part of something else.
    """
    found = []
    for name, part in _PARTS.items():
        state = health.get(name)
        if not isinstance(state, Mapping) or "status" not in state:
            continue
        never = state["status"] is None and name == "triggerer"
        if never or state["status"] == "unhealthy":
            found.append(Silent(part, _ms(state.get(f"latest_{name}_heartbeat"))))
    return tuple(found)


def _ms(moment: object) -> int:
    try:
        return int(datetime.fromisoformat(str(moment)).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return 0


def said(silent: Iterable[Silent], party: str) -> str:
    """Say in plain words which parts of a party's Airflow do not run; empty if all do."""
    return ", ".join(each.said(party) for each in silent)


def silent_now(store: Store, party: str) -> tuple[Silent, ...]:
    """Return which parts of this party's Airflow do not run, as its gateway has written down last."""
    row = store.peers.get(party)
    return tuple(Silent(each["part"], each["since_ms"]) for each in (row.checks or [] if row else []))


def keep(store: Store, party: str, silent: Iterable[Silent], now_ms: int) -> None:
    """Write down which parts of this party's Airflow do not run, beside how its peers are."""
    parts = [asdict(each) for each in silent]
    row = PeerRow(party, connected=True, version="", clock_skew_s=0.0, failure=None, since_ms=now_ms, seen_ms=now_ms)
    store.peers.put_checks(replace(row, checks=parts, checked_ms=now_ms))
