"""What one half writes after a step, such as an epoch or a tree, so that both go on from the newest that both hold."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from fedtasks.data.storage import filesystem, read_bytes, remove, write_atomically
from fedtasks.errors import DataCorrupt
from fedtasks.link.link import Link
from fedtasks.models.messages import CHECKPOINTS
from fedtasks.runtime.context import TaskContext

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{6,})\.npz")
_DIGEST_BYTES = 32


class Checkpoints:
    """The checkpoints of one half in a folder that all attempts share.

    Parameters
    ----------
    uri
        The folder.
    identity
        Digest of everything that a state depends on: a checkpoint of another identity is not used.
    keep
        How many are kept. The halves may be one apart when either stops, so two are the least.
    reached
        Is told after how many steps each of them was written.
    """

    def __init__(
        self, uri: str, identity: str, *, keep: int = 3, reached: Callable[[int], None] = lambda step: None
    ) -> None:
        self._uri = uri
        self._identity = identity
        self._keep = keep
        self._reached = reached
        self._counted_from: float = 0

    @classmethod
    def of(cls, context: TaskContext, identity: str) -> Self:
        """Return those of a training, or of one of its workers, which say how far it has come as they are written."""
        folder, worker = context.storage.folder(context.config.task), context.config.shard or 0
        return cls(f"{folder}/checkpoints{f'-{worker}' if worker else ''}", identity, reached=context.reached)

    def save(self, step: int, state: Sequence[np.ndarray]) -> None:
        """Write the state after `step` steps, then remove the oldest ones."""
        content = io.BytesIO()
        arrays = {f"v{index:03d}": value for index, value in enumerate(state)}
        np.savez(content, allow_pickle=False, identity=np.array(self._identity), **arrays)
        payload = content.getvalue()
        write_atomically(self._path(step), hashlib.sha256(payload).digest() + payload)
        for old in self._found()[: -self._keep]:
            remove(self._path(old))
        if step > self._counted_from:
            self._reached(step)

    def go_on(self, step: int, newest: int) -> None:
        """Begin after `step` steps, where this half's newest checkpoint is of `newest`; what is newer is removed.

        Only steps beyond that newest one count as reached. None does where the other half wants more than one step to
        be done again: what is repeated so is bounded by the ticket, or a peer could deny its checkpoints for ever.
        """
        self._counted_from = newest if newest - step <= 1 else math.inf
        self.discard_after(step)

    def load(self, step: int) -> list[np.ndarray]:
        """Read the state after `step` steps.

        Raises
        ------
        DataCorrupt
            The file is damaged, or belongs to another identity.
        """
        path = self._path(step)
        content = read_bytes(path)
        payload = content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != content[:_DIGEST_BYTES]:
            raise DataCorrupt("the checkpoint is damaged", where=path)
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            if str(arrays["identity"]) != self._identity:
                raise DataCorrupt("the checkpoint is of other settings or other rows", where=path)
            # By their number: of more than a thousand, `v1000` does not come between `v100` and `v101`.
            names = sorted(set(arrays.files) - {"identity"}, key=lambda name: (len(name), name))
            return [arrays[name] for name in names]

    def complete(self) -> list[int]:
        """Return the steps whose checkpoints can be used; warns of the others."""
        usable = []
        for step in self._found():
            try:
                self.load(step)
            except DataCorrupt as error:
                log.warning("a checkpoint is ignored: %s", error)
            else:
                usable.append(step)
        return usable

    def discard_after(self, step: int) -> None:
        """Remove what is newer than `step`.

        Both halves do so once they have agreed where to go on; a newer one left behind could later be paired with a
        state of the peer that does not belong to it.
        """
        for found in self._found():
            if found > step:
                remove(self._path(found))

    def _found(self) -> list[int]:
        fs, path = filesystem(self._uri)
        if not fs.exists(path):
            return []
        names = (found.rpartition("/")[2] for found in fs.ls(path, detail=False))
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def _path(self, step: int) -> str:
        return f"{self._uri}/step-{step:06d}.npz"


def agree(link: Link, checkpoints: Checkpoints, common: Callable[[set[int]], set[int]] = set) -> int:
    """Return after how many steps both halves hold a checkpoint; 0, the beginning, both hold always.

    Newer ones are removed on both sides.

    Parameters
    ----------
    common
        Returns which of the steps all workers of this party hold; by default there is one.
    """
    held = {0, *checkpoints.complete()}
    own = common(held)
    CHECKPOINTS.send(link, np.array(sorted(own), dtype=np.int64))
    newest = max(own & {0, *CHECKPOINTS.receive(link).tolist()})
    checkpoints.go_on(newest, max(held))
    return newest
