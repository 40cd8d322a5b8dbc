"""Joins by rules, of samples and with late labels, both halves over links in memory, against a search of whole logs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.config import Dataset, EventTime, FeatureType, LabelKind, TimeUnit
from fedtasks.data.blocks import LABEL, TAG, WEIGHT
from fedtasks.data.events import EVENT_TIME
from fedtasks.errors import ConfigDiffers, ConfigError
from fedtasks.join.half import run
from fedtasks.join.late import label_state
from fedtasks.join.pairs import MATCHED
from fedtasks.join.settings import JoinSettings, Match
from fedtasks.join.state import Commit, ShardState, stream_uri
from fedtasks.names import FOLLOWER, LEADER
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.memory import MemoryJoins
from tests.support.halves import ROLES, Context, End, run_both

pytestmark = pytest.mark.timeout(300)

START_MS = 1_790_000_000_000
PLACES = {LEADER: "conversion", FOLLOWER: "click"}
PEERS = {LEADER: FOLLOWER, FOLLOWER: LEADER}
NOBODY, NOTHING = -1, -1


@dataclass(frozen=True)
class Event:
    """A row of a log: its id is its place; who, by which request (None: unknown), when, and the leader's label."""

    place: int
    user: int
    request: int | None
    time: int
    label: int = 0


@dataclass
class Case:
    """Two parties in memory whose logs grow."""

    root: Path
    declared: dict[str, dict[str, Any]] = field(default_factory=lambda: {role: {} for role in ROLES})
    late: Dataset | None = None
    attempt: int = 0
    n_files: int = 0

    def __post_init__(self) -> None:
        self.joins = {role: MemoryJoins() for role in ROLES}
        for name in (*ROLES, "labels"):
            (self.root / f"{name}-log").mkdir()

    def dataset(self, role: str) -> Dataset:
        fields: dict[str, Any] = {
            "name": "people",
            "uri": f"file://{self.root}/{role}-log",
            "id": "id",
            "features": {PLACES[role]: FeatureType.NUMERIC},
            "label": "y" if role == LEADER else None,
            "label_positive": "1" if role == LEADER else None,
            "event_time": EventTime("at", TimeUnit.MILLISECONDS),
            "settle_s": 0.0,
            "late_labels": self.late.name if self.late and role == LEADER else "",
        }
        return Dataset(**(fields | self.declared[role]))

    def append(self, role: str, events: Sequence[Event]) -> None:
        if not events:
            return
        columns = {
            "id": [f"{PLACES[role]}-{each.place}" for each in events],
            PLACES[role]: [float(each.place) for each in events],
            "user": [f"user-{each.user}" for each in events],
            "request": [None if each.request is None else f"request-{each.request}" for each in events],
            "at": [START_MS + each.time for each in events],
            "y": [str(each.label) for each in events],
        }
        self.write(f"{role}-log", pa.table(columns | {"request": pa.array(columns["request"], pa.string())}))

    def append_labels(self, labels: Sequence[tuple[int, int, int]]) -> None:
        """Let labels become known: of which conversion, when, and what."""
        if labels:
            ids = [f"{PLACES[LEADER]}-{place}" for place, _, _ in labels]
            times, values = [START_MS + time for _, time, _ in labels], [str(value) for _, _, value in labels]
            self.write("labels-log", pa.table({"id": ids, "known": times, "y": values}))

    def write(self, folder: str, table: pa.Table) -> None:
        self.n_files += 1
        pq.write_table(table, self.root / folder / f"{self.n_files:05d}.parquet")

    def run(self, settings: JoinSettings, fail: tuple[str, int] | None = None) -> list[tuple[End, End]]:
        ends = []
        for shard in range(settings.shards):
            self.attempt += 1
            contexts = []
            for role in ROLES:
                context = Context(
                    self.root, role, "join", settings=settings, attempt=self.attempt, joins=self.joins[role]
                )
                datasets = (self.dataset(role), *([self.late] if self.late else []))
                context.party = replace(context.party, datasets=datasets)
                if settings.shards > 1:
                    context.config = replace(context.config, stage="shard", shard=shard)
                contexts.append(context)
            ends.append(run_both(run, contexts[0], contexts[1], fail=fail))
        return ends

    def run_to_the_end(self, settings: JoinSettings) -> None:
        for ends in self.run(settings):
            for end in ends:
                assert isinstance(end, Outcome), end
            assert ends[0] == ends[1]

    def rows(self, settings: JoinSettings, role: str) -> list[dict[str, Any]]:
        """Return what a party has committed, at the leader with the newest labels."""
        found: list[dict[str, Any]] = []
        for shard in range(settings.shards):
            state, last = self.shard(settings, role, shard)
            known = label_state(state)
            for commit in state.commits(last):
                for block in commit.blocks:
                    name = known.newest(commit, block)
                    found += pq.read_table(state.path(commit, name).removeprefix("file://")).to_pylist()
        return found

    def shard(self, settings: JoinSettings, role: str, shard: int) -> tuple[ShardState, Commit]:
        state = ShardState(stream_uri(f"file://{self.root}/{role}", settings.stream, PEERS[role]), shard)
        committed = self.joins[role].get(settings.stream, shard)
        return state, state.committed(committed.number, committed.digest) if committed else Commit()

    def pairs(self, settings: JoinSettings) -> list[tuple[int, int]]:
        """Return the places of rows of both sides that were joined, block after block."""
        own, other = (self.rows(settings, role) for role in ROLES)
        assert [row[TAG] for row in own] == [row[TAG] for row in other]
        places = [(int(one[PLACES[LEADER]]), two[PLACES[FOLLOWER]]) for one, two in zip(own, other, strict=True)]
        return [(one, NOTHING if two is None else int(two)) for one, two in places]


