"""The half that has the key: it answers what the client has blinded, tags its own ids, and learns what was agreed."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

from fedtasks.crypto.scheme import Signer, load_signer
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.row_files import RowFile
from fedtasks.engines.engine import Engine
from fedtasks.errors import ConfigError, KeyInvalid, ProtocolViolated
from fedtasks.exchange.files import announce, announced, receive_files, total
from fedtasks.link.link import Link
from fedtasks.psi import messages, stages, tag_sets
from fedtasks.psi.half import SETS, Half, check_key_bits, tag_bytes
from fedtasks.psi.settings import Learns
from fedtasks.psi.tag_sets import TaggedShard, set_digest
from fedtasks.runtime.context import Outcome


class SignerHalf(Half):
    """The stages of the signer."""

    def prepare(self, link: Link) -> Outcome:
        """Tag this party's ids that have no tag yet, count what the client will ask, and say what has changed."""
        settings, signer = self.settings, self._signer
        check_key_bits(signer.client, settings)
        key_id = signer.client.key_id
        messages.KEY.send(link, signer.public)
        messages.KEY_PROOF.send(link, signer.key_proof)
        self.sweep()
        table = self.table(key_id)
        with self.engine() as engine:
            ids = self.divided_ids(engine, table)
            generation = ids.generation
            if ids.found.n_new:
                with self.watched(engine, "tagging own ids", ids.found.n_new):
                    new = stages.tag_own(engine, ids.new, settings.scheme, self._key_file, settings.shards)
                    generation = self.extend_table(engine, table, generation, new)
            tags = tag_sets.table_tags(engine, table, generation, settings.shards, self.work)
            offer = messages.OFFER.receive(link)
            blinded = announced(offer.get("blinded"), settings.shards)
            charged = self._charge(blinded)
            bases = {
                f"{kind}_base": _newest(self.crossed(key_id, kind).hold(self.reader), offer.get(kind)) for kind in SETS
            }
            before = self.crossed(key_id, "tags").get(bases["tags_base"]) if bases["tags_base"] else []
            added, gone = tag_sets.difference(engine, before, tags, settings.shards, self.work)
        accepted = {
            "charged": charged,
            **bases,
            "added": announce(added),
            "gone": announce(gone),
            "now": set_digest(tags),
        }
        messages.ACCEPTED.send(link, accepted)
        self.save_plan(
            {
                "key_id": key_id,
                "generation": generation.name,
                **ids.counts,
                "blinded": announce(blinded),
                "charged": charged,
                **bases,
                "added": [vars(file) for file in added],
                "gone": [vars(file) for file in gone],
                "tags": [vars(file) for file in tags],
            }
        )
        return Outcome(counts=self._counted)

    def send(self, link: Link, shards: Sequence[int]) -> Outcome:
        """Receive shards of blinded ids."""
        files = [file for file in self._blinded() if file.shard in shards]
        sizes = [(messages.BLINDED.numbered(file.shard), file, file.rows * self._element_bytes) for file in files]
        receive_files(link, sizes, self.state)
        return Outcome(counts={"rows": total(files)})

    def sign(self) -> Outcome:
        """Answer the blinded ids that have no answer yet; all of them have been counted, and no others are answered."""
        for _ in self._signed():
            pass
        return Outcome(counts=self._counted)

    def answer(self, link: Link, shard: int) -> Outcome:
        """Send one shard of answers, and of this party's tags what has changed."""
        rows = 0
        for file in self._blinded(shard):
            (answers,) = self.answers_of(file.sha256)
            message = messages.ANSWERS.numbered(shard)
            message.announce(link, [answers])
            message.send(link, answers)
            rows = file.rows
        for kind, message in messages.CHANGED_TAGS.items():
            for file in self._files(kind):
                if file.shard == shard:
                    message.numbered(shard).send(link, file)
        return Outcome(counts={"rows": rows})

    def finish(self, link: Link) -> Outcome:
        """Send each shard of answers as soon as it is made: the client finishes it while the next is made."""
        with closing(self._signed()) as signed:
            for shard in range(self.settings.shards):
                if any(not self.has_answers(file.sha256) for file in self._blinded(shard)):
                    next(signed)
                self.answer(link, shard)
        return self.match(link)

    def _signed(self) -> Generator[None, None, None]:
        """Answer the files that have no answers, one after another in the order of shards."""
        waiting = [file for file in self._blinded() if not self.has_answers(file.sha256)]
        if not waiting:
            return
        with self.engine() as engine, self.watched(engine, "answering blinded ids", total(waiting)):
            found = stages.evaluate(engine, self.settings.scheme, self._key_file, waiting, self.state)
            for file, answers in zip(waiting, found, strict=True):
                self.keep_answers(file.sha256, [answers])
                yield

    def match(self, link: Link) -> Outcome:
        """Learn which tags are common, if that was agreed, and whose they are."""
        message = messages.COMMON.receive(link)
        n_people = size_of(message)
        counts = {"people_shared": n_people, **self._counted}
        people: list[TaggedShard] | None = None
        digest = set_digest(self._files("tags"))
        if self.settings.learns is Learns.BOTH:
            changes = {kind: announced(message.get(kind), self.settings.shards) for kind in ("added", "gone")}
            self.check_size(link, n_people)
            for kind, files in changes.items():
                crossing = messages.CHANGED_COMMON[kind]
                sizes = [(crossing.numbered(file.shard), file, tag_bytes(file)) for file in files]
                changes[kind] = receive_files(link, sizes, self.state)
            link.close()  # the client need not wait for the matching here
            with self.engine() as engine, self.watched(engine, "matching", n_people):
                people = self._match(engine, changes)
            common = [shard.sent for shard in people]
            digest = set_digest(common)
            if digest != message.get("now") or total(common) != n_people:
                raise ProtocolViolated("the client returned tags that were never sent to it, or not those it announced")
            self.keep_crossed("common", common)
        else:
            self.check_size(link, n_people)
        self.keep_crossed("tags", self._files("tags"))
        return self.publish(people, counts, digest)

    def _match(self, engine: Engine, changes: dict[str, list[RowFile]]) -> list[TaggedShard]:
        plan, shards = self.plan, self.settings.shards
        base = self.base("common", plan["key_id"], plan)
        common = tag_sets.renewed(engine, base, **changes, n_shards=shards, folder=self.work)
        table = self.table(plan["key_id"])
        own = table.generation(plan["generation"])
        return tag_sets.shared(engine, table, own, common, shards, self.work)

    @cached_property
    def _key_file(self) -> Path:
        party = self.context.party
        is_rsa = self.settings.scheme is Scheme.BLIND_RSA
        field, file = ("psi_key", party.psi_key) if is_rsa else ("psi_oprf_key", party.psi_oprf_key)
        if file is None:
            made = f"fedtasks psi keygen --scheme {self.settings.scheme.value}"
            raise ConfigError(f"this party signs but names no key; make one with `{made}`", field=field)
        return file

    @cached_property
    def _signer(self) -> Signer:
        signer = load_signer(self.settings.scheme, self._key_file)
        if self.context.config.stage not in ("", "prepare") and signer.client.key_id != self.plan["key_id"]:
            raise KeyInvalid("the key has changed since the ids were prepared; clear the whole task")
        return signer

    @property
    def _element_bytes(self) -> int:
        return self._signer.client.element_bytes

    def _charge(self, blinded: list[RowFile]) -> int:
        """Count what the client asks on the ticket, each file once; returns what all attempts have been charged."""
        return self.context.count_use("ids_blinded", {file.sha256: file.rows for file in blinded})

    def _blinded(self, shard: int | None = None) -> list[RowFile]:
        return [file for file in self._all_blinded if shard in (None, file.shard)]

    @cached_property
    def _all_blinded(self) -> list[RowFile]:
        found = announced(self.plan["blinded"], self.settings.shards)
        return [messages.BLINDED.numbered(file.shard).arrived(file, self.state) for file in found]

    def _files(self, kind: str) -> list[RowFile]:
        return self._all_files[kind]

    @cached_property
    def _all_files(self) -> dict[str, list[RowFile]]:
        plan = self.plan
        kinds = {"tags", *messages.CHANGED_TAGS} & set(plan)
        found = {kind: [RowFile(**file) for file in plan[kind]] for kind in kinds}
        folder = plan.get("folders", {}).get("tags")
        if folder:
            # This half has published: the set has moved, and without one to build on it is also all that is new.
            crossed = self.crossed(plan["key_id"], "tags")
            for kind in ("tags",) if plan["tags_base"] else ("tags", "added"):
                found[kind] = crossed.found(found[kind], folder)
        return found


def size_of(message: Mapping[str, Any]) -> int:
    """Return how many people message `common` says are shared; raise `ProtocolViolated` when it does not."""
    size = message.get("n")
    if type(size) is not int or size < 0:
        raise ProtocolViolated("message `common` names no size")
    return size


def _newest(held: Sequence[str], offered: object) -> str | None:
    """Return the newest set that both sides hold."""
    if not isinstance(offered, list):
        raise ProtocolViolated("an offer is not a list of sets")
    both = [digest for digest in held if digest in offered]
    return both[-1] if both else None
