"""Generate the tables of messages in docs/protocol.md and docs/threat-model.md; run by `make docs`.

A table stands between ``<!-- messages: PACKAGE -->`` and ``<!-- end of messages -->``; it lists what the package
declares, with ``PACKAGE/TASK`` only the messages of that task.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

from generated import FOLDER, keep, table

from fedtasks.exchange.message import BOTH_WAYS, Message

_TABLE = re.compile(r"(?<=<!-- messages: )([\w.]+)/?(\w*)( -->\n).*?(?=<!-- end of messages -->)", re.DOTALL)


def _name(message: Message) -> str:
    return f"`{message.name}-NNNNN`" if message.per else f"`{message.name}`"


def _protocol(messages: list[Message]) -> str:
    def row(each: Message) -> tuple[str, ...]:
        form = f"{each.form}, for each {each.per}" if each.per else each.form
        return ", ".join(each.tasks), _name(each), each.way, form, each.holds or each.what

    return table(("Task", "Name", "From → to", "Payload", "What it holds"), map(row, messages))


def _threats(messages: list[Message]) -> str:
    def row(each: Message) -> tuple[str, ...]:
        way = "" if each.way == BOTH_WAYS else f" ({each.way})"
        return f"{_name(each)}{way}", each.learns

    return table(("Message", "The receiver learns"), map(row, messages))


PAGES: dict[str, Callable[[list[Message]], str]] = {"protocol.md": _protocol, "threat-model.md": _threats}


def render(page: str) -> str:
    """Return a page with its tables as they are declared."""

    def declared(found: re.Match[str]) -> str:
        package, task, rest = found.groups()
        messages = importlib.import_module(f"fedtasks.{package}.messages").MESSAGES
        shown = [each for each in messages if not task or task in each.tasks]
        return f"{package}{task and '/'}{task}{rest}{PAGES[page](shown)}"

    return _TABLE.sub(declared, (FOLDER / page).read_text(encoding="utf-8"))


if __name__ == "__main__":
    keep({page: render(page) for page in PAGES})
