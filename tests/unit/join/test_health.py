"""A join rate that halves, and its likely causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.data.id_shapes import Case, Form, Shape, ShapeTally
from fedtasks.errors import ProtocolViolated
from fedtasks.join import health_messages as messages
from fedtasks.join.health import (
    LEAST_BEFORE,
    LEAST_ROWS,
    MOST_BEFORE,
    SAMPLE_ROWS,
    Halving,
    Health,
    Sides,
    facts,
    halving,
    rate_of,
    remarks,
)
from fedtasks.join.settings import JoinSettings
from fedtasks.kinds import remark_text
from fedtasks.link.memory import memory_pair
from fedtasks.runtime.context import Outcome, TaskContext
from fedtasks.runtime.joins import JoinCommitted, JoinWindow
from fedtasks.runtime.memory import MemoryJoins
from tests.support.halves import ROLES, Context, run_both

MINUTE = 60_000
HEX = ((Shape(Form.HEX, 32, Case.LOWER), 99), (Shape(Form.OTHER), 1))
DIGITS = ((Shape(Form.DIGITS, 11), 100),)
FOUND = Halving(0, 0.3, 0.9)


def windows(rates: Sequence[float], rows: int = 1000) -> list[JoinWindow]:
    found = [round(rows * rate) for rate in rates]
    return [JoinWindow(n * MINUTE, joined=each, unmatched=rows - each) for n, each in enumerate(found)]


def halved(rates: Sequence[float], rows: int = 1000, decided: int | None = None) -> int | None:
    """Return the minute whose rate has halved."""
    until = (len(rates) if decided is None else decided) * MINUTE
    found = halving(windows(rates, rows), until, MINUTE)
    return None if found is None else found.start_ms // MINUTE


def test_rate_below_half_of_the_median_before_it_has_halved() -> None:
    assert halving(windows([0.9, 0.8, 0.9, 0.9, 0.1, 0.44]), 6 * MINUTE, MINUTE) == Halving(5 * MINUTE, 0.44, 0.9)
    assert halved([0.9, 0.8, 0.9, 0.9, 0.1, 0.46]) is None


def test_halving_is_the_oracle_of_medians_on_random_rates() -> None:
    random = np.random.default_rng(7)
    for _ in range(200):
        rates = np.round(random.uniform(0, 1, random.integers(0, 90)), 3)
        expected = None
        for place in range(LEAST_BEFORE, len(rates)):
            if rates[place] < np.median(rates[max(0, place - MOST_BEFORE) : place]) / 2:
                expected = place
        assert halved(rates.tolist()) == expected


def test_window_that_is_not_decided_or_has_few_rows_says_nothing() -> None:
    rates = [0.9] * 6 + [0.1]
    assert halved(rates) == 6
    assert halved(rates, decided=6) is None
    assert halved(rates, rows=LEAST_ROWS - 1) is None
    assert halved([0.9] * (LEAST_BEFORE - 1) + [0.1]) is None
    assert rate_of(JoinWindow(0, joined=40, corrected=40, unmatched=20)) == 0.8
    assert rate_of(JoinWindow(0)) is None


def test_order_of_windows_does_not_matter() -> None:
    assert halving(windows([0.9] * 6 + [0.1])[::-1], 7 * MINUTE, MINUTE) == Halving(6 * MINUTE, 0.1, 0.9)


def texts(sides: Sides, within_ms: int = 600_000) -> list[str]:
    return [remark_text(name, count, "shop") for name, count in remarks("clicks", FOUND, sides, within_ms).items()]


def test_remark_names_stream_rate_and_where_to_look() -> None:
    assert remarks("clicks", None, Sides("bank", "shop", HEX), 0) == {}
    (said,) = texts(Sides("bank", "shop"))
    assert said == (
        "stream `clicks`: in a window of event time only 30 % of the rows here have a counterpart at shop, less than "
        "half of what was usual before; `fedtasks joins show clicks` says from when"
    )


@pytest.mark.parametrize(
    ("offset_ms", "within_ms", "told"),
    [
        (None, 0, ""),
        (999.0, 0, ""),
        (-1_000.0, 0, "1,000 ms earlier than the one here"),
        (299_000.0, 600_000, ""),
        (310_000.4, 600_000, "310,000 ms later than the one here"),
    ],
)
def test_clock_offset_is_a_cause_where_it_takes_up_half_of_what_is_allowed(
    offset_ms: float | None, within_ms: int, told: str
) -> None:
    said = texts(Sides("bank", "shop", clock_offset_ms=offset_ms), within_ms)[1:]
    assert [told in each for each in said] == ([True] if told else [])


def test_ids_of_both_are_named_by_their_shapes_only_if_the_peer_may_say_so() -> None:
    (_, said) = texts(Sides("bank", "shop", HEX, DIGITS))
    assert "bank 32 hex digits, as of MD5, lower case 99 %, other 1 %; shop 11 digits 100 %" in said
    assert "only the ids of bank look hashed" in said
    (_, said) = texts(Sides("bank", "shop", HEX, None))
    assert said.endswith("bank 32 hex digits, as of MD5, lower case 99 %, other 1 %")
    assert len(texts(Sides("bank", "shop", (), DIGITS))) == 1


def test_remark_of_ids_never_holds_an_id() -> None:
    tally = ShapeTally()
    tally.add(pa.array([f"secret.{n}" for n in range(500)] + ["x{about}.y"] * 30))
    for name in remarks("clicks", FOUND, Sides("bank", "shop", tally.shares(), tally.shares()), 0):
        assert "secret" not in name
        assert "about" not in name
        assert remark_text(name, 1, "shop")


# ------------------------------------------------------------------------------------------------------ while it joins
IDS = {"leader": [f"a{n:031x}" for n in range(50)], "follower": [f"{n:011}" for n in range(50)]}


def half(root: Path, role: str, clause: str, rates: Sequence[float]) -> tuple[Context, Health]:
    """Return a half that has seen ids, and rates commit by commit."""
    context = Context(root, role, "join", settings={})
    context.config = replace(context.config, bounds={"outputs.id_shapes": clause} if clause else {})
    health = Health(context, JoinSettings("clicks", window_s=60, within_s=0))
    health.look_at(pa.array(IDS[role]))
    for window in windows(rates):  # the rows of a window are joined by one commit and decided by a later one
        health.add([replace(window, unmatched=0)], window.start_ms)
        health.add([JoinWindow(window.start_ms, unmatched=window.unmatched)], window.start_ms + MINUTE)
    return context, health


def exchanged(root: Path, clause: str, *rates: Sequence[float]) -> list[tuple[list[str], list[str]]]:
    """Let both halves ask each other twice; return what each has sent, and what it remarks in words."""
    halves = dict(
        zip(ROLES, (half(root, role, clause, each) for role, each in zip(ROLES, rates, strict=True)), strict=True)
    )

    def ask(context: TaskContext) -> Outcome:
        _, health = halves[context.party.name]
        with context.open_link(facts(context)) as link:
            for _ in range(2):
                health.report(None)
                health.exchange(link)
        health.report(None, is_last=True)
        return Outcome()

    contexts = [context for context, _ in halves.values()]
    assert run_both(ask, *contexts) == (Outcome(), Outcome())
    return [
        (
            [name for name, sent in context.sent.items() for _ in range(sent.messages)],
            [remark_text(name, count, context.config.peer) for name, count in context.metrics.items()],
        )
        for context in contexts
    ]


WELL, ILL = [0.9] * 9, [0.9] * 8 + [0.1]


def test_halves_that_both_see_a_halving_tell_each_other_their_shapes_once_where_the_ticket_allows(
    tmp_path: Path,
) -> None:
    for name, (sent, told) in zip(ROLES, exchanged(tmp_path, "classes", ILL, ILL), strict=True):
        assert sent == ["join halved", "join shapes"]
        assert "10 %" in told[0]
        assert "only the ids of leader look hashed" in told[1]
        assert f"{name} {'32 hex digits' if name == 'leader' else '11 digits'}" in told[1]


@pytest.mark.parametrize(
    ("clause", "rates", "sent"),
    [
        ("none", (ILL, ILL), []),
        ("", (ILL, ILL), []),
        ("classes", (ILL, WELL), ["join halved"] * 2),
        ("classes", (WELL, WELL), ["join halved"] * 2),
    ],
)
def test_no_shape_crosses_unless_the_ticket_allows_it_and_both_see_a_halving(
    tmp_path: Path, clause: str, rates: tuple[list[float], list[float]], sent: list[str]
) -> None:
    ends = exchanged(tmp_path, clause, *rates)
    for (found, told), rate, other in zip(ends, rates, reversed(ROLES), strict=True):
        assert found == sent
        assert len(told) == (2 if rate is ILL else 0)
        assert not any(f"; {other} " in each for each in told)


def test_peer_that_says_something_else_than_shapes_is_refused(tmp_path: Path) -> None:
    _, health = half(tmp_path, "leader", "classes", ILL)
    ours, theirs = memory_pair()
    messages.HALVED.send(theirs, {"halved": True})
    messages.SHAPES.send(theirs, {"columns": [[["digits", 11, "", 99]], []]})
    with pytest.raises(ProtocolViolated, match="not the shapes of 1 columns"):
        health.exchange(ours)


def test_memory_of_windows_and_ids_is_bounded(tmp_path: Path) -> None:
    context, health = half(tmp_path, "leader", "none", [0.9] * 1000 + [0.1])
    assert len(health._windows) <= 2 * MOST_BEFORE + 1
    for _ in range(5):
        health.look_at(pa.array(["x"] * (SAMPLE_ROWS // 2)))
    assert health._shapes.rows == SAMPLE_ROWS
    health.report(None)
    assert any("10 %" in remark_text(name, count, "shop") for name, count in context.metrics.items())


def test_what_earlier_runs_counted_is_usual_and_what_they_remarked_is_not_remarked_again(tmp_path: Path) -> None:
    joins = MemoryJoins()
    earlier = windows([0.9] * 8 + [0.1])
    joins.commit("clicks", 0, JoinCommitted(1, "a" * 64), earlier)
    joins.commit("clicks", 1, JoinCommitted(1, "a" * 64), windows([0.1] * 9))
    context = Context(tmp_path, "leader", "join", settings={}, joins=joins)
    health = Health(context, JoinSettings("clicks", window_s=60, within_s=0))
    (well, ill) = (replace(windows([rate])[0], start_ms=minute * MINUTE) for minute, rate in ((9, 0.9), (10, 0.2)))
    health.add([well], 10 * MINUTE)
    health.report(None)
    assert context.metrics == {}
    health.add([ill], 11 * MINUTE)
    health.report(None)
    (said,) = (remark_text(name, count, "shop") for name, count in context.metrics.items())
    assert "only 20 %" in said
