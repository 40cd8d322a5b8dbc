"""Task `psi`: find the people whom both parties know, by blind RSA.

::

    client                                       signer
                       ── label? ──►  ◄── label? ──
                     ◄── key, proof of the key ──
    blind            ── blinded ids, by shard ──►       tag own ids
                     ◄── answers, by shard ──           sign
                     ◄── tags, ascending ──
    unblind, match   ── common tags, ascending ──►      match

Either half ends with the same tags, each with its own ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from fedtasks.crypto.key_proof import prove_key, verify_key_proof
from fedtasks.crypto.keys import PublicKey, load_psi_key
from fedtasks.data.blocks import TAG_BYTES
from fedtasks.data.ids import check_ids, check_label
from fedtasks.data.storage import local_path, remove
from fedtasks.data.tables import Part, list_parts
from fedtasks.errors import ConfigError, FedtasksError, IntersectionEmpty, KeyWeak, LabelInvalid, ProtocolViolated
from fedtasks.link.link import Link
from fedtasks.psi import stages
from fedtasks.psi.files import check_size, read_rows
from fedtasks.psi.spark import count_ids, count_labels, dataset_ids, move, spark_session
from fedtasks.psi.stages import TaggedShard
from fedtasks.settings import build
from fedtasks.tasks import Outcome, TaskContext, facts_of

log = logging.getLogger(__name__)

_MAX_SHARDS = 10_000


@dataclass(frozen=True)
class PsiSettings:
    """How the intersection is found; equal on both sides.

    Parameters
    ----------
    signer
        The party that signs; by default the follower.
    key_bits_min
        The shortest key that the client accepts.
    shards
        Into how many files ids are cut: at least as many as a side has cores.
    min_intersection
        With fewer people in common, both halves fail.
    """

    signer: str = ""
    key_bits_min: int = 2048
    shards: int = 2
    min_intersection: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("key_bits_min", 2048, 8192),
            ("shards", 1, _MAX_SHARDS),
            ("min_intersection", 1, 2**62),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{value} is not between {low} and {high}", field=name)


@dataclass(frozen=True)
class _Half:
    """What both halves work with."""

    context: TaskContext
    settings: PsiSettings
    link: Link
    spark: SparkSession
    scratch: str
    ids: DataFrame
    n_ids: int

    def report(self, phase: str, done: int, of: int) -> None:
        log.info("%s: %d of %d", phase, done, of)
        self.context.report({"phase": phase, "done": done, "of": of})

    def send_shards(self, name: str, files: Mapping[int, str]) -> None:
        for shard, uri in sorted(files.items()):
            self.link.send_file(f"{name}-{shard:05d}", local_path(uri))

    def receive_shards(self, name: str, rows: Sequence[int], width: int) -> dict[int, str]:
        """Receive a file for each shard that has rows, and check its size."""
        files = {}
        for shard, count in enumerate(rows):
            if count:
                files[shard] = f"{self.scratch}/received-{name}-{shard:05d}"
                self.link.receive_file(f"{name}-{shard:05d}", local_path(files[shard]))
                check_size(files[shard], count, width)
        return files


@dataclass(frozen=True)
class _Found:
    """What a half ends with: common tags with own ids, how many ids crossed blinded, and with which key."""

    shards: list[TaggedShard]
    n_people: int
    n_blinded: int
    key_id: str
    digest: str


def run(context: TaskContext) -> Outcome:
    """Find the common ids with the other half, and publish which tag belongs to which own id.

    Raises
    ------
    DataError
        The own dataset is not what was declared; see `fedtasks.data.tables` and `fedtasks.data.ids`.
    LabelInvalid
        Not exactly the leader has a label.
    IntersectionEmpty
        The halves share fewer people than `min_intersection`; raised on both sides.
    CryptoError
        The key or a signature cannot be trusted.

    Notes
    -----
    Reveals: to the client, which of its ids the signer has, and how many the signer has in all; to the signer, which of
    its ids the client has, and how many the client has in all. Only the client could lie about what it has in common.
    Cost: one private operation per id of each side, all at the signer; three rows of ``key_bits / 8`` bytes per blinded
    id are written, two of them cross.
    Source: RFC 9474; De Cristofaro and Tsudik, "Practical private set intersection protocols", 2010.
    """
    settings = build(PsiSettings, context.config.settings, path="settings")
    is_signer = _signer(context, settings) == context.party.name
    dataset = context.dataset
    parts = list_parts(dataset)
    scratch = f"{context.storage.folder(context.config.task)}/attempt-{context.config.attempt}"
    # What a killed attempt left behind holds ids and blinds.
    remove(context.storage.folder(context.config.task))
    local_path(scratch).mkdir(parents=True, mode=0o700)
    steps = ",".join(step.value for step in dataset.normalise)
    try:
        facts = facts_of(settings, id_type=dataset.id_type.value, normalise=steps)
        with context.open_link(facts) as link:
            _check_labels(context, link)
            with spark_session(context.party, f"{context.config.run_id} {context.config.task}", scratch) as spark:
                ids, n_ids = _checked_ids(context, spark, parts)
                half = _Half(context, settings, link, spark, scratch, ids, n_ids)
                found = _sign(half) if is_signer else _ask(half)
        return _publish(context, settings, found, n_ids)
    finally:
        remove(context.storage.folder(context.config.task))


def _signer(context: TaskContext, settings: PsiSettings) -> str:
    config = context.config
    parties = (context.party.name, config.peer)
    if settings.signer and settings.signer not in parties:
        raise ConfigError(f"`{settings.signer}` is not one of: {', '.join(sorted(parties))}", field="settings.signer")
    return settings.signer or next(name for name in parties if name != config.leader)


def _check_labels(context: TaskContext, link: Link) -> None:
    """Raise `LabelInvalid` on both sides unless exactly the leader has a label."""
    has_label = context.dataset.label is not None
    _send(link, "role", {"label": has_label})
    peer_has_label = _receive(link, "role").get("label")
    leader_has, follower_has = (has_label, peer_has_label) if context.is_leader else (peer_has_label, has_label)
    if not leader_has:
        _refuse(link, LabelInvalid("the leader's dataset declares no label", leader=context.config.leader))
    if follower_has:
        _refuse(link, LabelInvalid("both datasets declare a label", leader=context.config.leader))


def _checked_ids(context: TaskContext, spark: SparkSession, parts: Sequence[Part]) -> tuple[DataFrame, int]:
    dataset = context.dataset
    ids = dataset_ids(spark, dataset, parts)
    counts = count_ids(ids, parts)
    check_ids(dataset, counts)
    if dataset.label is not None:
        check_label(dataset, count_labels(ids))
    return ids, counts.n_rows


def _sign(half: _Half) -> _Found:
    """Do the signer's half."""
    context, link, n_shards = half.context, half.link, half.settings.shards
    key_file = context.party.psi_key
    if key_file is None:
        raise ConfigError("this party signs but names no key; make one with `fedtasks psi keygen`", field="psi_key")
    key = load_psi_key(key_file)
    _check_bits(key.public, half.settings)
    link.send("key", key.public.der)
    link.send("key proof", prove_key(key))

    half.report("signing own ids", 0, half.n_ids)
    own = stages.write_by_tag(stages.tag_own(half.ids, key_file, n_shards), n_shards, half.scratch)
    half.report("signing own ids", half.n_ids, half.n_ids)

    rows = _shard_rows(_receive(link, "blinded").get("rows"), n_shards)
    blinded = half.receive_shards("blinded", rows, key.public.key_bytes)
    # Signing is an oracle: what is signed is counted from the sizes of files, not from what the client says.
    half.report("signing blinded ids", 0, sum(rows))
    answers = stages.sign_blinded(half.spark, key_file, list(blinded.values()), half.scratch)
    half.report("signing blinded ids", sum(rows), sum(rows))
    half.send_shards("answers", dict(zip(blinded, answers, strict=True)))
    own_rows = {shard.shard: shard.rows for shard in own}
    _send(link, "tags", {"rows": [own_rows.get(shard, 0) for shard in range(n_shards)]})
    half.send_shards("tags", {shard.shard: shard.tags for shard in own})

    common_rows = _shard_rows(_receive(link, "common").get("rows"), n_shards)
    _check_size(half, sum(common_rows))
    common = half.receive_shards("common", common_rows, TAG_BYTES)
    link.close()  # the client need not wait for the matching here
    pairs = stages.read_pairs(half.spark, [shard.pairs for shard in own], n_shards)
    shards = _match(half, pairs, common)
    found = _Found(shards, sum(shard.rows for shard in shards), sum(rows), key.public.key_id, _digest(shards))
    if found.n_people != sum(common_rows):
        raise ProtocolViolated("the client returned tags that were never sent to it")
    return found


