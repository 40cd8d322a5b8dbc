"""The halves of an intersection of which both learn the size alone: secrets of one run, and nothing is remembered."""

from __future__ import annotations

from typing import Any

from fedtasks.crypto import cardinality
from fedtasks.crypto.cardinality import ELEMENT_BYTES
from fedtasks.data.storage import read_json, write_json
from fedtasks.engines.engine import Engine, Frame
from fedtasks.errors import DataMissing, ProtocolViolated
from fedtasks.exchange.files import announce, announced, total
from fedtasks.link.link import Link
from fedtasks.names import TAG_BYTES
from fedtasks.psi import messages, stages
from fedtasks.psi.client import ClientHalf, charged_of, plain
from fedtasks.psi.half import DividedIds, tag_bytes
from fedtasks.psi.signer import SignerHalf, size_of
from fedtasks.psi.stages import BlindedShard
from fedtasks.psi.tag_sets import set_digest
from fedtasks.runtime.context import Outcome


class SizeClientHalf(ClientHalf):
    """The stages of the client; all its ids are blinded by one scalar, which is what undoes the blind of every shard.

    Notes
    -----
    Reveals: to the signer the number of ids and how many are shared.
    Cost: two multiplications per id; per id two elements of 32 bytes cross.
    Source: see `fedtasks.crypto.cardinality`.
    """

    def prepare(self, link: Link) -> Outcome:
        """Blind all ids, and hear how many tags the signer has."""
        with self.engine() as engine:
            ids = self.divided_ids(engine)
            blinded = self._blind_once(engine, ids, "", lambda: self._blind(engine, ids.new))
        sent = [shard.sent for shard in blinded]
        messages.OFFER.send(link, {"blinded": announce(sent)})
        accepted = messages.ACCEPTED.receive(link)
        tags = announced(accepted.get("tags"), self.settings.shards)
        charged = charged_of(accepted, sent)
        self.save_plan({**ids.counts, "blinded": plain(blinded), "charged": charged, "tags": announce(tags)})
        return Outcome(counts=self._counted)

    def answer(self, link: Link, shard: int) -> Outcome:
        """Receive the answers and the signer's tags that belong to one shard by their value."""
        message = messages.ANSWERS.numbered(shard)
        answers = message.announced(link, self.settings.shards)
        if any(file.shard != shard for file in answers):
            raise ProtocolViolated(f"`{message.name}` is of another shard")
        arrived = [message.receive(link, file, file.rows * ELEMENT_BYTES, self.state) for file in answers]
        self.keep_answers(self._question(shard), arrived)
        for file in self._tags("tags"):
            if file.shard == shard:
                messages.TAGS.numbered(shard).receive(link, file, tag_bytes(file), self.state)
        return Outcome(counts={"rows": total(answers)})

    def finish(self, link: Link) -> Outcome:
        """Receive all answers, and match."""
        for shard in range(self.settings.shards):
            self.answer(link, shard)
        return self.match(link)

    def match(self, link: Link, answered: object = None) -> Outcome:
        """Count the tags that the signer has too, and tell it how many they are."""
        settings, blinded, tags = self.settings, self.blinded(), self._tags("tags")
        answers = [file for shard in range(settings.shards) for file in self.answers_of(self._question(shard))]
        n_asked = total([shard.sent for shard in blinded])
        if total(answers) != n_asked:
            raise ProtocolViolated(f"{n_asked} blinded ids have {total(answers)} answers")
        here = [messages.TAGS.numbered(file.shard).arrived(file, self.state) for file in tags]
        with self.engine() as engine, self.watched(engine, "matching", n_asked):
            scalar = blinded[0].state if blinded else ""
            own = stages.map_elements(engine, answers, cardinality.finish, scalar, settings.shards)
            n_people = stages.count_common(engine, own, here, settings.shards)
        messages.COMMON.send(link, {"n": n_people})
        self.check_size(link, n_people)
        return self.publish(None, {"people_shared": n_people, **self._counted}, set_digest(tags))

    def _blind(self, engine: Engine, ids: Frame) -> list[BlindedShard]:
        n_shards = self.settings.shards
        scalar = stages.new_scalar(self.work)
        rows = stages.map_ids(engine, ids, cardinality.blind, scalar, n_shards)
        return [
            BlindedShard(file, scalar) for file in stages.write_rows(engine, rows, ELEMENT_BYTES, n_shards, self.work)
        ]

    def _question(self, shard: int) -> str:
        return f"{shard:05d}-under-{set_digest(self._tags('tags'))}"


