"""Every page in every state: text and roles first, then the picture."""

from __future__ import annotations

import csv
import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from fedtasks.laptop.demo_run import PIPELINE
from fedtasks.store import MetricRow, Store
from tests.support.browser import PATIENCE_MS, Visitor
from tests.support.ui_seed import BINS, EPOCHS, GROUPS, add_epoch, run_id_of, see_peer

pytestmark = pytest.mark.timeout(600)

HEADLINES = {
    "waiting": "Waiting for shop · align · attempt 2",
    "running": "Running with shop · train",
    "failed": "Failed at shop · align",
    "done": "Done with shop",
    "refused": "Refused by shop",
    "opening": "Waiting for shop",
}
TABS = ("overview", "tickets", "data", "models", "peers", "audit")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def run_page(visitor: Visitor, state: str) -> Page:
    return visitor.open("federated", dag_id=PIPELINE, run_id=state)


def in_first_screen(found: Locator) -> bool:
    box = found.bounding_box()
    return box is not None and box["y"] + box["height"] <= 760


# ---------------------------------------------------------------------------------------------------------------- runs
@pytest.mark.parametrize("state", HEADLINES)
def test_run_page_says_how_the_run_stands(peer_seen: Store, visitor: Visitor, state: str) -> None:
    page = run_page(visitor, state)
    status = page.get_by_role("status").first
    expect(status).to_have_text(HEADLINES[state])
    assert in_first_screen(status)
    visitor.require_accessible()
    visitor.picture(f"federated-{state}")


def test_run_page_without_a_run_names_the_next_act(seeded: Store, visitor: Visitor) -> None:
    page = run_page(visitor, "nobody-opened-it")
    expect(page.get_by_text("Look at the task open_run")).to_be_visible()
    visitor.require_accessible()
    visitor.picture("federated-empty")


def test_run_page_first_screen_tells_wait_disclosure_and_quality(peer_seen: Store, visitor: Visitor) -> None:
    page = run_page(visitor, "waiting")
    for text in ("Since:", "Gives up:", "Why:", "To act:"):
        assert in_first_screen(page.get_by_text(re.compile(f"^{text[:-1]}$")).first)
    page = run_page(visitor, "done")
    for text in ("AUC 0.9113 · K-S 0.6785", "champion: AUC 0.9021", "13.2 MB", "≈ 3,000"):
        found = page.get_by_text(text).first
        expect(found).to_be_visible()
        assert in_first_screen(found), text


def test_run_page_shows_both_lanes(peer_seen: Store, visitor: Visitor) -> None:
    lanes = run_page(visitor, "running").get_by_role("region", name="Tasks of both parties")
    for party in ("bank", "shop"):
        row = lanes.get_by_role("row").filter(has=lanes.page.get_by_role("rowheader", name=party))
        expect(row.get_by_role("cell")).to_have_text(
            ["Done", "Done", re.compile(r"Runningepoch 4 of 8"), "not begun", "not begun"]
        )


def test_run_page_lists_what_left_the_house_and_what_it_tells(peer_seen: Store, visitor: Visitor) -> None:
    ledger = run_page(visitor, "done").get_by_role("region", name="What left the house")
    gradients = ledger.get_by_role("row").filter(has_text="gradients")
    expect(gradients).to_contain_text("23,688")
    expect(gradients).to_contain_text(
        "shop learns for each train row and epoch a vector that tells of its label as much as max_label_leak allows"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 480])