def _ask(half: _Half) -> _Found:
    """Do the client's half."""
    link, n_shards = half.link, half.settings.shards
    public = PublicKey.from_der(_bytes(link.receive("key"), "key"))
    _check_bits(public, half.settings)
    verify_key_proof(public, _bytes(link.receive("key proof"), "key proof"))

    half.report("blinding ids", 0, half.n_ids)
    blinded = stages.blind_ids(half.ids, public, n_shards, half.scratch)
    half.report("blinding ids", half.n_ids, half.n_ids)
    sent_rows = {shard.shard: shard.rows for shard in blinded}
    rows = [sent_rows.get(shard, 0) for shard in range(n_shards)]
    _send(link, "blinded", {"rows": rows})
    half.send_shards("blinded", {shard.shard: shard.blinded for shard in blinded})

    half.report("waiting for signatures", 0, half.n_ids)
    answers = half.receive_shards("answers", rows, public.key_bytes)
    tag_rows = _shard_rows(_receive(link, "tags").get("rows"), n_shards)
    tags = half.receive_shards("tags", tag_rows, TAG_BYTES)
    half.report("matching", 0, half.n_ids)
    own = stages.unblind(half.spark, public, blinded, list(answers.values()), n_shards)
    shards = _match(half, own, tags)
    common_rows = {shard.shard: shard.rows for shard in shards}
    found = _Found(shards, sum(common_rows.values()), sum(rows), public.key_id, _digest(shards))
    half.report("matching", half.n_ids, half.n_ids)
    _send(link, "common", {"rows": [common_rows.get(shard, 0) for shard in range(n_shards)]})
    _check_size(half, found.n_people)
    half.send_shards("common", {shard.shard: shard.tags for shard in shards})
    return found


