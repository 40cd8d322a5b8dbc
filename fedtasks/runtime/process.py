"""One half of a task as a process of its own: one configuration file in, one outcome or failure file out.

An operator writes the `TaskConfig`, starts ``python -m fedtasks.runtime ENTRY CONFIG``, and reads beside it either
``outcome.json`` or ``failure.json``; the exit code alone says that there was no room for either. Progress and metrics
go to this party's gateway as the work goes on.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from fedtasks import private
from fedtasks.config import load_party
from fedtasks.data.lean import lean_imports
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ConfigError, FedtasksError, ProcessFailed, StorageUnavailable
from fedtasks.kinds import kinds
from fedtasks.link.client import GatewayClient
from fedtasks.link.mark import FileMark
from fedtasks.logs import About, JsonLines, begin
from fedtasks.runtime.context import Entry, Outcome, TaskContext
from fedtasks.runtime.gateway import GatewayContext
from fedtasks.runtime.task_config import FAILURE, MARK, OUTCOME, TaskConfig, check_declaration
from fedtasks.shortage import UNWRITTEN, kernel_kills, killed_since, shortage, with_room
from fedtasks.tickets import asked_by, check_settings

log = logging.getLogger(__name__)


def run(entry: Entry, config_file: Path) -> int:
    """Run one half of a task and write its outcome or failure beside `config_file`.

    Returns
    -------
    int
        Exit code: 0 when the half succeeded, 1 when it failed and ``failure.json`` says why, `UNWRITTEN` when its disk
        had no room for that file.
    """
    private.keep_private()
    handler = begin(sys.stdout)
    try:
        try:
            outcome = _outcome_of(entry, config_file, handler)
            _write(config_file.parent / OUTCOME, to_plain(outcome))
            return 0
        except FedtasksError as error:
            _write(config_file.parent / FAILURE, _failure(error))
            return 1
    except OSError as error:
        if shortage(error) is None:
            raise
        log.error("how the half ended could not be written: %s", error)
        return UNWRITTEN


def _outcome_of(entry: Entry, config_file: Path, handler: logging.Handler) -> Outcome:
    """Run the half; whatever it raises is raised as an error of the registry, and logged."""
    kills, folders = kernel_kills(), [config_file.absolute().parent.parent]
    try:
        config = _read(config_file)
        check_settings(config.bounds, asked_by(config.task, config.kind, config.settings))
        party = load_party(config.party)
        if party.logs.is_json:
            handler.setFormatter(JsonLines(About(party.name, config.run_id, config.half, config.attempt)))
        folders.append(Path(party.storage.removeprefix("file://")))
        check_declaration(config, party)
        folder = config_file.parent
        with closing(FileMark(folder / MARK)) as mark, GatewayClient.of(party) as client:
            context = GatewayContext(config, party, client, mark, beside=folder)
            try:
                return entry(context)
            finally:
                context.report()  # whatever became of it, this has left the house
    except FedtasksError as error:
        told = with_room(shortage(error), *folders) or error
        log.error("%s", told)
        raise told from error
    except (Exception, SystemExit, CancelledError) as error:
        log.exception("the half raised an error that it does not know")
        raise _of_machine(error, kills, folders) from error


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


def _of_machine(error: BaseException, kills_before: int | None, folders: Sequence[Path]) -> FedtasksError:
    """Return the error of the registry for one that is none of it."""
    short = with_room(shortage(error), *folders) or killed_since(kills_before)
    if short is not None:
        return short
    if isinstance(error, OSError) and error.errno in _STORE_AWAY:
        return StorageUnavailable(str(error))
    place, kind = _place_of(error), type(error).__name__
    if isinstance(error, OSError):
        # It comes from outside, such as a connection that was refused, and may be gone at the next try.
        return ProcessFailed(f"{kind} at {place}; see the log")
    return ProcessFailed(f"{kind}; see the log", where=place)


def _place_of(error: BaseException) -> str:
    """Return file and line at which an error was raised, the innermost that belongs to no library."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _failure(error: FedtasksError) -> dict[str, Any]:
    facts = {"code": error.code, "detail": error.detail, "where": error.where, "public": error.public}
    return {**facts, "fields": error.fields}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Write how the half ended for its operator, which reads it at once or, when the machine stops, never."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    os.replace(partial, path)
