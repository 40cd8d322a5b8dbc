"""The leader's half: offers its rows round by round, and says where commits end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fedtasks.data.tables import ID, LABEL, WEIGHT
from fedtasks.errors import ProtocolViolated
from fedtasks.join import messages
from fedtasks.join.half import IDLE_S, TOKEN_BYTES, Half, checked_time
from fedtasks.join.log import ROUND_ROWS, Round
from fedtasks.join.rows import Integers, Mask, Rows, tags_of
from fedtasks.join.sampling import kept
from fedtasks.join.settings import Ids, Match
from fedtasks.join.theirs import to_words

_MOST_MATCHES = 1 << 26


class Leader(Half):
    """Offers rows; the follower answers which it has."""

    _unanswered: list[int]
    _is_peer_idle = False
    _peer_bytes = 0
    _offset_ms = 0

    def _agree_on_secret(self) -> bytes:
        secret = self._state.secret()
        messages.SECRET.send(self.link, secret)
        return secret

    def _resume(self) -> None:
        self._unanswered = []
        for numbers, rows in self.log.open.waiting():
            for start in range(0, len(rows), ROUND_ROWS):
                some = np.arange(start, min(start + ROUND_ROWS, len(rows)))
                part, first = rows.take(some), int(numbers[start])
                messages.OFFER.send(self.link, self._offer(len(part), first=first))
                self._send_rows(part, numbers[some] - first)
        messages.OFFER.send(self.link, self._offer(0))

    def _run(self) -> None:
        started = time.monotonic()
        while True:
            found = self.log.read_round(self._limit_ms(self._is_peer_idle and not self.settings.follow_s))
            self._send(found)
            if len(self._unanswered) > 1:
                self._take_answer()
            is_idle = not len(found) and self.log.is_idle
            if not self._is_to_be_sealed and not is_idle:
                continue
            self._take_answers()
            is_idle = is_idle and self._is_peer_idle
            if is_idle and time.monotonic() - started >= self.settings.follow_s:
                return self._end()
            if self._is_to_be_sealed or (is_idle and self._has_waited):
                self._tell(seal=True)
                self._seal()
            elif is_idle:
                time.sleep(IDLE_S)

    def _seal(self, *, is_final: bool = False) -> None:
        super()._seal(is_final=is_final)
        # What was known of the other side is forgotten, as an attempt that goes on from here knows nothing of it.
        self._is_peer_idle, self._peer_bytes = False, 0

    @property
    def _has_waited(self) -> bool:
        return self._pairs.n_rows > 0 and time.monotonic() - self._pairs.since_s >= self.settings.block_s

    def _end(self) -> None:
        is_final = self.settings.final
        if is_final:
            self._tell(final=True)
            self._unanswered.append(self.log.next_number)
            self._take_answer()
        is_new = bool(self._pairs.n_rows or self.log.n_read or is_final)
        self._tell(seal=is_new, last=True, final=is_final)
        if is_new:
            self._seal(is_final=is_final)

    def _sampled(self, rows: Rows) -> tuple[Mask, Rows]:
        """Leave out rows that take no part: by their time, or of those with label 0, for which others weigh more."""
        first_ms, end_ms = self.settings.range_ms
        mask = (rows.times >= first_ms) & (rows.times < end_ms)
        some = rows.take(mask)
        if self.settings.negatives < 1:
            drawn, some = self._drawn(some)
            mask[np.flatnonzero(mask)[~drawn]] = False
        return mask, some

    def _drawn(self, rows: Rows) -> tuple[Mask, Rows]:
        """Leave out those rows with label 0 that take no part, and weigh the others for them."""
        settings, payload = self.settings, rows.payload
        own = payload.column(WEIGHT).to_numpy() if WEIGHT in payload.schema.names else None
        labels = payload.column(LABEL).to_numpy()
        mask, weights = kept(tags_of(rows.hi, rows.lo), labels, settings.negatives, settings.seed, own)
        some = rows.take(mask)
        names = [name for name in some.payload.schema.names if name != WEIGHT]
        columns = [*some.payload.select(names).columns, pa.array(weights)]
        return mask, replace(some, payload=pa.RecordBatch.from_arrays(columns, [*names, WEIGHT]))

    # ---------------------------------------------------------------------------------------------------------- rounds
    def _offer(
        self, rows: int, *, first: int = 0, seal: bool = False, last: bool = False, final: bool = False
    ) -> Mapping[str, object]:
        idle = rows == 0 and self.log.is_idle
        said = {"rows": rows, "first": first, "newest_ms": self.log.newest_ms, "idle": idle}
        return {**said, "seal": self._token if seal else "", "last": last, "final": final}

    def _tell(self, *, seal: bool = False, last: bool = False, final: bool = False) -> None:
        if seal:
            self._token = secrets.token_hex(TOKEN_BYTES)
        messages.OFFER.send(self.link, self._offer(0, seal=seal, last=last, final=final))

    def _send(self, found: Round) -> None:
        first = int(found.numbers[0]) if len(found) else self.log.next_number
        messages.OFFER.send(self.link, self._offer(len(found), first=first))
        self._unanswered.append(first)
        if found.rows is not None and len(found):
            self._send_rows(found.rows, found.numbers - first)

    def _send_rows(self, rows: Rows, places: Integers) -> None:
        is_clear = self.settings.ids is Ids.CLEAR
        messages.KEYS.send(self.link, to_words(rows, places, with_tags=not is_clear))
        if is_clear:
            messages.IDS.send(self.link, rows.payload.select([ID]))

    def _take_answers(self) -> None:
        while self._unanswered:
            self._take_answer()

    def _take_answer(self) -> None:
        """Take the follower's answer to the oldest round.

        Raises
        ------
        ProtocolViolated
            It names rows that were not offered, or that it has named before.
        """
        self._unanswered.pop(0)
        answer = messages.ANSWER.receive(self.link)
        if not 0 <= answer["rows"] <= _MOST_MATCHES:
            raise ProtocolViolated(f"an answer names {answer['rows']} rows")
        if answer["rows"]:
            self._take(messages.MATCHES.receive(self.link, answer["rows"]))
        self._is_peer_idle, self._offset_ms = answer["idle"], answer["offset_ms"]
        self._peer_bytes = answer["bytes"]
        self._peer_newest_ms = max(self._peer_newest_ms, checked_time(answer["newest_ms"]))
        first = self._unanswered[0] if self._unanswered else self.log.next_number
        for picked in self.log.expire(checked_time(answer["decided_ms"]), first):
            if self.settings.keep_unmatched:
                self._pairs.add(picked, picked.late, matched=False)

    def _take(self, matches: Integers) -> None:
        numbers, late = matches >> 1, (matches & 1).astype(bool)
        first = self._unanswered[0] if self._unanswered else self.log.next_number
        if numbers.min() < 0 or numbers.max() >= first:
            raise ProtocolViolated("an answer names rows that were not offered")
        repeats = self.settings.match is Match.ALL
        once, times = np.unique(numbers, return_counts=True) if repeats else (numbers, None)
        try:
            parts = self.log.open.take(once)
        except ValueError:
            raise ProtocolViolated("an answer names rows that no longer wait, or one twice") from None
        for found, where in parts:
            picked = found if times is None else found.take(np.repeat(np.arange(len(found)), times[where]))
            is_correction = picked.late | late[where] if times is None else picked.late
            self._tally.add("joined", picked.times[~is_correction])
            self._tally.add("corrected", picked.times[is_correction])
            self._pairs.add(picked, is_correction)

    @property
    def _is_to_be_sealed(self) -> bool:
        return super()._is_to_be_sealed or self._peer_bytes >= self.settings.block_bytes

    def _figures(self) -> Mapping[str, float]:
        return {"clock_offset_ms": float(self._offset_ms)}
