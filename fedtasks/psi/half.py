"""Both halves of an intersection do this alike: know their ids, remember, compare, publish."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from fedtasks.config import LabelKind
from fedtasks.crypto.scheme import Client, RsaClient
from fedtasks.data.dated import new_name
from fedtasks.data.row_files import RowFile
from fedtasks.data.run_storage import FileEntry
from fedtasks.data.storage import filesystem, make_private, read_json, remove, write_json
from fedtasks.data.tables import Part, list_parts
from fedtasks.data.tag_files import PADDING, Generation
from fedtasks.data.values import IdCounts, check_ids, check_label, check_label_varies
from fedtasks.engines.engine import Batches, Engine, Frame
from fedtasks.errors import DataMissing, IntersectionEmpty, KeyWeak
from fedtasks.exchange.message import refuse
from fedtasks.link.link import Link
from fedtasks.names import TAG_BYTES
from fedtasks.psi import inspection
from fedtasks.psi.ids import (
    IDS,
    Changes,
    dataset_ids,
    find_changes,
    gone_pairs,
    ids_batch,
    move,
    new_ids,
)
from fedtasks.psi.jobs import engine_of
from fedtasks.psi.settings import PsiSettings
from fedtasks.psi.tag_sets import CrossedSets, TaggedShard
from fedtasks.psi.tag_table import TagTable
from fedtasks.runtime.context import Outcome, TaskContext

log = logging.getLogger(__name__)

REPORT_S = 2.0
"""So often is shown how far a half is."""

_PADDING_ROWS = 100_000

SETS = ("tags", "common")
"""Kinds of sets of tags that cross: the signer's, and those that both have."""

_PLAN_FORMAT = 2
"""Form of what stages leave for those that follow: another release cannot use it if that has changed."""


@dataclass(frozen=True)
class DividedIds:
    """The ids of a dataset: those that `generation` of the tag table has, and the `new` ones with their padding.

    Parameters
    ----------
    generation, new
        See above; `new` is a frame of `IDS`.
    found
        What there is in the dataset.
    """

    generation: Generation
    new: Frame
    found: Changes

    @property
    def counts(self) -> dict[str, int]:
        """People, rows that repeat one, and rows without an id."""
        counts = self.found.counts
        repeated = counts.n_rows - counts.n_null - self.found.n_ids
        return {"own_ids": self.found.n_ids, "own_duplicates": repeated, "own_without_id": counts.n_null}


class Remembered:
    """What this party remembers of the tags of the two datasets, as a task of a run reads it.

    Parameters
    ----------
    context
        Of a half of the run.
    task
        The task.
    """

    def __init__(self, context: TaskContext, task: str) -> None:
        self._context = context
        self.reader = f"{context.config.run_id}/{task}"

    def table(self, key_id: str) -> TagTable:
        """Return this party's tags under a key."""
        return TagTable(self._context.party.storage, self._context.dataset.name, key_id)

    def crossed(self, key_id: str, kind: str) -> CrossedSets:
        """Return the sets of tags that have crossed between the two datasets under a key."""
        config = self._context.config
        return CrossedSets(f"{self.table(key_id).uri}/{config.peer}.{config.datasets[config.peer]}/{kind}")

    def release(self, key_id: str) -> None:
        """Let go of what the task holds."""
        self.table(key_id).release(self.reader)
        for kind in SETS:
            self.crossed(key_id, kind).release(self.reader)


def drop_state(context: TaskContext, task: str) -> None:
    """Drop what the stages of an intersection have left for each other, once both halves have published.

    Parameters
    ----------
    context
        Of a half of the same run that has met the other one, or of the intersection itself.
    task
        The intersection.

    Notes
    -----
    Both halves of a later task meet only when either side's intersection has succeeded.
    """
    state = context.storage.folder_uri(task)
    try:
        key_id = read_json(f"{state}/plan.json").get("key_id")
    except DataMissing:
        key_id = None
    if key_id:
        Remembered(context, task).release(key_id)
    remove(state)


