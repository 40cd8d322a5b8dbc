"""One half of a task as a process of its own: one configuration file in, one outcome or failure file out.

An operator writes the `TaskConfig`, starts ``python -m fedtasks.runtime ENTRY CONFIG``, and reads beside it either
``outcome.json`` or ``failure.json``. Progress and metrics go to this party's gateway as the work goes on.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from fedtasks import private
from fedtasks.config import load_party
from fedtasks.data.lean import lean_imports
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ConfigError, DiskFull, FedtasksError, MemoryShort, ProcessFailed, StorageUnavailable
from fedtasks.kinds import kinds
from fedtasks.link.client import GatewayClient
from fedtasks.link.mark import FileMark
from fedtasks.runtime.context import Entry, Outcome, TaskContext
from fedtasks.runtime.gateway import GatewayContext
from fedtasks.runtime.task_config import FAILURE, MARK, OUTCOME, TaskConfig, check_declaration
from fedtasks.tickets import asked_by, check_settings

log = logging.getLogger(__name__)


def run(entry: Entry, config_file: Path) -> int:
    """Run one half of a task and write its outcome or failure beside `config_file`.

    Returns
    -------
    int
        Exit code: 0 when the half succeeded, 1 when it failed and ``failure.json`` says why.
    """
    private.keep_private()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = config_file.parent
    try:
        config = _read(config_file)
        check_settings(config.bounds, asked_by(config.task, config.kind, config.settings))
        party = load_party(config.party)
        check_declaration(config, party)
        with closing(FileMark(folder / MARK)) as mark, GatewayClient.of(party) as client:
            context = GatewayContext(config, party, client, mark)
            try:
                outcome = entry(context)
            finally:
                context.report()  # whatever became of it, this has left the house
    except FedtasksError as error:
        log.error("%s", error)
        _write(folder / FAILURE, _failure(error))
        return 1
    except Exception as error:
        log.exception("the half raised an error that it does not know")
        _write(folder / FAILURE, _failure(_of_machine(error, config_file)))
        return 1
    _write(folder / OUTCOME, to_plain(outcome))
    return 0


def run_named(entry: str, config_file: Path) -> int:
    """Run one half as `run` does, by the name of its entry; what cannot be imported is a failure of the half.

    Parameters
    ----------
    entry
        See `fedtasks.runtime.function.entry_at`.
    """

    def half(context: TaskContext) -> Outcome:
        with lean_imports() if entry.startswith("fedtasks.") else nullcontext():
            from fedtasks.runtime.function import entry_at

            found = entry_at(entry)
        return found(context)

    return run(half, config_file)


def end(entry: str, code: int) -> NoReturn:
    """End this process with an exit code: at once where the half is ready-made, which has closed all that it used.

    Notes
    -----
    Cost: an interpreter that has imported TensorFlow takes a CPU second to end by itself. Functions of one's own may
    have registered what is to be done at the end.
    """
    if is_ready_made(entry):
        flush()
        os._exit(code)
    raise SystemExit(code)


def is_ready_made(entry: str) -> bool:
    """Whether an entry is that of a kind, not a function of one's own."""
    return any(kind.entry == entry for kind in kinds().values())


def flush() -> None:
    """Write out what has been printed and logged."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def main(entry: Entry) -> None:
    """Run one half from a script for ``spark-submit``, whose one argument is the configuration file."""
    if len(sys.argv) != 2:
        raise SystemExit(str(ConfigError(f"usage: {sys.argv[0]} CONFIG")))
    raise SystemExit(run(entry, Path(sys.argv[1])))


def _read(config_file: Path) -> TaskConfig:
    """Read a half's configuration; nothing of the half runs before it is known to be good."""
    return build(TaskConfig, json.loads(config_file.read_text(encoding="utf-8")))


_STORE_AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN)
"""What a mounted store says when it does not serve."""


def _of_machine(error: Exception, config_file: Path) -> FedtasksError:
    """Return the error of the registry for one that is none of it."""
    if isinstance(error, MemoryError):
        return MemoryShort(str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(str(error))
    if isinstance(error, OSError) and error.errno in _STORE_AWAY:
        return StorageUnavailable(str(error))
    return ProcessFailed(f"{type(error).__name__} in {config_file.name}; see the log", where=_line_of(error))


def _line_of(error: Exception) -> str:
    """Return file and line at which a mistake of the code was raised: one that comes up again there is final.

    What comes from outside, such as a connection that was refused, may be gone at the next try.
    """
    if isinstance(error, OSError):
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _failure(error: FedtasksError) -> dict[str, Any]:
    facts = {"code": error.code, "detail": error.detail, "where": error.where, "public": error.public}
    return {**facts, "fields": error.fields}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    os.replace(partial, path)