def test_every_page_fits_wide_and_narrow_frames_in_both_themes(
    peer_seen: Store, visitor: Visitor, width: int, scheme: Literal["light", "dark"]
) -> None:
    visitor.page.emulate_media(color_scheme=scheme)
    visitor.page.set_viewport_size({"width": width, "height": 800})
    run = {"dag_id": PIPELINE, "run_id": "done"}
    places = [(f"federation#{tab}", {}) for tab in TABS]
    places += [("federated", run), ("compare", run), ("progress", {**run, "run_id": "running", "task_id": "train"})]
    for name, query in places:
        page = visitor.open(name, **query)
        expect(page.locator("html")).to_have_attribute("data-theme", scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        visitor.require_accessible()
        visitor.picture(f"{name.replace('#', '-')}-{scheme}-{width}", whole=True)


# ---------------------------------------------------------------------------------------------------------- in Airflow
def test_framed_page_takes_airflows_font_and_colours(peer_seen: Store, visitor: Visitor) -> None:
    for scheme in SCHEMES:
        visitor.page.emulate_media(color_scheme=scheme)
        frame = in_airflow(visitor)
        expect(frame.locator("html")).to_have_attribute("data-theme", scheme)
        look = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color, getComputedStyle(e).fontFamily]"
        assert frame.locator("body").evaluate(look) == visitor.page.locator("html").evaluate(look)
        visitor.picture(f"framed-{scheme}")


def test_times_are_in_the_zone_that_is_chosen_in_airflow(peer_seen: Store, visitor: Visitor) -> None:
    frame = in_airflow(visitor)
    shown = frame.locator("time").first
    for zone, short in (("Asia/Kolkata", "GMT+5:30"), ("UTC", "UTC")):
        # As Airflow's own dialog does it, while the page is open.
        visitor.page.evaluate("zone => localStorage.setItem('timezone', JSON.stringify(zone))", zone)
        expect(shown).to_have_text(re.compile(rf"\d\d:\d\d {re.escape(short)}$"))
        expect(frame.locator(".ago").first).to_have_text(re.compile(r"\((in )?.*\)"))
    visitor.page.evaluate("localStorage.setItem('timezone', 'no JSON')")
    page = visitor.open("federation")
    expect(page.locator("time").first).to_be_visible()  # a choice that cannot be read is none


@pytest.mark.parametrize(
    ("zone", "wall", "instant"),
    [
        ("Europe/Berlin", "2026-11-21T03:00", "2026-11-21T02:00:00.000Z"),
        ("Europe/Berlin", "2026-07-21T03:00", "2026-07-21T01:00:00.000Z"),
        ("Europe/Berlin", "2026-03-29T03:30", "2026-03-29T01:30:00.000Z"),  # an hour after the clocks went forward
        ("Europe/Berlin", "2026-10-25T03:30", "2026-10-25T02:30:00.000Z"),
        ("Asia/Kolkata", "2026-11-21T03:00", "2026-11-20T21:30:00.000Z"),
        ("UTC", "2026-11-21T03:00", "2026-11-21T03:00:00.000Z"),
    ],
)
def test_time_that_is_typed_is_meant_in_the_chosen_zone(
    seeded: Store, visitor: Visitor, zone: str, wall: str, instant: str
) -> None:
    page = visitor.open("federation#audit")
    page.evaluate("zone => localStorage.setItem('timezone', JSON.stringify(zone))", zone)
    program = "async wall => new Date((await import('./static/times.js')).instant(wall)).toISOString()"
    assert page.evaluate(program, wall) == instant


def test_what_needs_somebody_is_dismissed_counted_and_comes_back(peer_seen: Store, visitor: Visitor) -> None:
    frame = in_airflow(visitor)
    count = frame.locator(".count")
    needs = frame.get_by_role("listitem")
    n_needs = needs.count()
    expect(count).to_have_text(str(n_needs))
    assert f">{n_needs}</text>" in badge(visitor)
    frame.get_by_role("button", name="Dismiss: shop asks for a ticket").click()
    expect(count).to_have_text(str(n_needs - 1))
    assert f">{n_needs - 1}</text>" in badge(visitor)
    frame = in_airflow(visitor)  # it is remembered
    expect(frame.locator(".count")).to_have_text(str(n_needs - 1))
    frame.get_by_text("1 dismissed").click()
    visitor.picture("inbox")
    frame.get_by_role("button", name="Put back: shop asks for a ticket").click()
    expect(frame.locator(".count")).to_have_text(str(n_needs))
    # The page looks every few seconds; a peer that goes away again is news, whatever was dismissed before.
    for _ in range(2):
        see_peer(peer_seen, connected=False)
        dismiss = frame.get_by_role("button", name="Dismiss: shop is not connected")
        expect(dismiss).to_be_visible(timeout=PATIENCE_MS)
        dismiss.click()
        expect(dismiss).to_have_count(0)
        see_peer(peer_seen)
        expect(frame.get_by_text("shop is not connected")).to_have_count(0, timeout=PATIENCE_MS)