def kept(log: Sequence[Event], horizon: int) -> list[Event]:
    """Return the rows that are not too late."""
    found, newest = [], -(10**9)
    for event in log:
        if event.time + horizon >= newest:
            found.append(event)
        newest = max(newest, event.time)
    return found


def expected(own: Sequence[Event], other: Sequence[Event], join: JoinSettings, n_levels: int) -> set[tuple[int, int]]:
    """Let each conversion choose in turn, looking at all clicks; event times are of one row each."""
    horizon = int(join.horizon_s * 1000)
    clicks, used, pairs = sorted(kept(other, horizon), key=lambda event: event.time), set(), set()
    for event in sorted(kept(own, horizon), key=lambda event: event.time):
        chosen: list[Event] = []
        for level in range(2 - n_levels, 2):
            found = [
                click
                for click in clicks
                if 0 <= event.time - click.time <= join.delay_s * 1000
                and click.user == event.user
                and (level == 1 or (event.request is not None and click.request == event.request))
                and not (join.one_to_one and click in used)
            ]
            if found:
                chosen = {Match.LAST: found[-1:], Match.FIRST: found[:1], Match.ALL: found}[join.match]
                break
        used |= set(chosen)
        pairs |= {(event.place, click.place) for click in chosen}
        if not chosen and join.keep_unmatched:
            pairs.add((event.place, NOTHING))
    return pairs


def keys(n_levels: int) -> dict[str, Any]:
    return {"event_keys": ("user, request", "user")[2 - n_levels :], "shard_by": "user"}


