"""The stream demo's two logs: a portal's clicks and a shop's visits, which grow file by file as hours go by.

Most clicks become a visit, some seconds or minutes later; some are lost on the way, and some visits had no click that
was logged. Both logs are a little out of order, and some rows stand in them twice. Whether somebody buys depends on
what either side knows.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.data.storage import write_atomically

ID, TIME, LABEL = "click_id", "at", "bought"
CLICK_FEATURES = {"position": "numeric", "dwell_s": "numeric", "banner": "categorical", "device": "categorical"}
VISIT_FEATURES = {"pages": "numeric", "basket": "numeric", "returning": "categorical"}

HOUR_MS = 3_600_000
BEGAN_MS = 1_795_240_800_000
"""2026-11-21, six o'clock UTC."""

_BANNERS, _DEVICES = np.array(["red", "blue", "plain", "video"]), np.array(["phone", "tablet", "desk"])
_LATEST_MS = 480_000
"""How much later a row comes into its log than its event at most."""
_TAIL_MS = 1_200_000
"""So long after the last hour each log has one more event, which the other has not."""
_LOST, _ALONE, _TWICE = 0.22, 0.05, 0.01


@dataclass(frozen=True)
class Log:
    """One side's log.

    Parameters
    ----------
    rows
        In the order in which they come.
    comes_ms
        When each comes, ascending.
    """

    rows: pa.Table
    comes_ms: npt.NDArray[np.int64]

    def between(self, first_ms: int, end_ms: int) -> pa.Table:
        """Return what comes in a while."""
        first, end = np.searchsorted(self.comes_ms, [first_ms, end_ms])
        return self.rows.slice(first, end - first)


def make(hours: int, clicks_per_hour: int, seed: int = 7) -> tuple[Log, Log]:
    """Make up the clicks and the visits of some hours."""
    rng = np.random.default_rng(seed)
    n = hours * clicks_per_hour
    ids = np.array([f"{number:016x}" for number in rng.permutation(n * 50)[:n]])
    clicked = BEGAN_MS + np.sort(rng.integers(0, hours * HOUR_MS, n))
    visited = clicked + np.minimum(rng.exponential(45_000, n), 900_000).astype(np.int64)
    position, dwell = rng.integers(1, 11, n).astype(float), np.round(rng.gamma(2.0, 6.0, n), 1)
    banner, device = rng.integers(0, len(_BANNERS), n), rng.integers(0, len(_DEVICES), n)
    pages, basket = rng.poisson(3.0, n).astype(float), np.round(rng.gamma(1.5, 20.0, n), 2)
    returning = rng.random(n) < 0.4
    liking = 0.10 * (dwell - 12) - 0.25 * (position - 5.5) + np.array([0.9, 0.3, -1.1, 0.2])[banner]
    need = 0.35 * (pages - 3) + 0.02 * (basket - 30) + 0.8 * returning
    bought = rng.random(n) < 1 / (1 + np.exp(-(0.8 * liking + need - 0.6)))
    clicks = {
        ID: ids,
        TIME: clicked,
        "position": position,
        "dwell_s": dwell,
        "banner": _BANNERS[banner],
        "device": _DEVICES[device],
    }
    visits = {
        ID: ids,
        TIME: visited,
        "pages": pages,
        "basket": basket,
        "returning": np.where(returning, "yes", "no"),
        LABEL: bought.astype(np.int64),
    }
    end_ms = BEGAN_MS + hours * HOUR_MS
    return (
        _log(pa.table(clicks), rng.random(n) >= _ALONE, "c", end_ms, rng),
        _log(pa.table(visits), rng.random(n) >= _LOST, "v", end_ms, rng),
    )


def _log(rows: pa.Table, is_there: npt.NDArray[np.bool_], mark: str, end_ms: int, rng: np.random.Generator) -> Log:
    """Write rows down in the order in which they come: late ones too, some twice, and one when all is over."""
    rows = rows.filter(pa.array(is_there))
    happened = rows.column(TIME).to_numpy()
    comes = happened + np.minimum(rng.exponential(40_000, len(happened)), _LATEST_MS).astype(np.int64)
    twice = np.flatnonzero(rng.random(len(happened)) < _TWICE)
    order = np.concatenate([np.arange(len(happened)), twice])
    comes = np.concatenate([comes, comes[twice] + 1_000])
    by_time = np.argsort(comes, kind="stable")
    last = rows.slice(0, 1).to_pylist()[0] | {ID: f"{mark}-last", TIME: end_ms + _TAIL_MS}
    whole = pa.concat_tables([rows.take(pa.array(order[by_time])), pa.Table.from_pylist([last], rows.schema)])
    # What is late by some minutes comes before the last one.
    return Log(whole, np.append(comes[by_time], end_ms + _TAIL_MS).astype(np.int64))


def write(logs: tuple[Log, Log], folders: tuple[Path, Path], hours: int, seconds_per_hour: float) -> None:
    """Let both logs grow, once a second by a file with what has come meanwhile, until all has.

    Parameters
    ----------
    seconds_per_hour
        How fast the hours go by.
    """
    began, told_ms, number = time.monotonic(), BEGAN_MS, 0
    last_ms = BEGAN_MS + hours * HOUR_MS + _TAIL_MS
    while told_ms < last_ms:
        now_ms = min(last_ms, BEGAN_MS + int((time.monotonic() - began) / seconds_per_hour * HOUR_MS))
        for log, folder in zip(logs, folders, strict=True):
            _write(log.between(told_ms, now_ms), folder / f"part-{number:05d}.parquet")
        told_ms, number = now_ms, number + 1
        time.sleep(max(0.0, number - (time.monotonic() - began)))
    for log, folder in zip(logs, folders, strict=True):
        _write(log.between(last_ms, last_ms + 1), folder / f"part-{number:05d}.parquet")


def _write(rows: pa.Table, file: Path) -> None:
    """Write a file, which appears when it is complete."""
    if rows.num_rows:
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink)
        write_atomically(f"file://{file}", sink.getvalue().to_pybytes())


if __name__ == "__main__":
    n_hours, per_hour, pace_s = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    write(make(n_hours, per_hour), (Path(sys.argv[1]), Path(sys.argv[2])), n_hours, pace_s)
