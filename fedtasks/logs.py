"""What a process of this product logs: lines for people, or one JSON object for each record.

A record names what it is about by codes, names of runs and tasks, and counts; ids of people and secrets are in none.
"""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from fedtasks.errors import FedtasksError

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"

PRINTED = "printed"
"""The logger of lines that something has printed by itself."""


@dataclass(frozen=True)
class About:
    """What all lines of a process are about.

    Parameters
    ----------
    party
        Whose process it is.
    run, task, attempt
        Of a half: which one; empty for a gateway.
    """

    party: str
    run: str = ""
    task: str = ""
    attempt: int = 0


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object on one line.

    Parameters
    ----------
    about
        What all records are about.

    Notes
    -----
    The fields are ``time`` (UTC), ``level``, ``logger``, ``party``, ``run``, ``task``, ``attempt``, ``message`` and
    ``code``, that of an error of the registry if the record is about one; and ``exception`` where there is a traceback.
    """

    def __init__(self, about: About) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts: dict[str, Any] = {
            "time": _moment(record.created),
            "level": record.levelname,
            "logger": record.name,
            **vars(self._about),
            "message": record.getMessage(),
            "code": _code_of(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            facts["exception"] = "".join(traceback.format_exception(*record.exc_info))
        # Escapes beyond ASCII: some readers take other signs than the end of a line for one.
        return json.dumps(facts)


def begin(output: TextIO) -> logging.Handler:
    """Log to a stream, as lines for people, and return what does so; somebody else's logging stays as it is."""
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter(PLAIN))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return handler


def into_file(file: Path, max_bytes: int, keep: int) -> logging.Handler:
    """Log to a file instead, which is renamed and begun anew when it is full, and return what does so.

    Parameters
    ----------
    file
        Its place; the folder is there.
    max_bytes, keep
        How long it may grow, and how many older ones are kept.
    """
    from logging.handlers import RotatingFileHandler

    handler = RotatingFileHandler(file, maxBytes=max_bytes, backupCount=keep, encoding="utf-8")
    handler.setFormatter(logging.Formatter(PLAIN))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return handler


def framed(line: str, about: About) -> str:
    """Return a line that a half has printed as one of `JsonLines`: itself, if it is one."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if isinstance(found, dict) and found.keys() >= {"time", "level", *vars(about)}:
        return line
    now = _moment(datetime.now(UTC).timestamp())
    facts = {"time": now, "level": "INFO", "logger": PRINTED, **vars(about), "message": line, "code": ""}
    return json.dumps(facts)


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


def _code_of(record: logging.LogRecord) -> str:
    """Return the code of the error that a record is about, as its argument or as what was raised."""
    raised = record.exc_info[1] if record.exc_info else None
    values = record.args.values() if isinstance(record.args, dict) else record.args or ()
    found = next((each for each in (*values, raised) if isinstance(each, FedtasksError)), None)
    return found.code if found is not None else ""
