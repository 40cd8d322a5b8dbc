"""Cutting of all pieces that wait at once, on this party's engine: what workers of shards else do in their turns.

It pays where a long range of a log is to be joined and a Spark cluster is there. What is cut so lies where the workers
of the shards look first, see `fedtasks.join.spread`; what has come meanwhile they cut themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from fedtasks.config import Dataset
from fedtasks.data.growing import Piece, open_stream
from fedtasks.data.storage import remove
from fedtasks.dataclass_io import build
from fedtasks.engines import open_engine
from fedtasks.engines.engine import Engine
from fedtasks.errors import ConfigError
from fedtasks.join.settings import JoinSettings
from fedtasks.join.spread import Files, cut
from fedtasks.join.state import ShardState, stream_uri
from fedtasks.join.units import Columns, WholeLog
from fedtasks.runtime.context import Outcome, TaskContext

_DONE = pa.schema([("piece", pa.int64())])


def run(context: TaskContext) -> Outcome:
    """Cut what is complete and was not joined yet into the files of the shards; the other party is not asked.

    Parameters
    ----------
    context
        Of a join: its settings name the stream and the number of shards.

    Raises
    ------
    ConfigError
        There is one shard only, or both halves have never met, which they must to agree on the stream's secret.

    Notes
    -----
    Reveals: nothing; it stays with this party.
    """
    settings = build(JoinSettings, context.config.settings, path="settings")
    if settings.shards == 1:
        raise ConfigError("one shard reads its pieces itself; name more than one", field="shards")
    uri = stream_uri(context.party.storage, settings.stream, context.config.peer)
    secret = ShardState(uri, 0).known_secret()
    if secret is None:
        text = f"the halves of `{settings.stream}` have never met, so that ids have no tags yet; run the join once"
        raise ConfigError(text, field="stream")
    columns = Columns(context.dataset, settings, secret)
    files = Files.of_stream(uri, columns, settings.shards)
    first = min(_replayed(context, uri, settings.stream, shard) for shard in range(settings.shards))
    pieces = open_stream(context.dataset, f"{uri}/pieces").look()[first:]
    scratch = f"{uri}/scratch"
    try:
        with open_engine(context.party, f"cut {settings.stream}", scratch) as engine:
            done = cut_all(engine, context.dataset, columns, pieces, files, f"{uri}/pieces")
    finally:
        remove(scratch)
    return Outcome(counts={"pieces": done})


def cut_all(
    engine: Engine, dataset: Dataset, columns: Columns, pieces: Sequence[Piece], files: Files, catalogue: str
) -> int:
    """Cut pieces side by side, but those that are cut already; return how many were.

    Parameters
    ----------
    catalogue
        The folder of the stream's catalogue.
    """
    files.make()
    last = files.shards - 1

    def work(piece: Piece) -> Iterator[pa.RecordBatch]:
        cut(WholeLog(columns, open_stream(dataset, catalogue)), columns, piece, files, last)
        yield pa.RecordBatch.from_pydict({"piece": [piece.number]}, _DONE)

    waiting = [piece for piece in pieces if not all(files.has(shard, piece.number) for shard in range(files.shards))]
    return engine.count(engine.each(waiting, work, _DONE))


def _replayed(context: TaskContext, uri: str, stream: str, shard: int) -> int:
    """Return from which piece on a shard's worker reads again."""
    known = context.join_commit(stream, shard)
    return ShardState(uri, shard).committed(known.number, known.digest).replay.piece if known else 0
