/** The tab of a DAG run: one run, both sides. */

import { get, poll, post } from "./api.js";
import { MetricCharts } from "./charts.js";
import { ask, button, reason } from "./dialog.js";
import { empty, facts, fill, h, part, section, table, worded } from "./dom.js";
import { airflowLink, query } from "./frame.js";
import { Joins } from "./joins.js";
import { openPage } from "./page.js";
import { Pipelines } from "./pipelines.js";
import { quality, results } from "./results.js";
import { banner, lanes, ledger, runName } from "./run_parts.js";
import { Timeline } from "./timeline.js";
import { time } from "./times.js";
import { bytes, count, duration, state, verdict } from "./words.js";

const RUN_MS = 2_000;
const CURVES_MS = 1_000;
const TILES_MS = 5_000;
const dag_run = { dag_id: query.dag_id, dag_run_id: query.run_id };

/** The page of a run that was opened; made once and then kept, so that zooms and open tables stay. */
class RunPage {
  constructor(pipeline) {
    this.of = { ...dag_run, pipeline };
    this.status = banner();
    this.charts = new MetricCharts();
    this.timeline = new Timeline();
    this.curvesUntil = -1;
    this.tiles = part(firstFacts);
    this.results = part(results);
    this.noCurves = h("div");
    this.joins = new Joins();
    this.joinSection = section("Join", this.joins.element);
    this.joinSection.hidden = true; // most runs join no streams
    const parts = {
      top: part(title, ({ state, reason }) => [state, reason]),
      approval: part(approvalOf, ({ approval }) => approval),
      leak: part(leaksOf, ({ leak, rebuilt }) => [leak, rebuilt]),
      remarks: part(remarksOf, ({ remarks }) => remarks),
      tasks: part(lanes, ({ tasks }) => tasks),
      sent: part(ledger, ({ ledger }) => ledger),
      rights: part(rights, ({ rights }) => rights),
      receipts: part(receipts, ({ receipts }) => receipts),
      settings: part(settingsOf, ({ asked }) => asked),
    };
    this.parts = Object.values(parts);
    this.element = [
      parts.top.element,
      this.status.element,
      parts.approval.element,
      this.tiles.element,
      section("Tasks", parts.tasks.element),
      section("Left the house", parts.sent.element),
      this.joinSection,
      section("Results", parts.remarks.element, this.results.element),
      section("Learning", parts.leak.element, this.noCurves, this.charts.element),
      section("Where the time went", this.timeline.element),
      section("Who may see what", parts.rights.element),
      section("Receipts", parts.receipts.element),
      section("Settings", parts.settings.element),
    ];
  }

  async show(run) {
    this.run = run;
    this.status.show(run.status);
    for (const each of this.parts) each.show(run);
    this.timeline.update(run);
    await this.showJoins(run);
    const evaluated = JSON.stringify([run.state, run.metrics, run.importance]);
    if (evaluated !== this.evaluated) {
      this.found = await get("results", this.of);
      this.evaluated = evaluated;
      this.results.show(this.found);
    }
    this.tiles.show([run, this.found, Math.floor(Date.now() / TILES_MS)]);
  }

  async showJoins(run) {
    const joined = JSON.stringify([run.state, run.joins]);
    if (!run.joins.length || joined === this.joined) return;
    const { joins } = await get("run/joins", this.of);
    this.joinSection.hidden = false;
    this.joins.show(joins, run);
    this.joined = joined;
  }

  async showCurves() {
    const ended = this.run.state !== "running";
    if (this.drawn && ended) return;
    const found = await get("run/metrics", { ...this.of, after_ms: this.curvesUntil });
    this.charts.add(found.series);
    this.curvesUntil = found.at_ms;
    this.drawn = ended;
    fill(this.noCurves, this.charts.isEmpty ? empty(whyNoCurves(this.run)) : null);
  }
}

function title(run) {
  const role =
    run.initiator === run.party ? `${run.party} asked, ${run.peer} answers` : `${run.peer} asked, ${run.party} answers`;
  const cancel = () =>
    ask(
      `Cancel ${runName(run)}`,
      `Both sides' halves end as failed. ${run.peer} is told the reason.`,
      [reason()],
      (values) => post("run/cancel", { run_id: run.run_id, reason: values.reason }),
    );
  return [
    h("header", {}, h("h1", {}, runName(run)), run.state === "running" ? button("Cancel run …", cancel) : null),
    h(
      "p",
      { className: "quiet" },
      `${role} · ticket ${run.ticket_id} · opened `,
      time(run.opened_ms),
      run.reason ? ` · “${run.reason}”` : "",
    ),
  ];
}

function firstFacts([run, found]) {
  const open = (since) => (since ? Math.max(0, Date.now() - since) : 0);
  const { times, counts } = run;
  const largest = run.ledger
    .slice(0, 2)
    .map((entry) =>
      h(
        "div",
        { className: "note" },
        `${entry.what}: ${entry.items ? `${count(entry.items)} rows, ` : ""}${bytes(entry.bytes)}`,
      ),
    );
  const tile = (name, value, ...notes) =>
    h("div", { className: "tile" }, h("dt", {}, name), h("dd", {}, h("strong", {}, value), ...notes));
  const others = Object.entries(counts)
    .filter(([name]) => name !== "people_shared")
    .slice(0, 2);
  return h(
    "dl",
    { className: "tiles" },
    tile(
      "Model",
      quality(found) || "not known here",
      h("div", { className: "note" }, worded(found.reason ?? championNote(found))),
    ),
    tile("Left the house", bytes(run.bytes_sent), largest),
    tile("Came in", bytes(run.bytes_received), h("div", { className: "note" }, `from ${run.peer}`)),
    tile(
      "People shared",
      counts.people_shared === undefined ? "not known yet" : `≈ ${count(counts.people_shared)}`,
      ...others.map(([name, value]) => h("div", { className: "note" }, `${name.replaceAll("_", " ")} ${count(value)}`)),
    ),
    tile(
      "Time",
      `${duration(times.compute_ms + open(times.computing_since_ms))} work`,
      h(
        "div",
        { className: "note" },
        `${duration(times.wait_ms + open(times.waiting_since_ms))} waiting for ${run.peer}`,
      ),
    ),
  );
}

