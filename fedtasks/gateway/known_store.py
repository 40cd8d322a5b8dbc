"""Which store a party's gateway has served, kept outside of the store: another one does not take its place unnoticed.

A small file in the party's storage, since what empties a database seldom empties that too.
"""

from __future__ import annotations

import logging

from fedtasks.clock import Clock, now_ms
from fedtasks.config import Party
from fedtasks.errors import DataCorrupt, DataMissing, FedtasksError, StoreReplaced
from fedtasks.store import Store

log = logging.getLogger(__name__)


def open_known(party: Party, clock: Clock = now_ms) -> Store:
    """Open the store that this party's gateway has served before; the first one is remembered.

    Raises
    ------
    StoreReplaced
        The database is empty though there was a store, or holds another one; nothing was made in it.
    ConfigError, NotPrivate, StoreUnavailable
        As `Store.open`.
    """
    url, secret = party.store.url, party.store.password_file
    known = _known(party)
    if known and Store.is_empty(url, secret):
        raise StoreReplaced("the database is empty, though this party has had a store", where=_place(party))
    store = Store.open(url, secret, clock=clock)
    try:
        _compare(party, known, store.identity.get())
    except BaseException:
        store.close()
        raise
    return store


def adopt(party: Party) -> str:
    """Let a gateway serve the store that party.yaml names, whichever it has served before; returns which one that is.

    Raises
    ------
    FedtasksError
        As `Store.open`; or the storage does not serve.
    """
    with Store.open(party.store.url, party.store.password_file) as store:
        store_id = store.identity.get()
        store.audit.add(party.name, "store.adopted", "noted", store=store_id, before=_known(party))
    _remember(party, store_id)
    return store_id


def require_known(party: Party, store: Store) -> None:
    """Raise `StoreReplaced` unless a store is the one that this party's gateway has served, if it has served any."""
    known = _known(party)
    if known and store.identity.get() != known:
        raise _replaced(party)


def _compare(party: Party, known: str, store_id: str) -> None:
    if not known:
        try:
            _remember(party, store_id)
        except (FedtasksError, OSError) as error:
            log.warning("which store this is cannot be remembered in the storage: %s", error)
    elif known != store_id:
        raise _replaced(party)


def _replaced(party: Party) -> StoreReplaced:
    return StoreReplaced("the database holds another store than the one before", where=_place(party))


def _known(party: Party) -> str:
    """Return which store was served before; empty if none was, or the storage cannot say."""
    from fedtasks.data.storage import read_json

    try:
        return str(read_json(_place(party))["store_id"])
    except DataMissing:
        return ""
    except (DataCorrupt, KeyError, TypeError):
        log.warning("%s cannot be read: which store was served before is not known", _place(party))
    except (FedtasksError, OSError) as error:
        log.warning("which store was served before is not known: %s", error)
    return ""


def _remember(party: Party, store_id: str) -> None:
    from fedtasks.data.storage import is_local, local_path, write_json
    from fedtasks.private import make_folder

    if is_local(party.storage):
        make_folder(local_path(party.storage))
    write_json(_place(party), {"store_id": store_id})


def _place(party: Party) -> str:
    return f"{party.storage.rstrip('/')}/store-of-{party.name}.json"
