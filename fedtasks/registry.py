"""Which packages declare kinds of steps, algorithms, ticket clauses, remarks and messages: the one list of them.

Each such package has a module ``declaration``, light enough to be imported while a DAG file is parsed or a help page is
printed, with the constants ``KINDS``, ``CLAUSES``, ``ALGORITHMS`` and ``REMARKS``, and a module ``messages`` with
``MESSAGES``; what it does not have is left out. Who wants to know something of all of them asks `declared`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fedtasks.errors import ConfigError

PACKAGES = (
    "fedtasks.tickets",
    "fedtasks.psi",
    "fedtasks.online",
    "fedtasks.join",
    "fedtasks.models",
    "fedtasks.models.split_nn",
    "fedtasks.models.secureboost",
)
"""Those that belong to fedtasks."""

ENTRY_POINTS = "fedtasks.algorithms"
"""The group of entry points by which other distributions name packages of theirs; the value is the package."""

_MODULES = {
    "KINDS": "declaration",
    "CLAUSES": "declaration",
    "ALGORITHMS": "declaration",
    "REMARKS": "declaration",
    "MESSAGES": "messages",
}


@functools.cache
def packages() -> tuple[str, ...]:
    """Return the packages that declare something: those of fedtasks, then others in the order of their names."""
    import importlib.metadata  # what reads of installed packages costs more than most who import this module

    others = {point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return (*PACKAGES, *sorted(others - set(PACKAGES)))


@functools.cache
def declared(what: str) -> Mapping[str, Any]:
    """Return all that packages declare of one sort, by name.

    Parameters
    ----------
    what
        ``KINDS``, ``CLAUSES``, ``ALGORITHMS``, ``REMARKS`` or ``MESSAGES``.

    Raises
    ------
    ConfigError
        A package that an entry point names cannot be imported, or two packages declare the same name.
    """
    found: dict[str, Any] = {}
    for package in packages():
        for each in _declared_by(package, what):
            if each.name in found:
                raise ConfigError(f"`{each.name}` is declared twice, the second time by {package}", field=what.lower())
            found[each.name] = each
    return MappingProxyType(found)


def named(what: str, name: str, field: str) -> Any:
    """Return what is declared under a name; raise `ConfigError` about `field` if it is not installed."""
    known = declared(what)
    if name not in known:
        raise ConfigError(f"`{name}` is none of: {', '.join(known)}; install the package that has it", field=field)
    return known[name]


def _declared_by(package: str, what: str) -> tuple[Any, ...]:
    name = f"{package}.{_MODULES[what]}"
    try:
        if importlib.util.find_spec(name) is None:
            return ()
        return tuple(getattr(importlib.import_module(name), what, ()))
    except ImportError as error:
        raise ConfigError(f"`{name}`, which an entry point names, cannot be imported: {error}", field=what) from error
