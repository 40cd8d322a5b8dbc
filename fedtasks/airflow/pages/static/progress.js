/** The tab of a task: how far it is, and how the other side's half of it stands. */

import { get, poll } from "./api.js";
import { MetricCharts } from "./charts.js";
import { empty, facts, fill, h, part, section, worded } from "./dom.js";
import { icon } from "./icons.js";
import { query } from "./frame.js";
import { openPage } from "./page.js";
import { banner } from "./run_parts.js";
import { time } from "./times.js";
import { count, duration, figure, state } from "./words.js";

const TASK_MS = 1_000;
const { dag_id, run_id: dag_run_id, task_id, map_index } = query;

/** The page of one task; its charts are kept, so that zooms stay. */
class TaskPage {
  constructor() {
    this.status = banner();
    this.charts = new MetricCharts();
    this.noCurves = h("div");
    const top = part(
      (found) => h("header", {}, h("h1", {}, found.task)),
      ({ task }) => task,
    );
    const progress = part(progressOf, ({ own, progress, left_s }) => [own, progress, left_s]);
    const halves = part(bothHalves, ({ own, peer }) => [own, peer]);
    this.parts = [top, progress, halves];
    this.element = [
      top.element,
      this.status.element,
      section("Progress", progress.element),
      section("Both halves", halves.element),
      section("Learning", this.noCurves, this.charts.element),
    ];
  }

  show(found) {
    this.status.show(found.status);
    for (const each of this.parts) each.show(found);
    this.charts.add(found.series);
    fill(this.noCurves, this.charts.isEmpty ? empty(whyNoCurves(found)) : null);
  }
}

function progressOf(found) {
  const { own, progress } = found;
  if (!found.federated) return empty("This task works for this side alone; the other side has no half of it.");
  if (!own) return empty(`The half of ${found.party} has not begun; this page fills by itself when it does.`);
  const counted = progress.of > 0;
  const known = new Set(["phase", "done", "of", "checkpoint", "rows_per_s", "left_s"]);
  const others = Object.entries(progress).filter(([name]) => !known.has(name));
  return [
    counted ? bar(progress) : null,
    facts([
      ["Phase", progress.phase],
      ["Done", counted ? `${count(progress.done ?? 0)} of ${count(progress.of)}` : null],
      ["Pace", found.rate_per_s ? `${figure(found.rate_per_s)}${progress.rows_per_s ? " rows" : ""} a second` : null],
      ["Time left", found.left_s !== null ? `about ${duration(found.left_s * 1000)}` : null],
      ["No progress since", own.quiet_since_ms ? time(own.quiet_since_ms) : null],
      ["Attempt", `${found.attempts}`],
      [
        "Checkpoint",
        found.checkpoint === null
          ? "none yet; a new attempt begins anew"
          : `${found.checkpoint}; a new attempt goes on from there`,
      ],
      ...others.map(([name, value]) => [
        name.replaceAll("_", " "),
        typeof value === "number" ? figure(value) : String(value),
      ]),
    ]),
  ];
}

function bar({ phase, done = 0, of }) {
  return h("progress", {
    max: of,
    value: Math.min(done, of),
    "aria-label": `${phase ?? "progress"}: ${count(done)} of ${count(of)}`,
  });
}

function bothHalves(found) {
  if (!found.federated) return empty("Nobody else takes part in this task.");
  return h(
    "div",
    { className: "halves" },
    side(found.party, found.own, found.failure),
    side(found.peer_name, found.peer, null),
  );
}

function side(party, half, failure) {
  const title = h("h3", {}, party);
  if (!half) return h("article", {}, title, h("p", { className: "state none" }, icon("ring"), " not begun"));
  const { phase, done, of } = half.progress ?? {};
  return h(
    "article",
    {},
    title,
    h("p", {}, state(half.state)),
    facts([
      ["Since", time(half.since_ms)],
      ["Gives up", half.until_ms ? time(half.until_ms) : null],
      ["Attempt", String(half.attempt)],
      ["Was there", half.announced_ms ? time(half.announced_ms) : null],
      ["Began to work", half.started_ms ? time(half.started_ms) : null],
      ["Progress", of ? `${phase ?? ""} ${count(done ?? 0)} of ${count(of)}` : phase],
      ["Code", half.code],
      ["Why", failure?.text],
      ["Remedy", failure?.remedy ? worded(failure.remedy) : null],
    ]),
  );
}

function whyNoCurves(found) {
  if (!found.own) return "Curves start when the task has begun.";
  if (["succeeded", "failed"].includes(found.own.state)) return `This task has reported no curves to ${found.party}.`;
  return "Curves start after the first two steps that the task reports, such as epochs; some tasks have none.";
}

function main() {
  const { body, guarded } = openPage();
  let open = null;
  poll(
    TASK_MS,
    guarded(async () => {
      const found = await get("task", { dag_id, dag_run_id, task_id, map_index });
      if (open === null) {
        open = new TaskPage();
        fill(body, ...open.element);
      }
      open.show(found);
    }),
  );
}

main();