function championNote(found) {
  return found.champion ? `champion: ${quality(found.champion)}` : "no champion to compare with";
}

function whyNoCurves(run) {
  const right = run.rights.find(({ what }) => what === "metrics");
  if (right && !right.may) return `${right.who} keeps the metrics (${right.clause}); this side has no curves.`;
  return run.state === "running"
    ? "The curves start after the first two epochs or rounds."
    : "No task of this run has reported curves.";
}

function rights(run) {
  if (!run.rights.length) return empty(`Ticket ${run.ticket_id} is not here; the tickets page says where it went.`);
  const rows = run.rights.map(({ what, may, who, clause }) => [
    what,
    verdict(may, "seen here", "not seen here"),
    who,
    clause || "–",
  ]);
  return table("Who may see what", ["what", "here", "who may", "by which clause"], rows);
}

function approvalOf(run) {
  const asked = run.approval;
  if (!asked) return null;
  const path = ["dags", run.dag_id, "runs", run.dag_run_id, "required_actions"].map(encodeURIComponent).join("/");
  return section(
    "Approval",
    facts([
      ["State", state(asked.state)],
      ["Clause", asked.clause],
      ["Asked", time(asked.asked_ms)],
      ["Until", asked.state === "asked" && asked.until_ms ? time(asked.until_ms) : null],
      ["Decided by", asked.decided_by],
      ["Reason", asked.reason],
    ]),
    asked.state === "asked" ? airflowLink(path, "Approve or reject, where this side is asked") : null,
  );
}

function leaksOf(run) {
  return [run.leak, run.rebuilt].filter(Boolean).map((told) => h("p", { role: "note" }, `⚠ ${told}.`));
}

function remarksOf(run) {
  return run.remarks.map((text) => h("p", { role: "note" }, `⚠ ${text}.`));
}

function receipts(run) {
  const { own, peer, agree } = run.receipts;
  if (!own && !peer) return empty("Both sides sign what they did when the run closes; the receipts are kept here.");
  const receipt = (party, text) =>
    text
      ? h("details", {}, h("summary", {}, `${party}'s receipt`), h("pre", { tabIndex: 0 }, text))
      : empty(`${party} has not signed yet.`);
  return [
    h("p", {}, verdict(agree, "Both receipts agree", "The receipts do not agree yet")),
    receipt(run.party, own),
    receipt(run.peer, peer),
  ];
}

function settingsOf(run) {
  const rows = run.asked.map(({ place, value, clause }) => [place, value, clause || "–"]);
  return h(
    "details",
    { open: run.approval?.state === "asked" },
    h("summary", {}, `${count(rows.length)} settings that both sides agreed on`),
    table("Settings", ["setting", "value", "bounded by"], rows),
  );
}

function refused(found) {
  const status = banner();
  const { failure } = found;
  status.show({
    state: "refused",
    failing: failure.party,
    since_ms: found.at_ms,
    why: failure.text,
    act: failure.act,
    code: failure.code,
    remedy: failure.remedy,
  });
  const name = [found.pipeline, found.partition].filter(Boolean).join(" · ");
  return [
    h("header", {}, h("h1", {}, name)),
    status.element,
    empty("Nothing has left the house: a refused run sends no data."),
  ];
}

function opening(found) {
  const status = banner();
  status.show(found.status);
  const name = [found.pipeline, found.partition].filter(Boolean).join(" · ");
  return [
    h("header", {}, h("h1", {}, name)),
    status.element,
    empty("The run is not open yet. The task open_run waits, holds no worker, and asks again by itself."),
  ];
}

function nothing(found) {
  return [
    h("header", {}, h("h1", {}, dag_run.dag_id)),
    empty(`${found.why}. Look at the task open_run in this DAG run's list of tasks; this page fills once it has run.`),
  ];
}

async function main() {
  const { body, guarded } = openPage();
  const noRun = part((found) => ({ opening, refused })[found.state]?.(found) ?? nothing(found));
  let open = null;
  const load = guarded(async () => {
    const found = await get("run", { ...dag_run, pipeline: pipelines.chosen });
    if (pipelines.chosen && found.pipeline !== pipelines.chosen) return; // somebody has chosen another since
    pipelines.show(found);
    if (!found.run_id) {
      open = null;
      noRun.show(found);
      fill(body, pipelines.element, noRun.element);
      return;
    }
    if (open?.of.pipeline !== found.pipeline) {
      open = new RunPage(found.pipeline);
      fill(body, pipelines.element, ...open.element);
    }
    await open.show(found);
  });
  const pipelines = new Pipelines(load);
  await poll(RUN_MS, load);
  poll(
    CURVES_MS,
    guarded(async () => open?.showCurves()),
  );
}

main();
