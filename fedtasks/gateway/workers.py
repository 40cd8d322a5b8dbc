"""Which of a party's workers calls its gateway, and whether it may."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from fedtasks.config import Gateway, read_secret
from fedtasks.config.workers import (
    SHARED,
    May,
    WorkerIdentity,
    identity_files,
    read_identity,
    secret_digest,
)
from fedtasks.errors import ConfigError, SecretRejected, WorkerForbidden

log = logging.getLogger(__name__)

_READ = ("GetRun", "ListRuns", "WatchTask", "ListPeers", "GetModel", "GetJoin")
_WORK = (
    "OpenRun",
    "AwaitOpening",
    "AnnounceTask",
    "StartTask",
    "RenewLease",
    "ReportTask",
    "CountUse",
    "SpendLabelLeak",
    "FinishTask",
    "CloseRun",
    "CancelRun",
    "Preflight",
    "LandPartition",
    "PublishModel",
    "CommitJoin",
    "LookUp",
    "ServeLookups",
    "Session",
)
NEEDED: Mapping[str, May] = dict.fromkeys(_READ, May.READ) | dict.fromkeys(_WORK, May.WORK)
"""Method of the worker side → what an identity must be allowed; any other one is for those who may decide."""

Signature = tuple[tuple[str, float, int, int], ...]


class Workers:
    """The identities of a party's workers as they stand now.

    Parameters
    ----------
    gateway
        Names the folder of identities, and the secret of this machine's own commands, which may do everything.

    Raises
    ------
    ConfigError
        That secret cannot be read.

    Notes
    -----
    Cost: a look at the times of these files for each call; they are read when those have changed.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._folder, self._shared_file = gateway.identities, gateway.worker_secret_file
        self._lock = threading.Lock()
        self._known: dict[str, WorkerIdentity] = {}
        self._seen: Signature | None = None
        self._shared = secret_digest(read_secret(self._shared_file))

    def require(self, secret: str, method: str) -> str:
        """Return the name of who presents a secret and calls a method.

        Raises
        ------
        SecretRejected
            Nobody is known by this secret.
        WorkerForbidden
            Whoever it is may not call this method.
        """
        with self._lock:
            self._look()
            # Digests of what is shown are compared, so the time that takes tells nothing of a secret.
            shown = secret_digest(secret)
            if shown == self._shared:
                return SHARED
            identity = self._known.get(shown)
        if identity is None:
            raise SecretRejected
        needed = NEEDED.get(method, May.DECIDE)
        if not identity.may.covers(needed):
            text = f"`{identity.name}` may {identity.may.value}; `{method}` is for those who may {needed.value}"
            raise WorkerForbidden(text, identity=identity.name)
        return identity.name

    def _look(self) -> None:
        try:
            files = identity_files(self._folder)
            signature = tuple(map(_signature, (self._shared_file, *files)))
        except (ConfigError, OSError) as error:
            log.warning("the identities of workers cannot be looked at, so they count as before: %s", error)
            return
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._shared = secret_digest(read_secret(self._shared_file))
        except ConfigError as error:
            log.warning("the worker secret cannot be read, so the one before goes on to count: %s", error)
        known: dict[str, WorkerIdentity] = {}
        for file in files:
            try:
                identity = read_identity(file)
            except ConfigError as error:
                log.warning("nobody is let in as `%s`: %s", file.name, error)
            else:
                known |= dict.fromkeys(identity.secrets, identity)
        self._known = known


def _signature(file: Path) -> tuple[str, float, int, int]:
    found = file.stat()
    return file.name, found.st_mtime, found.st_size, found.st_ino
