/** The parts of a run that more than one page shows: how it stands, its lanes, and where the time went. */

import { empty, facts, fill, h, svg, table, worded } from "./dom.js";
import { icon } from "./icons.js";
import { Numbers } from "./numbers.js";
import { time } from "./times.js";
import { bytes, count, duration, halfNote, inWords, state } from "./words.js";

const HEADLINES = {
  opened: (status) => `Opened with ${status.peer}`,
  waiting: (status) => `Waiting for ${status.act || status.peer}`,
  running: (status) => `Running with ${status.peer}`,
  retrying: (status) => `Tried again with ${status.peer}`,
  done: (status) => `Done with ${status.peer}`,
  failed: (status) => `Failed at ${status.failing}`,
  refused: (status) => `Refused by ${status.failing}`,
};
const ROW = 18;
const AXIS = 40;
const ENDS = { 0: "start", 1: "end" };

/** Name a run by pipeline and partition. */
export function runName(run) {
  const number = run.number > 1 ? ` · run ${run.number}` : "";
  return `${run.pipeline} · ${run.partition}${number}`;
}

/** Say in words who waits for whom; assistive technology reads this line again when it changes. */
export function headline(status) {
  const task = status.task ? ` · ${status.task}` : "";
  const attempt = status.attempt > 1 ? ` · attempt ${status.attempt}` : "";
  return `${HEADLINES[status.state](status)}${task}${attempt}`;
}

/** Show how a run stands: who waits for whom, since when and until when, why, and who must act. */
export function banner() {
  const line = h("p", { className: "headline", role: "status" });
  const rest = h("div");
  const element = h("div", { className: "banner" }, line, rest);
  const show = (status) => {
    const text = headline(status);
    if (line.textContent.trim() !== text) fill(line, ...inWords(status.state, text));
    element.className = `banner ${status.state}`;
    rest.replaceChildren(
      facts([
        [status.state === "done" ? "At" : "Since", status.since_ms ? time(status.since_ms) : null],
        ["Gives up", status.until_ms ? time(status.until_ms) : null],
        ["Why", status.why],
        ["To act", status.act],
        ["Code", status.code],
        ["Remedy", status.remedy ? worded(status.remedy) : null],
      ]),
    );
  };
  return { element, show };
}

/** Show two lanes of tasks, one for each party; where both must be at the same time, the lanes meet. */
export function lanes(run) {
  const lane = (party, side) => [party, ...run.tasks.map((task) => half(task[side]))];
  const columns = [
    "party",
    ...run.tasks.map((task) => (task.parts.length ? `${task.task} ×${task.parts.length}` : task.task)),
  ];
  const element = table("Tasks of both parties", columns, [lane(run.party, "own"), lane(run.peer, "peer")]);
  element.classList.add("lanes");
  return element;
}

function half(found) {
  if (!found) return h("span", { className: "state none" }, icon("ring"), " not begun");
  const note = halfNote(found);
  return [state(found.state), note ? h("span", { className: "note" }, note) : null].filter(Boolean);
}

/** Show for each task of both parties how long it waited and how long it worked. */
export class Timeline {
  constructor() {
    this.rows = [];
    this.drawing = h("div", { className: "timeline" });
    this.numbers = new Numbers("Wait and work", ["task", "party", "waited s", "worked s"], () =>
      this.rows.map((row) => row.numbers),
    );
    this.element = h("figure", { "aria-label": "Wait and work" }, this.drawing, this.numbers.element);
  }

  update(run) {
    const end = run.closed_ms ?? Date.now();
    const span = Math.max(1, end - run.opened_ms);
    this.rows = run.tasks.flatMap((task) =>
      [
        [run.party, task.own],
        [run.peer, task.peer],
      ]
        .filter(([, found]) => found)
        .map(([party, found]) => period(task.task, party, found, end)),
    );
    // A half may have been there before this side had opened the run.
    const place = (at_ms) => (80 * Math.max(0, at_ms - run.opened_ms)) / span;
    const part = (from, to) => ({ x: `${20 + place(from)}%`, width: `${Math.max(0, place(to) - place(from))}%` });
    const bars = this.rows.flatMap(({ task, party, began, started, ended }, index) => [
      svg("text", { x: 0, y: index * ROW + 13 }, `${task} · ${party}`),
      svg("rect", { class: "wait", y: index * ROW + 4, height: ROW - 7, ...part(began, started) }),
      svg("rect", { class: "work", y: index * ROW + 4, height: ROW - 7, ...part(started, ended) }),
    ]);
    const below = this.rows.length * ROW;
    const height = below + AXIS;
    const ticks = [0, 0.5, 1].map((share) =>
      svg(
        "text",
        { class: "tick", x: `${20 + 80 * share}%`, y: below + 14, "text-anchor": ENDS[share] ?? "middle" },
        duration(span * share),
      ),
    );
    const title = svg("text", { class: "tick", x: "60%", y: below + 32, "text-anchor": "middle" }, "time since opened");
    const label = `Light: waiting, dark: working, over ${duration(span)}. The table below has all numbers.`;
    this.drawing.replaceChildren(
      this.rows.length
        ? svg("svg", { width: "100%", height, role: "img", "aria-label": label }, ...bars, ...ticks, title)
        : empty("No task has begun; the first one shows up here by itself."),
      h(
        "p",
        { className: "quiet" },
        h("span", { className: "swatch wait" }),
        " waiting ",
        h("span", { className: "swatch work" }),
        ` working · ${duration(span)} in all · last attempts`,
      ),
    );
    this.numbers.refresh();
  }
}

function period(task, party, found, end) {
  const over = found.state === "succeeded" || found.state === "failed";
  const ended = over ? found.since_ms : end;
  const started = found.started_ms || (found.state === "waiting" ? end : found.since_ms);
  const began = found.announced_ms || Math.min(started, found.since_ms);
  const seconds = (ms) => Math.round(Math.max(0, ms) / 100) / 10;
  return {
    task,
    party,
    began,
    started,
    ended,
    numbers: [task, party, seconds(started - began), seconds(ended - started)],
  };
}

/** Show what left the house: each kind of message, and what its receiver learns of it. */
export function ledger(run) {
  if (!run.ledger.length)
    return empty(`Nothing has left ${run.party} yet; what is sent to ${run.peer} is listed here.`);
  const rows = run.ledger.map((entry) => [
    entry.what,
    entry.task || "–",
    entry.items ? count(entry.items) : "–",
    count(entry.messages),
    bytes(entry.bytes),
    `${run.peer} learns ${entry.learns}`,
  ]);
  return table("What left the house", ["what", "task", "rows", "messages", "size", "what it tells"], rows);
}

/** List runs, each with how it stands. */
export function runTable(caption, runs, link) {
  const rows = runs.map((run) => [
    link(run),
    state(run.status.state),
    why(run.status),
    time(run.status.since_ms || run.opened_ms),
  ]);
  return table(caption, ["run", "state", "who and why", "since"], rows);
}

function why(status) {
  return [HEADLINES[status.state](status), status.task, status.code, status.why].filter(Boolean).join(" · ");
}
