"""Named things in folders of their own, of which the newest count: whoever reads one holds it, and so it stays.

Runs that overlap use one shelf. Each holds what it has found until it has ended, whatever the others put there
meanwhile; what nobody holds any more, and is not among the newest, goes with its folders.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedtasks.data.dated import abandoned
from fedtasks.data.storage import remove
from fedtasks.data.versioned import Versioned
from fedtasks.errors import DataCorrupt

Item = Mapping[str, Any]
"""One of these things: its ``name`` and whatever else is JSON."""

NEWEST = 2
"""So many stay, whoever holds them: one may be what the peer has while the next is made."""

Choice = Callable[[Sequence[Item]], Sequence[Item]]
"""Chooses among items, the newest last."""

_HELD_S = 86_400.0
"""A reader that has not ended after a day has died, or takes so long that it must begin anew."""


def newest(items: Sequence[Item]) -> Sequence[Item]:
    """Choose the one that counts."""
    return items[-1:]


class Shelf:
    """What stands on one shelf.

    Parameters
    ----------
    uri
        The folder of the shelf.
    folders
        The folders in it that belong to an item.
    items_before
        The items in what a release before 0.4 has left instead of a shelf.
    """

    def __init__(
        self,
        uri: str,
        folders: Callable[[Item], Iterable[str]],
        items_before: Callable[[Any], Sequence[Item]],
    ) -> None:
        self.uri = uri
        self._versions = Versioned(uri)
        self._folders, self._items_before = folders, items_before

    def items(self) -> list[Item]:
        """Return what is there, the newest last."""
        return self._opened(self._versions.read())[0]

    def hold(self, reader: str, choose: Choice = newest) -> list[Item]:
        """Return some items, which stay until `release`, or for a day since the reader last came.

        Parameters
        ----------
        reader
            Who reads; nobody else has this name.
        choose
            Which of all; by default the one that counts.
        """
        found: list[Item] = []

        def make(content: Any) -> Any:
            nonlocal found
            items, readers = self._opened(content)
            found = list(choose(items))
            return _closed(items, _holding(readers, reader, found)) if found else content

        self._change(make)
        return found

    def add(self, reader: str, new: Sequence[Item], on: str | None = None) -> bool:
        """Put items there, the last of which counts from now on; the reader holds them.

        Parameters
        ----------
        on
            The name of the item that must count until now, empty for none; by default any may.

        Returns
        -------
        bool
            Whether they are there; if not, another counts than `on`.
        """
        is_done = False

        def extend(content: Any) -> Any:
            nonlocal is_done
            items, readers = self._opened(content)
            is_there = any(item["name"] == new[0]["name"] for item in items)
            is_done = is_there or on in (None, items[-1]["name"] if items else "")
            if is_there or not is_done:
                return content
            return _closed([*items, *new], _holding(readers, reader, new))

        self._change(extend)
        return is_done

    def release(self, reader: str) -> None:
        """Let go what a reader holds."""

        def make(content: Any) -> Any:
            items, readers = self._opened(content)
            if reader not in readers:
                return content
            return _closed(items, {name: held for name, held in readers.items() if name != reader})

        self._change(make)

    def changed_at(self) -> float:
        """Return when something was put there, held or let go last, in seconds; 0 if nothing ever was."""
        return self._versions.changed_at()

    def remove(self) -> None:
        """Remove it with all that stands on it: its manifest first, so that nobody finds a part."""
        self._versions.remove()
        remove(self.uri)

    def _change(self, make: Callable[[Any], Any]) -> None:
        before, after = self._versions.change(make)
        if before is after:
            return
        now = self._named(after)
        for folder in self._named(before) - now | abandoned(self.uri, now):
            remove(f"{self.uri}/{folder}")

    def _named(self, content: Any) -> set[str]:
        return {folder for item in self._opened(content)[0] for folder in self._folders(item)}

    def _opened(self, content: Any) -> tuple[list[Item], dict[str, Any]]:
        """Return items, and what readers hold."""
        if content is None:
            return [], {}
        try:
            if isinstance(content, dict) and "readers" in content:
                return list(content["items"]), dict(content["readers"])
            return list(self._items_before(content)), {}
        except (KeyError, TypeError):
            raise DataCorrupt("not a manifest; move its folder away to begin anew", where=self.uri) from None


def _holding(readers: Mapping[str, Any], reader: str, items: Sequence[Item]) -> dict[str, Any]:
    """Let a reader hold these items beside what it holds."""
    held = dict.fromkeys([*readers.get(reader, {}).get("items", []), *(item["name"] for item in items)])
    return {**readers, reader: {"since": int(time.time()), "items": list(held)}}


def _closed(items: Sequence[Item], readers: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out readers that have died, and what nobody needs."""
    alive = {name: held for name, held in readers.items() if abs(time.time() - held["since"]) < _HELD_S}
    held = {name for each in alive.values() for name in each["items"]}
    newest = len(items) - NEWEST
    kept = [item for place, item in enumerate(items) if place >= newest or item["name"] in held]
    return {"items": kept, "readers": alive}
