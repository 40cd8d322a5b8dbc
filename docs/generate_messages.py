"""Generate the tables of messages in docs/protocol.md and docs/threat-model.md; run by `make docs`.

A table stands between ``<!-- messages: PACKAGE -->`` and ``<!-- end of messages -->``; it lists what the package
declares, with ``PACKAGE/TASK`` only the messages of that task.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fedtasks.exchange.message import BOTH_WAYS, Message

_TABLE = re.compile(r"(?<=<!-- messages: )([\w.]+)/?(\w*)( -->\n).*?(?=<!-- end of messages -->)", re.DOTALL)


def _name(message: Message) -> str:
    return f"`{message.name}-NNNNN`" if message.per else f"`{message.name}`"


def _protocol(messages: list[Message]) -> Iterator[str]:
    yield "| Task | Name | From → to | Payload | What it holds |"
    yield "|---|---|---|---|---|"
    for each in messages:
        form = f"{each.form}, for each {each.per}" if each.per else each.form
        yield f"| {', '.join(each.tasks)} | {_name(each)} | {each.way} | {form} | {each.holds or each.what} |"


def _threats(messages: list[Message]) -> Iterator[str]:
    yield "| Message | The receiver learns |"
    yield "|---|---|"
    for each in messages:
        way = "" if each.way == BOTH_WAYS else f" ({each.way})"
        yield f"| {_name(each)}{way} | {each.learns} |"


PAGES: dict[str, Callable[[list[Message]], Iterator[str]]] = {"protocol.md": _protocol, "threat-model.md": _threats}


def render(page: str, text: str) -> str:
    """Return the text of a page with its tables as they are declared."""

    def table(found: re.Match[str]) -> str:
        package, task, rest = found.groups()
        declared = importlib.import_module(f"fedtasks.{package}.messages").MESSAGES
        messages = [each for each in declared if not task or task in each.tasks]
        return f"{package}{task and '/'}{task}{rest}" + "".join(f"{line}\n" for line in PAGES[page](messages))

    return _TABLE.sub(table, text)


if __name__ == "__main__":
    for page in PAGES:
        place = Path(__file__).with_name(page)
        text = place.read_text(encoding="utf-8")
        if "--check" not in sys.argv:
            place.write_text(render(page, text), encoding="utf-8")
        elif render(page, text) != text:
            sys.exit(f"docs/{page} is not what is declared; run `make docs`")
