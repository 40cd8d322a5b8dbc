"""Tags of ids: tables that no intersection has used for long, and loaded ones of datasets that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep, Party
from fedtasks.data.storage import size_of
from fedtasks.data.tag_files import TagFiles, tag_tables
from fedtasks.retention.removal import Removal, too_old
from fedtasks.store import Store


def removals(party: Party, store: Store, keep: Keep, now_ms: int) -> Iterator[Removal]:
    """Yield the tag tables that go, but none of a dataset that a run which goes on reads.

    People who have left a dataset leave its table with the next intersection; this is for tables that see none.
    """
    under_way = store.runs.active()
    for dataset, key_id in tag_tables(party.storage):
        files = TagFiles(party.storage, dataset, key_id)
        used_ms = files.used_at() * 1000
        is_in_use = any(f'"{dataset}"' in run.config_json for run in under_way)
        if 0 < used_ms < now_ms - keep.tags_days * DAY_MS and not is_in_use:
            why = too_old("last used", used_ms, keep.tags_days)
            yield Removal("tags", f"{dataset} under key {key_id}", why, files.remove, size_of(files.uri))
    declared = {dataset.name for dataset in party.datasets}
    for table in store.tags.list():
        if table.dataset not in declared:
            what = f"{table.dataset} under key {table.key_id}, loaded for lookups"
            forget = partial(store.tags.remove, table.dataset, table.key_id)
            yield Removal("tags", what, "party.yaml declares no such dataset", forget, n_rows=table.rows)
