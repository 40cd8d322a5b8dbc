"""The follower's half: looks for the leader's rows among its own, and says which it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.data.tables import ID
from fedtasks.errors import JoinDiffers, ProtocolViolated
from fedtasks.join import messages
from fedtasks.join.half import NEVER, TOKEN_BYTES, Half, checked_time
from fedtasks.join.log import MOST_OF_ROUND
from fedtasks.join.matching import ById, ByRule, Clocks, Matching
from fedtasks.join.rows import Integers, Mask, Picked
from fedtasks.join.settings import Ids, Match
from fedtasks.join.state import SECRET_BYTES
from fedtasks.join.theirs import Theirs, from_words
from fedtasks.join.units import UNIT

_TOKEN = re.compile(f"[0-9a-f]{{{2 * TOKEN_BYTES}}}")
_MOST_ROWS = MOST_OF_ROUND + UNIT
_NOWHERE = -1
_IDS = pa.schema([(ID, pa.string())])
_MOST_ID_BYTES = 64 << 20


class Follower(Half):
    """Answers which of the leader's rows it has."""

    _matching: Matching
    _offset_ms = 0
    _next = 0

    def _agree_on_secret(self) -> bytes:
        told = messages.SECRET.receive(self.link)
        if len(told) != SECRET_BYTES:
            raise ProtocolViolated(f"the secret of the stream has {len(told)} bytes, and not {SECRET_BYTES}")
        if self._state.secret(told) != told:
            text = "the leader's secret of this stream is another one than before, so no id would be found again"
            raise JoinDiffers(text, stream=self.settings.stream)
        return told

    def _resume(self) -> None:
        make = ById if self.settings.match is Match.ID else ByRule
        self._matching = make(self.log, self.settings, self.folder)
        while (offer := messages.OFFER.receive(self.link))["rows"]:
            self._matching.enter(self._offered(offer))

    def _run(self) -> None:
        while True:
            offer = messages.OFFER.receive(self.link)
            if offer["seal"]:
                if not _TOKEN.fullmatch(offer["seal"]):
                    raise ProtocolViolated("what the leader calls a commit is no token")
                self._token = offer["seal"]
                self._seal(is_final=offer["final"])
            elif not offer["last"]:
                self._answer(offer)
            if offer["last"]:
                return

    def _answer(self, offer: Mapping[str, Any]) -> None:
        """Read as far as the leader has, and answer which of its rows belong to which of this side's."""
        self._peer_newest_ms = max(self._peer_newest_ms, checked_time(offer["newest_ms"]))
        offered = self._offered(offer)
        found = self.log.read_round(self._limit_ms(offer["idle"] and not self.settings.follow_s))
        is_idle = not len(found) and self.log.is_idle
        if offer["final"]:
            clocks = Clocks(NEVER, NEVER, True)
        else:
            clocks = Clocks(self.log.newest_ms, self._peer_newest_ms, is_idle and offer["idle"])
        theirs, numbers = self._matching.pairs(offered, found, clocks)
        is_correction = self._take(theirs, numbers)
        self._matching.expire(clocks)
        said = {
            "rows": len(theirs),
            "newest_ms": self.log.newest_ms,
            "decided_ms": self._matching.decided_ms,
            "idle": is_idle,
            "bytes": self._pairs.n_bytes,
            "offset_ms": self._offset_ms,
        }
        messages.ANSWER.send(self.link, said)
        if len(theirs):
            messages.MATCHES.send(self.link, theirs.numbers << 1 | is_correction)
        self._drop_unmatched()
        self._report()

    def _offered(self, offer: Mapping[str, Any]) -> Theirs:
        """Receive the leader's rows of a round.

        Raises
        ------
        ProtocolViolated
            They are too many, or do not ascend.
        """
        n_rows, first = offer["rows"], offer["first"]
        if not 0 <= n_rows <= _MOST_ROWS or not 0 <= first < 1 << 60:
            raise ProtocolViolated(f"a round has {n_rows} rows from {first} on")
        is_clear = self.settings.ids is Ids.CLEAR
        n_words = 1 + (0 if is_clear else 2) + self.log.n_key_words
        if not n_rows:
            return from_words(np.empty((0, n_words + 2 * is_clear), dtype=np.uint64), first)
        words = messages.KEYS.receive(self.link, n_rows, n_words)
        tags = None
        if is_clear:
            ids = messages.IDS.receive(self.link, _IDS, _MOST_ID_BYTES).column(0)
            if len(ids) != n_rows or ids.null_count:
                raise ProtocolViolated(f"{len(ids)} ids came for {n_rows} rows")
            tags = self.log.tags_of(ids)
        theirs = from_words(words, first, tags)
        if theirs.numbers[0] < self._next or (theirs.numbers[1:] <= theirs.numbers[:-1]).any():
            raise ProtocolViolated("the leader's rows do not ascend by their numbers")
        self._next = int(theirs.numbers[-1]) + 1
        return theirs

    def _take(self, theirs: Theirs, numbers: Integers) -> Mask:
        """Take this side's rows that belong to rows of the leader; returns where either was late.

        Raises
        ------
        ProtocolViolated
            The leader offers a row a second time.
        """
        is_correction: Mask = theirs.late.copy()
        if not len(theirs):
            return is_correction
        try:
            parts = self.log.open.take(numbers) if self.settings.is_once else self.log.open.use(numbers)
        except ValueError:
            raise ProtocolViolated("the leader offers rows of one id and time more than once") from None
        behind = np.empty(len(theirs), dtype=np.int64)
        for picked, where in parts:
            some, times = is_correction[where] | picked.late, theirs.times[where]
            is_correction[where], behind[where] = some, picked.times - times
            self._tally.add("joined", picked.times[~some])
            self._tally.add("corrected", picked.times[some])
            self._pairs.add(picked, some, of_leader=(theirs.hi[where], theirs.lo[where], times))
        self._offset_ms = int(np.median(behind))
        return is_correction

    def _drop_unmatched(self) -> None:
        """Let rows of the leader to which none of this side belongs go, or keep them as rows without features."""
        waiting = self._matching.theirs_open
        for picked in waiting.expire(self._matching.decided_ms, waiting.n_rows):
            if self.settings.keep_unmatched:
                rows, schema = picked.batch.bare.take(picked.which), self.log.schema
                if self.settings.ids is Ids.CLEAR:
                    schema = schema.append(_IDS.field(0))
                payload = pa.RecordBatch.from_arrays([pa.nulls(len(rows), each.type) for each in schema], schema=schema)
                alone = replace(rows, payload=payload, places=np.full(len(rows), _NOWHERE))
                self._pairs.add(Picked(alone, np.arange(len(rows))), rows.late, matched=False)

    def _figures(self) -> Mapping[str, float]:
        memory = (self.log.memory_bytes + self._matching.memory_bytes) / (1 << 20)
        # What it tells the leader is how much later its own times are.
        return {"clock_offset_ms": -float(self._offset_ms), "memory_mb": memory}