class Half:
    """One half, in the process of one stage or of all.

    What a stage leaves for the next, or for the next attempt, is in the private folder `state`: ids, what undoes their
    blinds, and what came from the peer, each file under the digest of its content. Where all stages are one task, it
    goes when that has published. Else it stays, so that each stage can be repeated after the success of either side,
    until both sides have: the next task that meets drops it (`drop_state`), or the end of the run.
    """

    def __init__(self, context: TaskContext, settings: PsiSettings) -> None:
        self.context = context
        self.settings = settings
        self.remembered = Remembered(context, context.config.task)
        self.state = context.storage.folder(context.config.task)
        make_private(self.state)
        # What two tries of a stage write must not meet.
        self.work = f"{self.state}/work-{uuid.uuid4().hex}"
        make_private(self.work)

    # ---------------------------------------------------------------------------------------------------- what it has
    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Yield the engine that party.yaml names."""
        with engine_of(self.context, self.work) as engine:
            yield engine

    @cached_property
    def partitions(self) -> list[str]:
        """The partitions of the dataset that had landed when this was first asked for; none if it keeps none.

        Raises
        ------
        DataNotLanded
            The partition of the run is not among them.
        """
        place = f"{self.state}/partitions.json"
        try:
            found: list[str] = read_json(place)
        except DataMissing:
            # What lands between two stages, or two tries of one, is left to the next run.
            found = self.context.partitions
            write_json(place, found)
        return found

    @cached_property
    def parts(self) -> list[Part]:
        """The dataset's files; asking for them checks their columns."""
        return list_parts(self.context.dataset, self.partitions)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What stage `prepare` found and agreed on.

        Raises
        ------
        DataMissing
            It has not run, or what it left has been dropped since.
        """
        where = f"task `{self.context.config.task}`"
        try:
            found: dict[str, Any] = read_json(f"{self.state}/plan.json")
        except DataMissing:
            raise DataMissing(f"{where} has no prepared ids here; clear the whole task", where=self.state) from None
        if found.get("format") != _PLAN_FORMAT:
            text = f"{where} has ids here that another release has prepared; clear the whole task"
            raise DataMissing(text, where=self.state)
        return found

    def save_plan(self, plan: Mapping[str, Any]) -> None:
        """Keep what the later stages need."""
        self.plan = {**plan, "format": _PLAN_FORMAT}
        write_json(f"{self.state}/plan.json", self.plan)

    @property
    def _counted(self) -> dict[str, int]:
        """What the run has been charged, over all its attempts, as outcomes and so receipts name it."""
        return {"ids_blinded": self.plan["charged"]}

    def table(self, key_id: str) -> TagTable:
        """Return this party's tags under a key."""
        return self.remembered.table(key_id)

    def crossed(self, key_id: str, kind: str) -> CrossedSets:
        """Return the sets of tags that have crossed between the two datasets under a key."""
        return self.remembered.crossed(key_id, kind)

    @property
    def reader(self) -> str:
        """The name by which this half, in all its stages and tries, holds what it reads of the tags."""
        return self.remembered.reader

    def keep_crossed(self, kind: str, files: Sequence[RowFile]) -> None:
        """Keep a set of tags that has crossed, for the next run to build on."""
        self.crossed(self.plan["key_id"], kind).add(files, self.folder_of(kind), self.reader)

    def folder_of(self, kind: str) -> str:
        """Return the name of the folder for a set of this run, by which a second try finds what the first has moved."""
        folders = self.plan.get("folders", {})
        if kind not in folders:
            self.save_plan({**self.plan, "folders": {**folders, kind: new_name()}})
        return str(self.plan["folders"][kind])

    def base(self, kind: str, key_id: str, agreed: Mapping[str, Any]) -> list[RowFile]:
        """Return the set on which a difference builds: what both sides hold, or nothing."""
        digest = agreed[f"{kind}_base"]
        return self.crossed(key_id, kind).get(digest) if digest else []

    def divided_ids(self, engine: Engine, table: TagTable | None = None) -> DividedIds:
        """Check the dataset's ids, forget the tags of those that are gone, and find those that have no tag.

        Without a table, all ids are new.
        """
        dataset, shards = self.context.dataset, self.settings.shards
        generation, known = Generation(), None
        if table:
            generation = table.in_runs(engine, table.hold(self.reader), shards, self.work, self.reader)
            known = table, generation.runs
        rows = dataset_ids(engine, dataset, self.parts, shards)
        found = find_changes(engine, rows, self.parts, shards, self.work, known)
        check_ids(dataset, found.counts)
        self._tell_of_missing(found.counts)
        if dataset.label is not None and dataset.label_kind is LabelKind.BINARY:
            check_label(dataset, found.labels)
        elif dataset.label is not None:
            check_label_varies(dataset, found.least, found.most)
        if table and found.n_gone:
            gone = gone_pairs(engine, found, shards)
            generation = table.extend(engine, generation, gone, shards, self.work, self.reader)
        new, missing = new_ids(engine, found, shards), -found.n_new % self.settings.pad_rows
        if missing:
            new = engine.concat(new, self._padding(engine, missing, generation.padding))
        return DividedIds(generation, new, found)

    def _tell_of_missing(self, counts: IdCounts) -> None:
        """Say on this side how many rows are left out, since they have no id."""
        if counts.n_null:
            first = counts.null_example
            log.warning(
                "%d of %d rows have no id and are left out, the first is %s", counts.n_null, counts.n_rows, first
            )
            self.context.report(None, rows_without_id=counts.n_null)

    def _padding(self, engine: Engine, n_rows: int, first: int) -> Frame:
        """Make ids that nobody has, behind the `first` that are in the tag table already."""
        shards = self.settings.shards
        mine = f"{PADDING}{self.context.party.name}\x00{self.context.dataset.name}\x00"

        def make(numbers: range) -> Batches:
            yield ids_batch(pa.array([f"{mine}{number}" for number in numbers], pa.string()), shards)

        numbers = range(first, first + n_rows)
        chunks = [numbers[start : start + _PADDING_ROWS] for start in range(0, n_rows, _PADDING_ROWS)]
        return engine.each(chunks, make, IDS)

    def extend_table(self, engine: Engine, table: TagTable, generation: Generation, new: Frame) -> Generation:
        """Add the tags of new ids, none of which `generation` has."""
        with engine.keep(new) as pairs:
            return table.extend(engine, generation, pairs, self.settings.shards, self.work, self.reader)

    def has_answers(self, question: str) -> bool:
        """Whether the answers to what is known by a digest are here."""
        fs, path = filesystem(self._answers_place(question))
        return bool(fs.exists(path))

    def answers_of(self, question: str) -> list[RowFile]:
        """Return the files of answers to what is known by a digest.

        Raises
        ------
        DataMissing
            They are not here.
        """
        try:
            return [RowFile(**file) for file in read_json(self._answers_place(question))]
        except DataMissing:
            text = "there are blinded ids without answers here; clear the tasks that sign and fetch them"
            raise DataMissing(text, where=self.state) from None

    def keep_answers(self, question: str, answers: Sequence[RowFile]) -> None:
        """Note where the answers to what is known by a digest are."""
        write_json(self._answers_place(question), [vars(file) for file in answers])

    def _answers_place(self, question: str) -> str:
        return f"{self.state}/answers-{question}.json"

    def sweep(self, keep: Sequence[str] = ()) -> None:
        """Remove what earlier tries have written and nobody needs."""
        fs, folder = filesystem(self.state)
        for path in fs.ls(folder, detail=False):
            name = path.rstrip("/").rpartition("/")[2]
            place = f"{self.state}/{name}"
            if name.startswith("work-") and place != self.work and not any(uri.startswith(place) for uri in keep):
                remove(place)

    # -------------------------------------------------------------------------------------------------- what it tells
    def report(self, phase: str, done: int, of: int) -> None:
        """Show how far the half is."""
        log.info("%s: %d of %d", phase, done, of)
        self.context.report({"phase": phase, "done": done, "of": of})

    @contextmanager
    def watched(self, engine: Engine, phase: str, of: int) -> Iterator[None]:
        """Show how far the jobs in this block are."""
        ended = threading.Event()

        def watch() -> None:
            last = 0
            while not ended.wait(REPORT_S):
                done = int(of * engine.share)
                if done > last:
                    last = done
                    self.report(phase, done, of)

        self.report(phase, 0, of)
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        self.report(phase, of, of)

    # ------------------------------------------------------------------------------------------------- how it ends
    def check_size(self, link: Link, n_people: int) -> None:
        """Raise `IntersectionEmpty` on both sides, before any common tag crosses; of few, say how ids are written."""
        needed = self.settings.min_intersection
        written = inspection.explain(self.context, link, self.state, n_people, self.plan["own_ids"])
        if n_people < needed:
            text = f"{n_people} people in common, at least {needed} are needed"
            text = f"{text}; {written}" if written else text
            refuse(link, IntersectionEmpty(text, needed=needed))
        if written:
            log.info("%d people in common; if more were expected: %s", n_people, written)

    def publish(self, people: Sequence[TaggedShard] | None, counts: Mapping[str, int], digest: str) -> Outcome:
        """Publish which tag belongs to which of this party's ids, if this half knows.

        Everything else is forgotten at once if all stages are one task, which is repeated as a whole. A stage of its
        own keeps it: the other half may yet have to do its part again, and then needs this one.
        """
        config, storage = self.context.config, self.context.storage
        remove(self.context.folder)
        folder = storage.attempt(config.task, config.attempt)
        written = []
        for number, shard in enumerate(people or ()):
            written.append(FileEntry(f"people-{number:05d}.parquet", shard.size_bytes, shard.sha256))
            move(shard.uri, f"{folder}/{written[-1].name}")
        own = ("key_id", "own_ids", "own_duplicates", "own_without_id")
        facts = {name: value for name, value in self.plan.items() if name in own}
        rows = counts["people_shared"] if people is not None else 0
        shared = {"tags": digest, "signer": self.settings.signer, "learns": self.settings.learns.value}
        facts["partitions"] = self.partitions
        storage.publish(config.task, config.attempt, rows=rows, facts={**counts, **facts, **shared}, written=written)
        if config.stage:
            storage.spend(config.task)
        else:
            drop_state(self.context, config.task)
        return Outcome(counts=counts, digests={"tags": digest})


def check_key_bits(client: Client, settings: PsiSettings) -> None:
    """Refuse an RSA key that is shorter than this run asks for; both sides do."""
    if isinstance(client, RsaClient) and client.key.bits < settings.key_bits_min:
        bits, needed = client.key.bits, settings.key_bits_min
        raise KeyWeak(f"the signer's key has {bits} bits, this run asks for {needed}", key_bits=bits)


def tag_bytes(file: RowFile) -> int:
    """Return the size of a file of tags."""
    return file.rows * TAG_BYTES