@pytest.fixture(scope="module", autouse=True)
def small_rounds() -> Iterator[None]:
    """Let few rows be many: rounds, commits and what is decided together of a handful, and memory of some bytes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("log", "leader"):
            patch.setattr(f"fedtasks.join.{module}.ROUND_ROWS", 8)
        patch.setattr("fedtasks.join.half.RAW_ROWS_OF_COMMIT", 20)
        patch.setattr("fedtasks.join.matching.DECIDED_TOGETHER", 3)
        patch.setattr("fedtasks.join.units.UNIT", 4)
        patch.setattr("fedtasks.join.half.SLACK_S", 0.01)
        patch.setattr("fedtasks.join.log._MEGABYTE", 64)
        yield


@st.composite
def joins(draw: st.DrawFn) -> JoinSettings:
    return JoinSettings(
        shards=draw(st.sampled_from([1, 1, 2])),
        match=draw(st.sampled_from([Match.LAST, Match.FIRST, Match.ALL])),
        delay_s=draw(st.sampled_from([0.0, 0.01, 0.05])),
        one_to_one=draw(st.booleans()),
        lateness_s=draw(st.sampled_from([0.0, 0.01, 0.04])),
        keep_unmatched=draw(st.booleans()),
        block_rows=draw(st.sampled_from([1, 4, 1000])),
        memory_mb=draw(st.sampled_from([1, 512])),
    )


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """Two logs whose events all have times of their own."""
    times = draw(st.lists(st.integers(0, 120), unique=True, max_size=40))
    sides: tuple[list[Event], list[Event]] = ([], [])
    for time in times:
        side = sides[draw(st.integers(0, 1))]
        side.append(Event(len(side), draw(st.integers(0, 2)), draw(st.none() | st.integers(0, 2)), time))
    return sides


CUTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=3)
BREAKS = st.lists(st.tuples(st.sampled_from(ROLES), st.integers(0, 14)), max_size=2)


@given(logs(), joins(), st.sampled_from([1, 2]), CUTS, BREAKS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_join_by_a_rule_of_growing_logs_over_links_that_break_equals_attribution_of_whole_logs(
    both: tuple[list[Event], list[Event]],
    join: JoinSettings,
    n_levels: int,
    cuts: list[tuple[float, float]],
    breaks: list[tuple[str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), {role: keys(n_levels) for role in ROLES})
        steps = [sorted([0, *(round(cut[side] * len(log)) for cut in cuts), len(log)]) for side, log in enumerate(both)]
        for number in range(1, len(cuts) + 2):
            for role, log, step in zip(ROLES, both, steps, strict=True):
                case.append(role, log[step[number - 1] : step[number]])
            now = replace(join, final=number == len(cuts) + 1)
            for each in breaks:
                case.run(now, fail=each)
            case.run_to_the_end(now)
        pairs = case.pairs(now)
        assert len(set(pairs)) == len(pairs)
        assert set(pairs) == expected(*both, join, n_levels)
        times = {event.place: START_MS + event.time for event in both[0]}
        for row in case.rows(now, LEADER):
            assert row[EVENT_TIME] == times[int(row[PLACES[LEADER]])]
            assert row.get(MATCHED, True) == ((int(row[PLACES[LEADER]]), NOTHING) not in pairs)


RULE = JoinSettings(match=Match.LAST, delay_s=0.05, lateness_s=0.01, final=True)
BOTH = (
    [Event(place, place % 3, place % 4 or None, 7 * place + 5, place % 2) for place in range(30)],
    [Event(place, place % 3, place % 4 or None, 5 * place) for place in range(40)],
)


def started(folder: Path, declared: dict[str, dict[str, Any]] | None = None) -> Case:
    case = Case(folder, declared or {role: keys(2) for role in ROLES})
    for role, log in zip(ROLES, BOTH, strict=True):
        case.append(role, log)
    return case


@pytest.mark.parametrize("victim", ROLES)
@pytest.mark.parametrize("match", [Match.LAST, Match.ALL])
def test_join_by_a_rule_whose_link_breaks_at_each_message_in_turn_gives_every_pair_once(
    tmp_path: Path, victim: str, match: Match
) -> None:
    case, join, n_sent = started(tmp_path), replace(RULE, match=match, keep_unmatched=True, block_rows=4), 0
    while not isinstance(case.run(join, fail=(victim, n_sent))[0][0], Outcome):
        n_sent += 1
        assert n_sent < 500
    case.run_to_the_end(join)
    pairs = case.pairs(join)
    assert n_sent > 4
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == expected(*BOTH, join, 2)


def test_join_of_a_share_of_negatives_is_that_of_all_without_the_others_and_weighs_for_them(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    whole, some = started(tmp_path / "all"), started(tmp_path / "some")
    join = replace(RULE, negatives=0.5, seed=3)
    whole.run_to_the_end(RULE)
    some.run_to_the_end(join)
    of_all, rows = whole.rows(RULE, LEADER), some.rows(join, LEADER)
    labels = {row[PLACES[LEADER]]: row[LABEL] for row in of_all}
    found = {row[PLACES[LEADER]]: row[LABEL] for row in rows}
    assert found.items() <= labels.items()
    assert {place for place, label in found.items() if label == 1} == {p for p, label in labels.items() if label == 1}
    n_negatives = list(labels.values()).count(0)
    assert 0 < list(found.values()).count(0) < n_negatives
    assert {(row[LABEL], row[WEIGHT]) for row in rows} == {(0, 2.0), (1, 1.0)}


def test_join_of_a_share_of_negatives_of_labels_that_are_not_binary_is_refused(tmp_path: Path) -> None:
    number = {"label_kind": LabelKind.NUMBER, "label_positive": None}
    case = started(tmp_path, {LEADER: keys(2) | number, FOLLOWER: keys(2)})
    ends = case.run(replace(RULE, negatives=0.5))[0]
    assert isinstance(ends[0], ConfigError)
    assert ends[0].fields["field"] == "negatives"


@pytest.mark.parametrize("theirs", [("user",), ("user, request", "user, @minute")])
def test_join_of_sides_whose_keys_mean_something_else_is_refused(tmp_path: Path, theirs: tuple[str, ...]) -> None:
    case = started(tmp_path, {LEADER: keys(2), FOLLOWER: keys(2) | {"event_keys": theirs}})
    for end in case.run(RULE)[0]:
        assert isinstance(end, ConfigDiffers), end
        assert end.fields["field"] == "event_keys"


def test_join_in_shards_of_keys_that_do_not_decide_them_is_refused(tmp_path: Path) -> None:
    case = started(tmp_path, {role: {"event_keys": ("user, request", "user")} for role in ROLES})
    for ends in case.run(replace(RULE, shards=2)):
        assert any(isinstance(end, ConfigError) and end.fields["field"] == "shard_by" for end in ends)


# -------------------------------------------------------------------------------------------------------- late labels
def with_late_labels(case: Case, **declared: Any) -> Case:
    fields: dict[str, Any] = {
        "name": "outcomes",
        "uri": f"file://{case.root}/labels-log",
        "id": "id",
        "features": {},
        "label": "y",
        "label_positive": "1",
        "event_time": EventTime("known", TimeUnit.MILLISECONDS),
        "settle_s": 0.0,
    }
    case.late = Dataset(**(fields | declared))
    return case


def labels_of(case: Case, join: JoinSettings) -> dict[int, int]:
    return {int(row[PLACES[LEADER]]): row[LABEL] for row in case.rows(join, LEADER)}


def test_late_labels_replace_those_of_joined_rows_and_nothing_else(tmp_path: Path) -> None:
    case = with_late_labels(Case(tmp_path))
    case.append(LEADER, BOTH[0])
    case.write("follower-log", pa.table(as_follower(BOTH[0])))
    join = JoinSettings(within_s=0.0, lateness_s=0.01, final=True, label_delay_s=10.0, block_rows=7)
    case.run_to_the_end(join)
    before = labels_of(case, join)
    blocks = case.rows(join, FOLLOWER)
    case.append_labels([(4, 900, 1), (9, 950, 0), (4, 20_000, 0), (9, 10, 1), (999, 950, 1)])
    case.run_to_the_end(join)
    assert labels_of(case, join) == before | {4: 1, 9: 0}
    assert case.rows(join, FOLLOWER) == blocks
    known = label_state(case.shard(join, LEADER, 0)[0])
    assert (known.n_found, known.n_unknown, known.n_waiting) == (2, 3, 0)


def as_follower(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Rows of the follower with the ids of the leader's."""
    return {
        "id": [f"{PLACES[LEADER]}-{each.place}" for each in events],
        PLACES[FOLLOWER]: [float(each.place) for each in events],
        "at": [START_MS + each.time for each in events],
    }


