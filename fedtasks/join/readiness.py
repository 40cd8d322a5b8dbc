"""How far a stream has come: whether an interval of it can be joined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedtasks.config import Dataset, Party
from fedtasks.join.settings import JoinSettings
from fedtasks.join.state import stream_uri

if TYPE_CHECKING:
    from fedtasks.data.growing import Stream


def needed_ms(settings: JoinSettings, end_ms: int) -> int | None:
    """Return which event time a log must have reached, so that no row before the end of an interval may still come.

    Parameters
    ----------
    end_ms
        When the interval ends.

    Returns
    -------
    int or None
        None where no more rows come anyway.
    """
    return None if settings.final else end_ms + int(settings.horizon_s * 1000)


def open_log(party: Party, dataset: Dataset, stream: str, peer: str) -> Stream:
    """Open a party's log as the join reads it.

    Parameters
    ----------
    stream, peer
        What the log is joined to, and with whom: pieces that are found here keep their numbers there.
    """
    from fedtasks.data.growing import open_stream  # reads arrays, which a DAG file must not

    return open_stream(dataset, f"{stream_uri(party.storage, stream, peer)}/pieces")


def newest_ms(log: Stream) -> int | None:
    """Return the newest event time of all that is complete of a log by now; None where there is nothing.

    Raises
    ------
    StorageUnavailable
        It cannot be seen now.
    DataError
        A file is not what the dataset declares, or has changed since it was found.

    Notes
    -----
    Cost: one listing; of files that are new the column of times is read, of Parquet its statistics.
    """
    log.look()
    return log.newest_ms()
