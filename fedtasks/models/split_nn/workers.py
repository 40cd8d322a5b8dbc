"""The workers of one party that train one model together: each has a peer at the other party, and rows of its own.

They exchange what they must agree on over sockets in a private folder of this machine: gradients in each step, and at
some places what follows from all rows. The first one takes in what all others say, and answers all of them alike; so
weights stay equal to the last bit. When one ends, all do, and begin again together where all hold a checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

import numpy as np

from fedtasks import private
from fedtasks.errors import ConfigDiffers, WorkersMissing, WorkersParted

PATIENCE_S = 600.0
"""How long workers wait for each other at the beginning."""

_POLL_S = 0.2
_BACKLOG = 1024

Combine = Callable[[Sequence[bytes]], bytes]
"""Makes of what workers say, in the order of their numbers, what all of them are answered."""


class Workers:
    """All workers of one party in a training, as one of them sees them.

    Parameters
    ----------
    number
        Which one this is, from 0.
    connections
        At the first one, to all others in the order of their numbers; at any other one, to the first.

    Raises
    ------
    WorkersParted
        Whenever another one has ended.
    """

    def __init__(self, number: int = 0, connections: Sequence[Connection] = ()) -> None:
        self.number = number
        self._connections = connections

    @property
    def are_several(self) -> bool:
        """Whether there is another one."""
        return bool(self._connections)

    @property
    def is_first(self) -> bool:
        """Whether this one takes in what all say, charges for all, and publishes."""
        return self.number == 0

    def exchange(self, own: bytes, combine: Combine) -> bytes:
        """Tell the others something, and return what comes of what all have told.

        Parameters
        ----------
        own
            What this one says.
        combine
            Makes the answer, at the first one.

        Notes
        -----
        Cost: one message each way for each of the others; the first one waits for all.
        """
        if not self._connections:
            return combine([own])
        try:
            if not self.is_first:
                self._connections[0].send_bytes(own)
                return self._connections[0].recv_bytes()
            answer = combine([own, *(connection.recv_bytes() for connection in self._connections)])
            for connection in self._connections:
                connection.send_bytes(answer)
        except (EOFError, OSError) as error:
            raise WorkersParted(f"worker {self.number} has lost another one: {type(error).__name__}") from error
        return answer

    def gathered(self, own: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Return the arrays that all have told, by worker; at all but the first one none."""
        found: list[list[np.ndarray]] = []

        def combine(told: Sequence[bytes]) -> bytes:
            found.extend(map(unpacked, told))
            return b""

        self.exchange(packed(own), combine)
        return found

    def summed(self, own: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the sums of what all have told, place by place, added in the order of workers."""

        def combine(told: Sequence[bytes]) -> bytes:
            total, *others = map(unpacked, told)
            for each in others:
                total = [one + other for one, other in zip(total, each, strict=True)]
            return packed(total)

        return unpacked(self.exchange(packed(own), combine))

    def common(self, own: set[int]) -> set[int]:
        """Return the numbers that all have told."""

        def combine(told: Sequence[bytes]) -> bytes:
            sets = [set(unpacked(each)[0].tolist()) for each in told]
            return packed([np.array(sorted(set.intersection(*sets)), np.int64)])

        return set(unpacked(self.exchange(packed([np.array(sorted(own), np.int64)]), combine))[0].tolist())

    def most(self, own: int) -> int:
        """Return the largest number that any has told."""
        told = self.exchange(b"%d" % own, lambda told: b"%d" % max(map(int, told)))
        return int(told)

    def wait(self) -> None:
        """Return when all others have come to the same place."""
        self.exchange(b"", lambda told: b"")


ALONE = Workers()
"""One that has no others."""


@contextlib.contextmanager
def workers_of(
    storage: str, task: str, number: int, size: int, *, identity: str, patience_s: float = PATIENCE_S
) -> Iterator[Workers]:
    """Meet the other workers of this party.

    Parameters
    ----------
    storage, task
        URI of the run's files and the task: what all of them have in common, and no other party has.
    number, size
        Which of how many this one is.
    identity
        Digest of all that must be equal at them.
    patience_s
        How long to wait for them.

    Raises
    ------
    WorkersMissing
        Some did not come.
    ConfigDiffers
        One trains something else.

    Notes
    -----
    Reveals: nothing to the peer. Only processes of this user on this machine are let in, and what they say is as
    trusted as this one: it is this party's own.
    """
    if size == 1:
        yield ALONE
        return
    deadline = time.monotonic() + patience_s
    with contextlib.ExitStack() as stack:
        folder = private.socket_folder()
        private.make_folders(folder)
        opened = stack.enter_context(private.PrivateFolder(folder, {os.geteuid()}))
        place = opened.place(f"{hashlib.sha256(f'{storage} {task}'.encode()).hexdigest()[:16]}.workers")
        if number:
            connections = [stack.enter_context(_joined(place, number, size, deadline))]
        else:
            connections = [stack.enter_context(each) for each in _gathered(place, size, deadline)]
        workers = Workers(number, connections)
        _compare(workers, identity)
        yield workers


def _gathered(place: str, size: int, deadline: float) -> list[Connection]:
    """Let all others in; a socket that an earlier first worker has left is replaced."""
    found: dict[int, Connection] = {}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place)
            listener.bind(place)
            try:
                listener.listen(_BACKLOG)
                while len(found) < size - 1:
                    listener.settimeout(max(0.0, deadline - time.monotonic()))
                    try:
                        accepted, _ = listener.accept()
                    except (TimeoutError, BlockingIOError):
                        missing = ", ".join(str(each) for each in range(1, size) if each not in found)
                        raise WorkersMissing(f"of {size} workers did not come: {missing}", where=place) from None
                    if not private.peer_of(accepted):
                        accepted.close()
                        continue
                    connection = Connection(accepted.detach())
                    try:
                        number = int(connection.recv_bytes(16))
                    except (EOFError, OSError, ValueError):
                        connection.close()
                        continue
                    if number in found:  # the one before it has ended
                        found.pop(number).close()
                    found[number] = connection
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(place)
    except BaseException:
        for connection in found.values():
            connection.close()
        raise
    return [found[number] for number in sorted(found)]


def _joined(place: str, number: int, size: int, deadline: float) -> Connection:
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(place)
        except OSError:
            sock.close()
            if time.monotonic() > deadline:
                text = f"worker 0 did not come, which the other {size - 1} of {size} need"
                raise WorkersMissing(text, where=place) from None
            time.sleep(_POLL_S)
            continue
        connection = Connection(sock.detach())
        with contextlib.suppress(OSError):  # whoever ended has to be found out anyway
            connection.send_bytes(b"%d" % number)
        return connection


def _compare(workers: Workers, identity: str) -> None:
    """Refuse workers that train something else; all of them see it."""
    found = workers.exchange(identity.encode(), lambda told: told[0] if len(set(told)) == 1 else b"")
    if not found:
        raise ConfigDiffers(field="workers", ours=identity, theirs="another at one of this party's workers")


def packed(arrays: Sequence[np.ndarray]) -> bytes:
    """Write arrays as bytes, for `unpacked`."""
    content = io.BytesIO()
    for each in arrays:
        np.save(content, each, allow_pickle=False)
    return content.getvalue()


def unpacked(content: bytes) -> list[np.ndarray]:
    """Return the arrays that `packed` has written."""
    source, found = io.BytesIO(content), []
    while source.tell() < len(content):
        found.append(np.load(source, allow_pickle=False))
    return found
