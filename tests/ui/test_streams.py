"""The run page of a run that joins streams: what became of rows, and charts over event time."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from fedtasks.store import JoinRow, JoinWindowRow, Store
from tests.support.browser import Visitor
from tests.support.ui_seed import JOIN_DAG, MINUTE_MS, run_id_of, seed_joins

pytestmark = pytest.mark.timeout(600)

TITLES = ("Join rate", "Lag", "Rows", "Open rows")


@pytest.fixture(scope="module")
def joined(seeded: Store) -> Store:
    """The seeded store, with a run that joins and one that has just begun to."""
    seed_joins(seeded)
    return seeded


def join_page(visitor: Visitor, dag_run_id: str) -> Page:
    return visitor.open("federated", dag_id=JOIN_DAG, run_id=dag_run_id)


def test_join_charts_say_their_axes_units_scale_and_latest_value(joined: Store, visitor: Visitor) -> None:
    page = join_page(visitor, "joining")
    across = "Across: event time (beginning of the window). Up: "
    for name, told in {
        "Join rate": f"{across}rows with a counterpart, share (0 – 1), scale 0 – 1.",
        "Lag": f"{across}seconds from event to block, mean, scale 0 – ",
        "Rows": f"{across}rows in 1 min of event time, scale 0 – ",
        "Open rows": f"{across}MB, all shards, scale 0 – ",
    }.items():
        picture = page.get_by_role("figure", name=name, exact=True).get_by_role("img")
        expect(picture).to_have_attribute("aria-label", re.compile(re.escape(told)))
    rate = page.get_by_role("figure", name="Join rate", exact=True)
    expect(rate).to_contain_text(re.compile(r"join rate 0\.3\d+ at event time 20\d\d-\d\d-\d\d \d\d:\d\d:00"))


def test_join_totals_name_what_was_left_out_and_the_clock_offset(joined: Store, visitor: Visitor) -> None:
    page = join_page(visitor, "joining")
    expect(page.get_by_role("heading", name="Stream clicks with shop")).to_be_visible()
    for text in ("Too late, left out", "Duplicates, left out", "720", "event times of shop are 184,000 ms earlier"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    visitor.require_accessible()


def test_join_rate_of_open_windows_is_not_drawn_and_the_table_has_all(
    joined: Store, visitor: Visitor, tmp_path: Path
) -> None:
    rate = join_page(visitor, "joining").get_by_role("figure", name="Join rate", exact=True)
    with visitor.page.expect_download() as download:
        rate.get_by_role("button", name="Download Join rate as CSV").click()
    download.value.save_as(tmp_path / "rate.csv")
    head, *rows = csv.reader(io.StringIO((tmp_path / "rate.csv").read_text()))
    assert head == ["event time", "join rate"]
    assert len(rows) == 90
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:00 .+", at) for at, _ in rows)
    assert [bool(value) for _, value in rows] == [True] * 80 + [False] * 10
    assert float(rows[0][1]) == pytest.approx(443 / 503)
    assert float(rows[70][1]) == pytest.approx(183 / 503)


def test_join_that_has_committed_nothing_says_when_the_charts_begin(joined: Store, visitor: Visitor) -> None:
    page = join_page(visitor, "begun")
    expect(page.get_by_text("the charts begin with the first block that both sides commit")).to_be_visible()
    for name in TITLES:
        expect(page.get_by_role("figure", name=name, exact=True)).to_have_count(0)
    visitor.require_accessible()
    page.get_by_role("heading", name="Join", exact=True).scroll_into_view_if_needed()
    visitor.picture("join-empty")


def test_run_that_joins_nothing_has_no_section_of_joins(joined: Store, visitor: Visitor) -> None:
    run = joined.runs.get(run_id_of("done"))
    assert run is not None
    page = visitor.open("federated", dag_id=run.dag_id, run_id="done")
    expect(page.get_by_role("heading", name="Receipts")).to_be_visible()
    expect(page.get_by_role("heading", name="Join", exact=True)).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 480])
def test_join_charts_fit_wide_and_narrow_frames_in_both_themes(
    joined: Store, visitor: Visitor, width: int, scheme: Literal["light", "dark"]
) -> None:
    visitor.page.emulate_media(color_scheme=scheme)
    visitor.page.set_viewport_size({"width": width, "height": 800})
    page = join_page(visitor, "joining")
    for name in TITLES:
        expect(page.get_by_role("figure", name=name, exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visitor.require_accessible()
    page.get_by_role("heading", name="Join", exact=True).evaluate("heading => heading.scrollIntoView()")
    visitor.picture(f"join-{scheme}-{width}", whole=True)
    if (width, scheme) == (1280, "light"):
        visitor.picture("federated-join")


def test_join_chart_moves_and_keeps_its_zoom(joined: Store, visitor: Visitor) -> None:
    page = join_page(visitor, "joining")
    rows = page.get_by_role("figure", name="Rows", exact=True)
    area = rows.locator(".u-over")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    mouse = visitor.page.mouse
    mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 50)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    mouse.up()
    window = rows.locator(".window")
    expect(window).to_contain_text(re.compile(r"zoomed to event time 20\d\d"))
    zoomed = window.text_content()
    last = joined.joins.get("shop", "clicks", 0)
    assert last is not None
    span = joined.joins.span("shop", "clicks")
    assert span is not None
    row = JoinRow("shop", "clicks", 0, last.number + 1, "b" * 64, last.run_id, last.at_ms)
    more = JoinWindowRow("shop", "clicks", 0, span[1] + MINUTE_MS, last.run_id, joined=77_777)
    joined.joins.commit(row, [more])
    expect(rows).to_contain_text("joined 77,777")
    assert window.text_content() == zoomed