def _match(half: _Half, own: DataFrame, tags: Mapping[int, str]) -> list[TaggedShard]:
    """Keep the own tags that the peer has too."""
    n_shards = half.settings.shards
    common = own.join(stages.read_tags(half.spark, list(tags.values())), "tag")
    return stages.write_by_tag(common, n_shards, half.scratch)


def _check_bits(public: PublicKey, settings: PsiSettings) -> None:
    if public.bits < settings.key_bits_min:
        raise KeyWeak(
            f"the signer's key has {public.bits} bits, this run asks for {settings.key_bits_min}", key_bits=public.bits
        )


def _check_size(half: _Half, n_people: int) -> None:
    """Raise `IntersectionEmpty` on both sides, before any common tag crosses."""
    needed = half.settings.min_intersection
    if n_people < needed:
        error = IntersectionEmpty(f"{n_people} people in common, at least {needed} are needed", needed=needed)
        _refuse(half.link, error)


def _digest(shards: Sequence[TaggedShard]) -> str:
    hasher = hashlib.sha256()
    for shard in shards:
        for rows in read_rows(shard.tags, TAG_BYTES):
            hasher.update(rows.tobytes())
    return hasher.hexdigest()


def _publish(context: TaskContext, settings: PsiSettings, found: _Found, n_ids: int) -> Outcome:
    config = context.config
    remove(context.folder)
    folder = context.storage.attempt(config.task, config.attempt)
    for number, shard in enumerate(found.shards):
        move(shard.pairs, f"{folder}/people-{number:05d}.parquet")
    counts = {"people_shared": found.n_people, "ids_blinded": found.n_blinded}
    context.storage.publish(
        config.task,
        config.attempt,
        rows=found.n_people,
        facts={
            **counts,
            "tags": found.digest,
            "key_id": found.key_id,
            "signer": _signer(context, settings),
            "own_ids": n_ids,
        },
    )
    return Outcome(counts=counts, digests={"tags": found.digest})


def _refuse(link: Link, error: FedtasksError) -> None:
    # Both halves come to the same refusal, so both must have heard all before either hangs up.
    link.close()
    raise error


def _send(link: Link, name: str, value: Mapping[str, Any]) -> None:
    link.send(name, json.dumps(value).encode())


def _receive(link: Link, name: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(link.receive(name), name))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ProtocolViolated(f"message `{name}` is not a JSON object")
    return value


def _bytes(payload: object, name: str) -> bytes:
    if not isinstance(payload, bytes):
        raise ProtocolViolated(f"message `{name}` is not bytes")
    return payload


def _shard_rows(value: object, n_shards: int) -> list[int]:
    if (
        not isinstance(value, list)
        or len(value) != n_shards
        or not all(type(rows) is int and rows >= 0 for rows in value)
    ):
        raise ProtocolViolated(f"expected the rows of {n_shards} shards")
    return value