def test_late_label_of_a_row_with_several_of_the_follower_changes_all_of_its_rows(tmp_path: Path) -> None:
    case = with_late_labels(started(tmp_path))
    join = replace(RULE, match=Match.ALL, label_delay_s=10.0, block_rows=2)
    case.run_to_the_end(join)
    times = [row[PLACES[LEADER]] for row in case.rows(join, LEADER)]
    most = max(set(times), key=times.count)
    assert times.count(most) > 2
    case.append_labels([(int(most), 5000, 1 - int(most) % 2)])
    case.run_to_the_end(join)
    labels = [row[LABEL] for row in case.rows(join, LEADER) if row[PLACES[LEADER]] == most]
    assert labels == [1 - int(most) % 2] * times.count(most)


def test_late_labels_in_shards_by_user_are_found_where_their_rows_are(tmp_path: Path) -> None:
    case = with_late_labels(started(tmp_path), shard_by="user")
    join = replace(RULE, shards=2, label_delay_s=10.0)
    case.run_to_the_end(join)
    joined = labels_of(case, join)
    places = [place for place in joined if joined[place] == 0]
    columns = {
        "id": [f"{PLACES[LEADER]}-{place}" for place in places],
        "user": [f"user-{BOTH[0][place].user}" for place in places],
        "known": [START_MS + 5000] * len(places),
        "y": ["1"] * len(places),
    }
    case.write("labels-log", pa.table(columns))
    case.run_to_the_end(join)
    assert len(places) > 5
    assert set(labels_of(case, join).values()) == {1}
    states = [label_state(case.shard(join, LEADER, shard)[0]) for shard in range(2)]
    assert sum(state.n_read for state in states) == sum(state.n_found for state in states) == len(places)


def test_late_labels_that_do_not_tell_their_shards_are_refused(tmp_path: Path) -> None:
    case = with_late_labels(started(tmp_path))
    ends = case.run(replace(RULE, shards=2))[0]
    assert isinstance(ends[0], ConfigError)
    assert ends[0].fields["field"] == "shard_by"
