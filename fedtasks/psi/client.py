"""The half that asks: it blinds its new ids, has them answered, and matches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from fedtasks.crypto.scheme import Client, open_client
from fedtasks.data.row_files import RowFile, answers_bytes
from fedtasks.data.storage import read_json, write_json
from fedtasks.engines.engine import Engine
from fedtasks.errors import DataMissing, ProtocolViolated
from fedtasks.exchange.files import announce, announced, receive_files, total
from fedtasks.link.link import Link
from fedtasks.psi import messages, stages, tag_sets
from fedtasks.psi.half import SETS, DividedIds, Half, check_key_bits, tag_bytes
from fedtasks.psi.settings import Learns
from fedtasks.psi.stages import BlindedShard
from fedtasks.psi.tag_sets import set_digest
from fedtasks.runtime.context import Outcome


class ClientHalf(Half):
    """The stages of the client."""

    def prepare(self, link: Link) -> Outcome:
        """Blind the ids that have no tag yet, and agree with the signer on what will cross."""
        public, proof = messages.KEY.receive(link), messages.KEY_PROOF.receive(link)
        client = self._open(public, proof)
        with self.engine() as engine:
            ids = self.divided_ids(engine, self.table(client.key_id))
            blinded = self._blind_once(
                engine,
                ids,
                client.key_id,
                lambda: stages.blind_ids(engine, ids.new, client, self.settings.shards, self.work),
            )
        sent = [shard.sent for shard in blinded]
        held = {kind: self.crossed(client.key_id, kind).hold(self.reader) for kind in SETS}
        messages.OFFER.send(link, {"blinded": announce(sent), **held})
        accepted = messages.ACCEPTED.receive(link)
        self.save_plan(
            {
                "key_id": client.key_id,
                "public": public.hex(),
                "proof": proof.hex(),
                "generation": ids.generation.name,
                **ids.counts,
                "blinded": plain(blinded),
                "charged": charged_of(accepted, sent),
                **self._accepted(accepted, held),
            }
        )
        return Outcome(counts=self._counted)

    def send(self, link: Link, shards: Sequence[int]) -> Outcome:
        """Send shards of blinded ids."""
        files = [each.sent for each in self.blinded() if each.sent.shard in shards]
        for file in files:
            messages.BLINDED.numbered(file.shard).send(link, file)
        return Outcome(counts={"rows": total(files)})

    def sign(self) -> Outcome:
        """Do nothing: the signer signs."""
        return Outcome(counts=self._counted)

    def answer(self, link: Link, shard: int) -> Outcome:
        """Receive one shard of answers, and of the signer's tags what is not here yet."""
        client, rows = self._client(), 0
        for each in self.blinded(shard):
            message = messages.ANSWERS.numbered(shard)
            files = message.announced(link, self.settings.shards)
            if [(file.shard, file.rows) for file in files] != [(shard, each.sent.rows)]:
                raise ProtocolViolated(f"`{message.name}` has not the {each.sent.rows} rows that were asked for")
            rows = each.sent.rows
            size = answers_bytes(rows, client.element_bytes, client.proof_bytes)
            self.keep_answers(each.sent.sha256, [message.receive(link, files[0], size, self.state)])
        sizes = [
            (message.numbered(shard), file, tag_bytes(file))
            for kind, message in messages.CHANGED_TAGS.items()
            for file in self._tags(kind)
            if file.shard == shard
        ]
        receive_files(link, sizes, self.state)
        return Outcome(counts={"rows": rows})

    def finish(self, link: Link) -> Outcome:
        """Finish each shard of answers as it comes, and match."""
        return self.match(link, _Arriving(self, link))

    def match(self, link: Link, answered: Iterable[tuple[BlindedShard, RowFile]] | None = None) -> Outcome:
        """Tag the new ids, find the people whom the signer has too, and tell it what was agreed.

        Parameters
        ----------
        answered
            Blinded ids with their answers, as they come; by default all are here.
        """
        settings, client = self.settings, self._client()
        with self.engine() as engine:
            with self.watched(engine, "finishing tags", total([each.sent for each in self.blinded()])):
                self._finish_tags(engine, client, self._answered() if answered is None else answered)
            with self.watched(engine, "matching", self.plan["own_ids"]):
                tags = self._signer_tags(engine)
                table = self.table(client.key_id)
                own = table.generation(self.plan["generation"])
                people = tag_sets.shared(engine, table, own, tags, settings.shards, self.work)
            common = [shard.sent for shard in people]
            counts = {"people_shared": total(common), **self._counted}
            if settings.learns is Learns.BOTH:
                self._tell(link, engine, common)
            else:
                messages.COMMON.send(link, {"n": total(common)})
                self.check_size(link, total(common))
        digest = self.plan["now"]
        self.keep_crossed("tags", tags)
        if settings.learns is Learns.BOTH:
            digest = set_digest(common)
            self.keep_crossed("common", common)
        return self.publish(people, counts, digest)

    def _open(self, public: bytes, proof: bytes) -> Client:
        client = open_client(self.settings.scheme, public, proof)
        check_key_bits(client, self.settings)
        return client

    def _client(self) -> Client:
        return self._open(bytes.fromhex(self.plan["public"]), bytes.fromhex(self.plan["proof"]))

    def blinded(self, shard: int | None = None) -> list[BlindedShard]:
        """Return what was blinded, of one shard or of all."""
        return [each for each in self._all_blinded if shard in (None, each.sent.shard)]

    @cached_property
    def _all_blinded(self) -> list[BlindedShard]:
        return [BlindedShard(RowFile(**each["sent"]), each["state"]) for each in self.plan["blinded"]]

    def _blind_once(
        self, engine: Engine, ids: DividedIds, key_id: str, blind: Callable[[], list[BlindedShard]]
    ) -> list[BlindedShard]:
        """Blind the new ids, or take what an earlier attempt has blinded if key and ids are the same.

        The signer may have answered that, and has counted it.
        """
        inputs = {"key_id": key_id, "pad_rows": self.settings.pad_rows, "new": [ids.found.n_new, ids.found.digest]}
        blinded = self._blinded_before(inputs)
        self.sweep([shard.state for shard in blinded or ()])
        if blinded is None:
            with self.watched(engine, "blinding ids", ids.found.n_new):
                blinded = blind()
            write_json(f"{self.state}/blinded.json", {"inputs": inputs, "shards": plain(blinded)})
        return blinded

    def _blinded_before(self, inputs: dict[str, Any]) -> list[BlindedShard] | None:
        try:
            before = read_json(f"{self.state}/blinded.json")
        except DataMissing:
            return None
        if before["inputs"] != inputs:
            return None
        return [BlindedShard(RowFile(**each["sent"]), each["state"]) for each in before["shards"]]

    def _accepted(self, message: dict[str, Any], held: dict[str, list[str]]) -> dict[str, Any]:
        """Check what the signer says of its tags, and on what the differences build."""
        plan: dict[str, Any] = {}
        for kind in SETS:
            plan[f"{kind}_base"] = base = message.get(f"{kind}_base")
            if base is not None and base not in held[kind]:
                raise ProtocolViolated(f"`{kind}_base` is a set that was not offered")
        for kind in ("added", "gone"):
            plan[kind] = announce(announced(message.get(kind), self.settings.shards))
        plan["now"] = str(message.get("now"))
        return plan

    def _tags(self, kind: str) -> list[RowFile]:
        return self._all_tags[kind]

    @cached_property
    def _all_tags(self) -> dict[str, list[RowFile]]:
        kinds = {"tags", *messages.CHANGED_TAGS} & set(self.plan)
        return {kind: announced(self.plan[kind], self.settings.shards) for kind in kinds}

    def _answered(self) -> list[tuple[BlindedShard, RowFile]]:
        return [(each, file) for each in self.blinded() for file in self.answers_of(each.sent.sha256)]

    def _finish_tags(self, engine: Engine, client: Client, answered: Iterable[tuple[BlindedShard, RowFile]]) -> None:
        """Put the answered ids into the tag table, once."""
        if self.plan.get("finished") or not self.blinded():
            for _ in answered:
                pass
            return
        table = self.table(client.key_id)
        new = stages.finalize(engine, client, answered, self.settings.shards)
        before = table.generation(self.plan["generation"])
        generation = self.extend_table(engine, table, before, new)
        self.save_plan({**self.plan, "generation": generation.name, "finished": True})

    def _signer_tags(self, engine: Engine) -> list[RowFile]:
        """Return the signer's tags as they are now: as they crossed before, or from what has changed."""
        plan, crossed = self.plan, self.crossed(self.plan["key_id"], "tags")
        crossed.hold(self.reader)
        if plan["now"] in crossed.digests():
            return crossed.get(plan["now"])
        arrived = {}
        for kind, message in messages.CHANGED_TAGS.items():
            files = [message.numbered(file.shard).arrived(file, self.state) for file in self._tags(kind)]
            # Without a set to build on, what has arrived is the set, which an earlier try may have moved.
            arrived[kind] = files if plan["tags_base"] else crossed.found(files, self.folder_of("tags"))
        base = self.base("tags", plan["key_id"], plan)
        tags = tag_sets.renewed(engine, base, **arrived, n_shards=self.settings.shards, folder=self.work)
        if set_digest(tags) != plan["now"]:
            raise ProtocolViolated("the signer's tags are not those that it announced")
        return tags

    def _tell(self, link: Link, engine: Engine, common: list[RowFile]) -> None:
        """Let the signer know which tags are common, by what has changed since the last time."""
        base = self.base("common", self.plan["key_id"], self.plan)
        added, gone = tag_sets.difference(engine, base, common, self.settings.shards, self.work)
        message = {"n": total(common), "added": announce(added), "gone": announce(gone), "now": set_digest(common)}
        messages.COMMON.send(link, message)
        self.check_size(link, total(common))
        for kind, files in (("added", added), ("gone", gone)):
            for file in files:
                messages.CHANGED_COMMON[kind].numbered(file.shard).send(link, file)


class _Arriving:
    """Blinded ids with their answers, shard by shard as these are received."""

    def __init__(self, half: ClientHalf, link: Link) -> None:
        self._half, self._link = half, link

    def __len__(self) -> int:
        return len(self._half.blinded())

    def __iter__(self) -> Iterator[tuple[BlindedShard, RowFile]]:
        for shard in range(self._half.settings.shards):
            self._half.answer(self._link, shard)
            for each in self._half.blinded(shard):
                for file in self._half.answers_of(each.sent.sha256):
                    yield each, file


def charged_of(accepted: Mapping[str, Any], asked: Sequence[RowFile]) -> int:
    """Return what the signer says that it has charged this run; it stands in the receipts of both.

    Raises
    ------
    ProtocolViolated
        It is less than what this attempt alone asks.
    """
    charged: int = accepted["charged"]
    if charged < total(asked):
        raise ProtocolViolated(f"{total(asked)} ids are asked and the signer has counted {charged}")
    return charged


def plain(blinded: list[BlindedShard]) -> list[dict[str, Any]]:
    """Return blinded shards as a plan keeps them."""
    return [{"sent": vars(shard.sent), "state": shard.state} for shard in blinded]
