"""A small JSON document that several processes change at the same time, none of whose changes is lost.

::

    <folder>/manifest.json              what a release before 0.4 has left: version 0
    <folder>/manifest-00000007.json     version 7

A version is a file that is created once: of all who would make the next version of what they have read one succeeds,
the others read again and change that. The newest counts. So a process may die at any instant, and holds no lock.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

from fedtasks.data.run_storage import MANIFEST
from fedtasks.data.storage import changed_at, create_once, filesystem, names_in, read_json, remove
from fedtasks.errors import DataCorrupt, DataMissing

_NAME = re.compile(r"manifest-([0-9]{8,})\.json")

_KEPT = 16
"""So many versions stay. Who is so far behind finds out that the name which it took had been in use."""

Change = Callable[[Any], Any]
"""Makes of the content, None when there is none, another; the same object for no change. It may be called again."""


class Versioned:
    """One such document; it has a folder, which may hold other things.

    Parameters
    ----------
    uri
        The folder; it is made by whoever changes first.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def read(self) -> Any:
        """Return the newest content, None if there is none.

        Raises
        ------
        DataCorrupt
            It cannot be read.
        """
        return self._newest()[1]

    def change(self, make: Change) -> tuple[Any, Any]:
        """Let the content be what `make` makes of it; returns the content before and after.

        Parameters
        ----------
        make
            Must know a change that it has made before, and leave it.

        Notes
        -----
        Cost: one listing, one small file read and one written, again for each process that came first.
        """
        while True:
            number, before, numbers = self._newest()
            after = make(before)
            if after is before:
                return before, after
            number += 1
            # By the writer a file is known for its own, also where the answer was lost that it is there.
            version = json.dumps({"writer": uuid.uuid4().hex, "content": after}, indent=1, ensure_ascii=False)
            if not create_once(self._place(number), version.encode()):
                continue
            now = self._numbers()
            if number in now and now[-1] < number + _KEPT:
                self._forget(numbers, number)
                return before, after

    def remove(self) -> None:
        """Remove it: until the newest version is gone, last of all, readers find that, and then nothing."""
        for number in self._numbers():
            remove(self._place(number))

    def changed_at(self) -> float:
        """Return when it was changed last, in seconds; 0 if there is none."""
        numbers = self._numbers()
        if not numbers:
            return 0.0
        fs, path = filesystem(self._place(numbers[-1]))
        return changed_at(fs.info(path))

    def _newest(self) -> tuple[int, Any, list[int]]:
        """Return the newest version, its content, and which versions there are."""
        while numbers := self._numbers():
            number = numbers[-1]
            try:
                found = read_json(self._place(number))
                return number, found["content"] if number else found, numbers
            except DataMissing:
                continue  # so many newer ones have come meanwhile
            except (KeyError, TypeError):
                raise DataCorrupt("not a version of a manifest", where=self._place(number)) from None
        return 0, None, []

    def _numbers(self) -> list[int]:
        names = names_in(self.uri)
        found = [int(match[1]) for match in map(_NAME.fullmatch, names) if match]
        return sorted([*found, *([0] if MANIFEST in names else [])])

    def _forget(self, numbers: list[int], newest: int) -> None:
        fs, _ = filesystem(self.uri)
        for number in numbers:
            if number <= newest - _KEPT:
                try:
                    fs.rm_file(filesystem(self._place(number))[1])
                except FileNotFoundError:
                    continue  # another has been quicker

    def _place(self, number: int) -> str:
        return f"{self.uri}/manifest-{number:08d}.json" if number else f"{self.uri}/{MANIFEST}"
