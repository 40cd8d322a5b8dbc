"""Commits of joined streams, as the halves of a join make them."""

from __future__ import annotations

import re

from fedtasks.config import check_name
from fedtasks.errors import ConfigError
from fedtasks.gateway.base import Base
from fedtasks.gateway.runs import Runs
from fedtasks.store import JoinRow, JoinWindowRow
from fedtasks.wire.v1 import worker_pb2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNTS = [field.name for field in worker_pb2.JoinWindow.DESCRIPTOR.fields]
_MAX_SHARD = 1 << 16
_MAX_WINDOWS = 10_000


def last(base: Base, request: worker_pb2.GetJoinRequest) -> worker_pb2.GetJoinResponse:
    """Return the last commit of a shard, if there is one yet, and as many of its newest windows as are asked for."""
    place = request.peer, request.stream, request.shard
    row = base.store.joins.get(*place)
    n_windows = min(request.windows, _MAX_WINDOWS)
    windows = base.store.joins.newest_windows(*place, n_windows) if n_windows else []
    return worker_pb2.GetJoinResponse(
        commit=None if row is None else _message(row),
        windows=[worker_pb2.JoinWindow(**{name: getattr(window, name) for name in _COUNTS}) for window in windows],
    )


def commit(base: Base, runs: Runs, request: worker_pb2.CommitJoinRequest) -> worker_pb2.JoinCommit:
    """Put what both halves of a join have prepared in the place of the commit before it.

    Parameters
    ----------
    base, runs
        This party, and its runs.
    request
        Which attempt commits what. The same again adds nothing.

    Returns
    -------
    JoinCommit
        The commit as it stands, which an earlier run may have made.

    Raises
    ------
    AttemptStale, RunEnded, …
        The attempt may not speak.
    JoinTaken
        Another commit is there than the one before it; nothing has changed.
    ConfigError
        Naming the field that is not what it should be.

    Notes
    -----
    Reveals: nothing; neither gateway tells the other of it.
    Cost: two reads, and one transaction that writes a row and one for each window.
    """
    check_name(request.stream, "stream")
    if request.shard >= _MAX_SHARD:
        raise ConfigError(f"expected less than {_MAX_SHARD:,}", field="shard")
    if request.number < 1:
        raise ConfigError("commits are numbered from 1", field="number")
    if not _SHA256.fullmatch(request.digest):
        raise ConfigError("expected a SHA-256 in 64 lower-case hex digits", field="digest")
    if any(getattr(window, name) < 0 for window in request.windows for name in _COUNTS):
        raise ConfigError("what is counted cannot be negative", field="windows")
    run, _half = runs.require_attempt(request.run_id, request.task, request.attempt)
    row = JoinRow(run.peer, request.stream, request.shard, request.number, request.digest, run.run_id, base.clock())
    windows = [
        JoinWindowRow(
            peer=row.peer,
            stream=row.stream,
            shard=row.shard,
            run_id=row.run_id,
            **{name: getattr(window, name) for name in _COUNTS},
        )
        for window in request.windows
    ]
    return _message(base.store.joins.commit(row, windows))


def _message(row: JoinRow) -> worker_pb2.JoinCommit:
    return worker_pb2.JoinCommit(
        stream=row.stream,
        shard=row.shard,
        number=row.number,
        digest=row.digest,
        run_id=row.run_id,
        at_ms=row.at_ms,
    )