class SizeSignerHalf(SignerHalf):
    """The stages of the signer; its key is a scalar that answers one question.

    Notes
    -----
    Reveals: to the client the number of ids and how many are shared. A client that follows the protocol cannot tell
    which answer belongs to which question; one that asks for multiples of one element can, and pays for them. There is
    no proof that the answers are made with the key of the tags: a signer can falsify the count, and nothing else.
    Cost: one multiplication per id of either side.
    Source: see `fedtasks.crypto.cardinality`.
    """

    def prepare(self, link: Link) -> Outcome:
        """Tag this party's ids, and count what the client will ask."""
        with self.engine() as engine:
            ids = self.divided_ids(engine)
            inputs = {"pad_rows": self.settings.pad_rows, "new": [ids.found.n_new, ids.found.digest]}
            before = self._tagged_before(inputs)
            self.sweep([before["scalar"]] if before else [])
            tagged = before or self._tag(engine, ids)
            blinded = announced(messages.OFFER.receive(link)["blinded"], self.settings.shards)
            charged = self._charge(blinded)
            if before and before["blinded"] != announce(blinded):
                # Of two sets that differ by one id, the answers under one key would tell which is whose.
                tagged = self._tag(engine, ids)
        tagged["blinded"] = announce(blinded)
        write_json(f"{self.state}/tagged.json", {**tagged, "inputs": inputs})
        self.save_plan({**ids.counts, **tagged, "charged": charged})
        messages.ACCEPTED.send(link, {"charged": charged, "tags": announce(self._files("tags"))})
        return Outcome(counts=self._counted)

    def sign(self) -> Outcome:
        """Answer all blinded ids and sort the answers, unless that is done; no others than those that were counted."""
        blinded, n_shards = self._blinded(), self.settings.shards
        if not self.has_answers(self._question):
            with self.engine() as engine, self.watched(engine, "answering blinded ids", total(blinded)):
                rows = stages.map_elements(engine, blinded, cardinality.answer, self.plan["scalar"], n_shards)
                self.keep_answers(self._question, stages.write_rows(engine, rows, ELEMENT_BYTES, n_shards, self.state))
        return Outcome(counts=self._counted)

    def answer(self, link: Link, shard: int) -> Outcome:
        """Send the answers and this party's tags that belong to one shard by their value."""
        message = messages.ANSWERS.numbered(shard)
        answers = [file for file in self.answers_of(self._question) if file.shard == shard]
        message.announce(link, answers)
        for file in answers:
            message.send(link, file)
        for file in self._files("tags"):
            if file.shard == shard:
                messages.TAGS.numbered(shard).send(link, file)
        return Outcome(counts={"rows": total(answers)})

    def finish(self, link: Link) -> Outcome:
        """Make all answers before the first is sent: they are in the order of their values."""
        self.sign()
        for shard in range(self.settings.shards):
            self.answer(link, shard)
        return self.match(link)

    def match(self, link: Link) -> Outcome:
        """Learn how many people are shared."""
        n_people = size_of(messages.COMMON.receive(link))
        self.check_size(link, n_people)
        counts = {"people_shared": n_people, **self._counted}
        return self.publish(None, counts, set_digest(self._files("tags")))

    def _tag(self, engine: Engine, ids: DividedIds) -> dict[str, Any]:
        """Tag this party's ids under a new scalar."""
        n_shards = self.settings.shards
        scalar = stages.new_scalar(self.work)
        with self.watched(engine, "tagging own ids", ids.found.n_new):
            rows = stages.map_ids(engine, ids.new, cardinality.tag, scalar, n_shards)
            tags = stages.write_rows(engine, rows, TAG_BYTES, n_shards, self.work)
        return {"scalar": scalar, "tags": [vars(file) for file in tags]}

    def _tagged_before(self, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """Return what an earlier attempt tagged, and what was asked then, if the ids are the same."""
        try:
            before: dict[str, Any] = read_json(f"{self.state}/tagged.json")
        except DataMissing:
            return None
        return before if before.pop("inputs") == inputs else None

    @property
    def _question(self) -> str:
        scalar: str = self.plan["scalar"]
        return scalar.rpartition("/")[2]

    @property
    def _element_bytes(self) -> int:
        return ELEMENT_BYTES
