"""Commands as a person would run them: what one did, and the datasets that a party of a test has."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

from typer.main import get_command
from typer.testing import CliRunner
from typer.testing import Result as Done

from fedtasks.cli import app

DATASETS = """\
datasets:
  - name: customers
    uri: data/customers.parquet
    id: person
    features: {age: numeric, region: categorical}
"""


class Result:
    """What one command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]

_made_once = cache(get_command)


def invoke(*arguments: str, stdin: str | None = None) -> Done:
    """Run a command in this process."""
    # All commands are made anew at every call otherwise, which costs more than most of them do.
    with mock.patch("typer.testing._get_command", _made_once):
        return CliRunner().invoke(app, list(arguments), input=stdin)
