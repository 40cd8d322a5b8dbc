"""Commands that read texts, numbers and paths by themselves.

typer reads every parameter by pydantic, also a text as which nothing need be read; importing that costs more than most
commands take. What is not plainly right, and with it every complaint, is left to typer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., Any])

_DIGITS = 18
"""More are left to typer: Python reads no number of thousands of digits."""


class Commands(typer.Typer):
    """A group whose commands are each a `Command`."""

    def command(self, name: str | None = None, **attributes: Any) -> Callable[[F], F]:
        """See `typer.Typer.command`."""
        return super().command(name, **{"cls": Command, **attributes})


class _OwnReaders:
    """What a command and a group have in common: readers of their own for all their parameters."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, also those that typer adds by itself."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # there is one beside this class
        for parameter in parameters:
            if "get_runtime_param" not in vars(parameter):
                parameter.get_runtime_param = _Reader(parameter).itself
        return parameters


class Command(_OwnReaders, TyperCommand):
    """A command that imports pydantic only to complain of a parameter."""


class CommandGroup(_OwnReaders, TyperGroup):
    """A group that imports pydantic only to complain of a parameter of its own."""


class _Reader:
    """Reads what is given for one parameter, in place of typer's own reader."""

    def __init__(self, parameter: Any) -> None:
        self._typers = parameter.get_runtime_param
        self._kind = parameter.type_descriptor.annotation
        self._is_list = parameter.multiple or parameter.nargs == -1
        self._least = float("-inf") if parameter.min is None else parameter.min
        self._most = float("inf") if parameter.max is None else parameter.max

    def itself(self) -> _Reader:
        """Return this reader, as the parameter is asked for it."""
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as its command takes it."""
        if self._is_plain(value):
            return self._plain(value)
        return self._typers().coerce(value, param=param, ctx=ctx)

    def _is_plain(self, value: Any) -> bool:
        if value is None:
            return True
        if self._is_list:
            return self._kind == list[str] and isinstance(value, tuple) and all(type(each) is str for each in value)
        if self._kind is str:
            return type(value) is str
        if self._kind is int:
            is_number = type(value) is int or (type(value) is str and value.isascii() and value.isdecimal())
            return is_number and len(str(value)) <= _DIGITS and self._least <= int(value) <= self._most
        if self._kind is float:
            return type(value) in (int, float) and self._least <= value <= self._most
        # What is there and cannot be read is refused.
        return self._kind is Path and (not os.path.exists(value) or os.access(value, os.R_OK))

    def _plain(self, value: Any) -> Any:
        if self._is_list:
            return list(value or ())
        return value if value is None else self._kind(value)