def in_airflow(visitor: Visitor) -> FrameLocator:
    """Open the page as Airflow frames it."""
    visitor.page.goto(f"{visitor.root}/plugin/federation")
    frame = visitor.page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Needs you")).to_be_visible(timeout=PATIENCE_MS)
    return frame


def badge(visitor: Visitor) -> str:
    """Return the icon in Airflow's navigation, as it is asked for now."""
    image = visitor.page.locator("img[src*='/fedtasks/api/badge.svg']")
    expect(image).to_be_visible()
    return visitor.page.request.get(image.evaluate("image => image.src")).text()


# -------------------------------------------------------------------------------------------------------------- curves
def test_curve_moves_within_three_seconds_and_keeps_its_zoom(peer_seen: Store, visitor: Visitor) -> None:
    loss = run_page(visitor, "running").get_by_role("figure", name="loss")
    expect(loss).to_contain_text(f"at step {EPOCHS // 2}")
    area = loss.locator(".u-over")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    mouse = visitor.page.mouse
    mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 50)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    mouse.up()
    window = loss.locator(".window")
    expect(window).to_contain_text("zoomed to step")
    zoomed = window.text_content()
    add_epoch(peer_seen, EPOCHS // 2 + 1)
    stored = time.monotonic()
    expect(loss).to_contain_text(f"at step {EPOCHS // 2 + 1}", timeout=3_000)
    assert time.monotonic() - stored < 3
    assert window.text_content() == zoomed
    loss.get_by_role("button", name="Show all").click()
    expect(window).to_have_text("")


def test_curves_have_their_numbers_as_table_and_csv(peer_seen: Store, visitor: Visitor, tmp_path: Path) -> None:
    roc = run_page(visitor, "done").get_by_role("figure", name="ROC")
    roc.get_by_text("Table").click()
    numbers = roc.get_by_role("region", name="ROC, all numbers")
    expect(numbers.get_by_role("row")).to_have_count(len(BINS) + 2)  # the columns' names and the origin besides
    with visitor.page.expect_download() as download:
        roc.get_by_role("button", name="Download ROC as CSV").click()
    download.value.save_as(tmp_path / "roc.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "roc.csv").read_text())))
    assert rows[0] == ["false positive rate", "true positive rate", "by chance"]
    assert [float(value) for value in rows[2]] == pytest.approx([2 / 200, 40 / 100, 2 / 200])


def test_charts_say_their_axes_their_scale_and_the_gap(peer_seen: Store, visitor: Visitor) -> None:
    page = run_page(visitor, "done")
    distance = page.get_by_role("figure", name="K-S")
    expect(distance).to_contain_text("gap 0.6785 at score 0.6")
    distance.get_by_text("Table").click()
    rows = distance.get_by_role("region").get_by_role("row")
    expect(rows.nth(3)).to_have_text(re.compile(r"0\.6\s*0\.1\s*0\.86"))  # of all 100 positives 10 lie below .6
    expect(rows.last).to_have_text(re.compile(r"1\s*1\s*1"))
    for name, told in {
        "ROC": "Across: false positive rate (share of negatives, 0 – 1). Up: share of positives found, scale 0 – 1.",
        "K-S": "Across: score (predicted probability, 0 – 1). Up: share of the class below, scale 0 – 1.",
        "Lift": "Up: positives, times chance, scale 0 – ",
        "auc": "Across: step (epoch, tree or round). Up: AUC (0.5 is chance, 1 is best), scale 0.5 – 1.",
        "loss": "Up: loss per row, scale 0 – ",
    }.items():
        picture = page.get_by_role("figure", name=name, exact=True).get_by_role("img")
        expect(picture).to_have_attribute("aria-label", re.compile(re.escape(told)))
        if name in ("K-S", "auc"):
            picture.scroll_into_view_if_needed()
            visitor.picture(f"chart-{name}")


def test_threshold_slider_counts_as_the_bins_do(peer_seen: Store, visitor: Visitor) -> None:
    page = run_page(visitor, "done")
    slider = page.get_by_role("slider")
    confusion = page.get_by_role("region", name="Confusion matrix")
    for threshold, _, _ in BINS:
        slider.fill(str(len(BINS) - 1 - [each[0] for each in BINS].index(threshold)))
        above = [each for each in BINS if each[0] >= threshold]
        hits, alarms = sum(each[1] for each in above), sum(each[2] for each in above)
        expect(confusion.get_by_role("cell")).to_have_text(
            [f"{hits} right", f"{100 - hits} missed", f"{alarms} false alarms", f"{200 - alarms} right"]
        )


def test_run_page_shows_calibration_by_tenths_of_the_rows(peer_seen: Store, visitor: Visitor) -> None:
    groups = run_page(visitor, "done").get_by_role("region", name="Calibration by tenths of the test rows")
    expect(groups.get_by_role("columnheader")).to_have_text(
        ["scores from", "test rows", "mean score", "share of positives", "too high by"]
    )
    for row, group in zip(groups.get_by_role("row").all()[1:], GROUPS, strict=True):
        over = group["mean_score"] - group["mean_label"]
        expect(row.get_by_role("rowheader")).to_have_text(f"{group['lowest']:g}")
        expect(row.get_by_role("cell")).to_have_text(
            [f"{group['rows']:g}", f"{group['mean_score']:g}", f"{group['mean_label']:g}", f"{over:.4g}"]
        )
    visitor.require_accessible()
    groups.scroll_into_view_if_needed()
    visitor.picture("federated-calibration")


def test_run_page_says_above_the_curves_which_features_can_be_rebuilt(peer_seen: Store, visitor: Visitor) -> None:
    rows = [("reconstruction.r2.income", 0.93), ("reconstruction.auc.<b>home</b>", 0.75)]
    peer_seen.metrics.put([MetricRow(run_id_of("done"), "train", name, 0, value, 0) for name, value in rows])
    page = run_page(visitor, "done")
    said = page.get_by_role("note").filter(has_text="whoever knows some people's features")
    expect(said).to_have_text(
        "⚠ whoever knows some people's features can rebuild those of the others from what shop has received, best of "
        "all income (R² 0.93), <b>home</b> (AUC 0.75); reconstruction.json has every feature."
    )
    expect(page.get_by_role("figure", name="reconstruction")).to_have_count(0)
    visitor.require_accessible()
    said.scroll_into_view_if_needed()
    visitor.picture("federated-rebuilt")


def test_run_page_says_beside_results_what_its_half_remarks(peer_seen: Store, visitor: Visitor) -> None:
    peer_seen.metrics.put([MetricRow(run_id_of("done"), "train", "remark.no_split", 1, 4.0, 0)])
    said = run_page(visitor, "done").get_by_role("note").filter(has_text="train: no split was found in 4 trees")
    expect(said).to_be_visible()


CONFUSED = {"classes": ["low", "middle", "<b>high</b>"], "confusion": [[40, 3, 0], [5, 1200, 2], [0, 1, 30]]}


@pytest.mark.parametrize(
    ("figures", "more", "tile"),
    [
        ({"accuracy": 0.81, "f1": 0.7, "log_loss": 0.42}, CONFUSED, "accuracy 0.81 · log loss 0.42"),
        ({"rmse": 120.46, "mae": 90.0, "r2": 0.4}, {}, "RMSE 120.5 · R² 0.4"),
    ],
    ids=["classes", "number"],
)
def test_run_page_of_another_label_shows_figures_and_no_curves(
    peer_seen: Store, visitor: Visitor, figures: dict[str, float], more: dict[str, Any], tile: str
) -> None:
    trees = [{"feature": "income", "gain": 40.5}, {"feature": "peer feature 2", "gain": 10.0}]
    champion = {name: value / 2 for name, value in figures.items()}
    found = {**figures, **more, "groups": GROUPS, "champion": champion, "importance": trees}
    visitor.page.route("**/api/results?*", lambda route: route.fulfill(json=found))
    page = run_page(visitor, "done")
    expect(page.get_by_text(tile).first).to_be_visible()
    for name in figures:
        expect(page.get_by_text(f"champion's {name}", exact=True)).to_be_visible()
    for name in ("ROC", "K-S", "Lift"):
        expect(page.get_by_role("figure", name=name)).to_have_count(0)
    expect(page.get_by_role("slider")).to_have_count(0)
    if more:
        rows = page.get_by_role("region", name="Confusion of classes").get_by_role("row")
        expect(rows.first.get_by_role("columnheader")).to_have_text(
            ["label", "predicted low", "predicted middle", "predicted <b>high</b>"]
        )
        expect(rows.nth(2)).to_have_text("middle51,2002")
        expect(page.get_by_role("columnheader", name="share that is right")).to_be_visible()
    else:
        errors = page.get_by_role("region", name="Error by tenths of the test rows")
        expect(errors.get_by_role("row")).to_have_count(len(GROUPS) + 1)
    assert "undefined" not in page.locator("body").inner_text()
    features = page.get_by_role("region", name="Which features count")
    expect(features.get_by_role("rowheader")).to_have_text(["income", "peer feature 2"])
    expect(features.get_by_role("img")).to_have_count(2)
    expect(page.get_by_text("numbers that only the peer can read")).to_be_visible()
    visitor.require_accessible()
    features.scroll_into_view_if_needed()
    visitor.picture(f"federated-{'-'.join(figures)}")


def test_run_page_of_a_follower_shows_the_splits_of_its_own_features(peer_seen: Store, visitor: Visitor) -> None:
    found = {"reason": "shop keeps the metrics (ticket t)", "importance": [{"feature": "visits", "splits": 12}]}
    visitor.page.route("**/api/results?*", lambda route: route.fulfill(json=found))
    page = run_page(visitor, "done")
    expect(page.get_by_text("Shop keeps the metrics (ticket t).")).to_be_visible()
    row = page.get_by_role("region", name="Which features count").get_by_role("row").last
    expect(row.get_by_role("rowheader")).to_have_text("visits")
    expect(row.get_by_role("cell").first).to_have_text("12")
    visitor.require_accessible()


def test_pages_of_a_dag_that_holds_several_runs_have_a_choice_among_them(peer_seen: Store, visitor: Visitor) -> None:
    done = peer_seen.runs.get(run_id_of("done"))
    assert done is not None
    for number, name in enumerate(("network", "trees")):
        place = {"dag_id": "nightly", "dag_run_id": "several", "pipeline": f"nightly.{name}"}
        run_id = f"nightly.{name}.{done.partition}.bank.1"
        peer_seen.runs.add(replace(done, **place, run_id=run_id, opened_ms=done.opened_ms + number))
        peer_seen.metrics.put([MetricRow(run_id, "evaluate", "auc", 1, 0.7 + number / 10, done.opened_ms)])
    for tab, heading in (("federated", "nightly.{} · "), ("compare", "nightly over time")):
        page = visitor.open(tab, dag_id="nightly", run_id="several")
        choice = page.get_by_label("Run of this DAG")
        expect(choice.get_by_role("option")).to_have_text(["network", "trees"])
        for name, auc in (("network", "0.7"), ("trees", "0.8")):
            choice.select_option(name)
            expect(page.get_by_role("heading", level=1)).to_contain_text(heading.format(name))
            expect(page.get_by_text(re.compile(rf"{auc}\b")).first).to_be_visible()
        visitor.require_accessible()
        page.evaluate("scrollTo(0, 0)")
        visitor.picture(f"{tab}-several")


def test_page_that_was_open_before_the_run_shows_it_when_it_comes(peer_seen: Store, visitor: Visitor) -> None:
    page = visitor.open("federated", dag_id="nightly", run_id="awaited")
    expect(page.get_by_text("Look at the task open_run")).to_be_visible()
    done = peer_seen.runs.get(run_id_of("done"))
    assert done is not None
    place = {"dag_id": "nightly", "dag_run_id": "awaited", "pipeline": "nightly.trees"}
    peer_seen.runs.add(replace(done, **place, run_id=f"nightly.trees.{done.partition}.bank.2", number=2))
    expect(page.get_by_role("heading", level=1)).to_contain_text("nightly.trees · ")


# ------------------------------------------------------------------------------------------------- tasks and partitions
def test_task_page_tells_progress_pace_and_both_halves(peer_seen: Store, visitor: Visitor) -> None:
    page = visitor.open("progress", dag_id=PIPELINE, run_id="running", task_id="train", map_index="{MAP_INDEX}")
    expect(page.get_by_role("progressbar", name="epoch: 4 of 8")).to_be_visible()
    for text in ("Time left", "Pace", "epoch 4; a new attempt goes on from there"):
        expect(page.get_by_text(text)).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("figure", name="auc")).to_be_visible()
    visitor.require_accessible()
    visitor.picture("progress-running")


@pytest.mark.parametrize(
    ("state", "task", "text"),
    [
        ("waiting", "align", "Waiting for shop"),
        ("waiting", "train", "has not begun; this page fills by itself"),
        ("failed", "align", "DATA_MISSING"),
        ("done", "train", "Done with shop"),
        ("nobody-opened-it", "train", "RUN_UNKNOWN"),
        ("refused", "train", "RUN_UNKNOWN"),
    ],
)
def test_task_page_in_other_states(peer_seen: Store, visitor: Visitor, state: str, task: str, text: str) -> None:
    page = visitor.open("progress", dag_id=PIPELINE, run_id=state, task_id=task, map_index="{MAP_INDEX}")
    expect(page.get_by_text(text).first).to_be_visible()
    visitor.require_accessible()
    visitor.picture(f"progress-{state}-{task}")
    # A run that is not there is answered with 404, which the browser itself writes to the console.
    visitor.faults[:] = [fault for fault in visitor.faults if "404" not in fault]


def test_compare_page_lists_runs_and_champion(peer_seen: Store, visitor: Visitor) -> None:
    page = visitor.open("compare", dag_id=PIPELINE)
    runs = page.get_by_role("region", name="Runs by partition")
    newest_first = ["2026-11-23", "2026-11-22", "2026-11-20", "2026-11-19", "2026-11-18"]
    expect(runs.get_by_role("rowheader")).to_contain_text(newest_first)
    expect(runs.get_by_text("champion").first).to_be_visible()
    auc = page.get_by_role("figure", name="auc", exact=True)
    expect(auc).to_contain_text(re.compile(r"auc 0\.\d+ at partition 2026-11-\d\d scale 0\.5 – 1"))
    titled = re.compile(r"Across: partition of the run\. Up: AUC \(0\.5 is chance, 1 is best\), scale 0\.5 – 1")
    expect(auc.get_by_role("img")).to_have_attribute("aria-label", titled)
    auc.get_by_text("Table").click()
    oldest_first = list(reversed(newest_first))
    expect(auc.get_by_role("region").get_by_role("rowheader")).to_contain_text(oldest_first)
    auc.get_by_text("Table").click()
    visitor.require_accessible()
    page.evaluate("scrollTo(0, 0)")
    visitor.picture("compare")


def test_compare_page_without_runs_names_the_next_act(seeded: Store, visitor: Visitor) -> None:
    page = visitor.open("compare", dag_id="offline_psi")
    expect(page.get_by_text("trigger it, and its runs are compared here")).to_be_visible()


# ---------------------------------------------------------------------------------------------------------- federation
@pytest.mark.parametrize(
    ("tab", "text"),
    [
        ("overview", "shop asks for a ticket"),
        ("tickets", "Held by us"),
        ("data", "loans · bank"),
        ("models", "champion"),
        ("peers", "Certificate until"),
        ("audit", "fit the chain"),
    ],
)
def test_federation_tab(peer_seen: Store, visitor: Visitor, tab: str, text: str) -> None:
    page = visitor.open(f"federation#{tab}")
    expect(page.get_by_role("tab", selected=True)).to_have_text(re.compile(f"^{tab.capitalize()}"))
    expect(page.get_by_role("tabpanel", name=tab.capitalize())).to_contain_text(text)
    visitor.require_accessible()
    visitor.picture(f"federation-{tab}")


def test_ticket_says_what_the_peer_was_told_of_our_labels(peer_seen: Store, visitor: Visitor) -> None:
    page = visitor.open("federation#tickets")
    ticket = page.get_by_role("article").filter(has_text="Our labels").first
    expect(ticket).to_contain_text("shop was told what lets it read `defaulted` of `loans`")
    # What is left depends on the ticket, of which other tests here grant more.
    expect(ticket).to_contain_text(
        re.compile(r"an AUC of at most 54\.9 % \(50 % is guessing\); (no limit|60 % are allowed)")
    )


def test_federation_tabs_move_by_arrow_keys(seeded: Store, visitor: Visitor) -> None:
    page = visitor.open("federation")
    page.get_by_role("tab", name="Overview").focus()
    for name in ("Tickets", "Data"):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", selected=True)).to_have_text(name, use_inner_text=True)
        expect(page.get_by_role("tab", name=name)).to_be_focused()


def test_audit_is_searched_and_exported(peer_seen: Store, visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("federation#audit")
    rows = page.get_by_role("region", name="Decisions, newest first").get_by_role("row")
    page.get_by_label("Outcome").select_option("refused")
    page.get_by_label("What").select_option("runs")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("each as it was written")
    expect(rows.nth(1)).to_contain_text("TICKET_EXHAUSTED")
    for row in rows.all()[1:]:
        expect(row).to_contain_text("refused")
        expect(row.locator("time")).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+$"))
    with visitor.page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "audit.csv")
    head, *lines = csv.reader(io.StringIO((tmp_path / "audit.csv").read_text()))
    assert head[:5] == ["number", "time (UTC)", "who", "what", "outcome"]
    assert {line[4] for line in lines} == {"refused"}
    assert len(lines) == rows.count() - 1
    visitor.require_accessible()
    page.get_by_role("textbox", name="Run").fill("nothing.like.it")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_text("There is no such decision")).to_be_visible()
    page.get_by_role("button", name="Verify the whole chain").click()
    expect(page.get_by_role("status").last).to_contain_text("rows fit the chain")


def test_overview_tells_of_a_peer_that_is_away(peer_seen: Store, visitor: Visitor) -> None:
    see_peer(peer_seen, connected=False)
    page = visitor.open("federation")
    expect(page.get_by_text("shop is not connected: connection refused").first).to_be_visible()
    expect(page.get_by_text("PEER_UNREACHABLE").first).to_be_visible()


def test_gateway_that_is_down_is_named_where_something_was_to_change(seeded: Store, visitor: Visitor) -> None:
    page = visitor.open("federation#peers")
    page.get_by_role("button", name="Run preflight with shop").click()
    expect(page.get_by_role("status").filter(has_text="GATEWAY_UNREACHABLE")).to_be_visible(timeout=PATIENCE_MS)
    visitor.faults[:] = [fault for fault in visitor.faults if "503" not in fault]


def test_pages_follow_the_theme_and_fit_narrow_frames(peer_seen: Store, visitor: Visitor) -> None:
    visitor.page.emulate_media(color_scheme="dark")
    for width in (600, 1_100):
        visitor.page.set_viewport_size({"width": width, "height": 760})
        page = run_page(visitor, "done")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        visitor.require_accessible()
    visitor.picture("federated-dark")
