"""Federated steps of one's own: a plain function that runs as both halves, each in a process of its own.

::

    from fedtasks.airflow import fed
    from fedtasks.airflow.pipeline import FederatedDag


    @fed.task
    def row_counts(link, config, data):
        link.send("rows", np.array([data.rows]))
        return {config.party: data.rows, config.peer: int(link.receive("rows")[0])}


    FederatedDag("row_counts", steps=[row_counts()])
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

from fedtasks.airflow.schedules import cron, daily, when_joined, when_landed
from fedtasks.errors import ConfigError
from fedtasks.pipeline.step import Step

if TYPE_CHECKING:
    from fedtasks.link.link import Link
    from fedtasks.runtime.function import Config, Data

__all__ = ["Task", "cron", "daily", "task", "when_joined", "when_landed"]

Half = Callable[["Link", "Config", "Data"], Mapping[str, Any]]


class Task:
    """A function that is a federated step; call it with settings to put it into a pipeline.

    Parameters
    ----------
    function
        One half: ``function(link, config, data)`` returns what both halves must agree on.
    settings
        Its settings and their defaults; a pipeline and the trigger form may give other values.
    """

    def __init__(self, function: Half, settings: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.settings = dict(settings)
        _check(function)

    def __call__(self, **settings: Any) -> Step:
        """Return the step that runs this function.

        Raises
        ------
        ConfigError
            It has no such setting.
        """
        name = self.function.__name__
        for setting in settings:
            if setting not in self.settings:
                known = ", ".join(self.settings) or "none"
                raise ConfigError(f"`{name}` has no such setting; it has: {known}", field=setting)
        return Step(
            name,
            f"{inspect.getsourcefile(self.function)}:{name}",
            settings={**self.settings, **settings},
            source_digest=source_digest(self.function),
            doc=self.function.__doc__,
        )


@overload
def task(function: Half) -> Task: ...
@overload
def task(**settings: Any) -> Callable[[Half], Task]: ...
def task(function: Half | None = None, **settings: Any) -> Task | Callable[[Half], Task]:
    """Make a federated step of a function; ``@fed.task(rounds=3)`` declares its settings with their defaults.

    Raises
    ------
    ConfigError
        The function does not take ``link``, ``config`` and ``data``, or is not defined at the top of its file.
    """
    if function is not None:
        return Task(function, settings)
    return lambda decorated: Task(decorated, settings)


def _check(function: Half) -> None:
    parameters = list(inspect.signature(function).parameters)
    name = function.__name__
    if parameters != ["link", "config", "data"]:
        raise ConfigError(f"`{name}` takes {', '.join(parameters) or 'nothing'}, not link, config, data", field=name)
    if function.__qualname__ != name:
        raise ConfigError(f"`{name}` must stand at the top of its file: another process imports it", field=name)


def source_digest(function: Callable[..., Any]) -> str:
    """SHA-256 (hex) of a function's code as it is parsed, so that comments, docstrings and layout do not count."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    if isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition) is not None:
        definition.body = definition.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
