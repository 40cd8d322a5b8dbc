/** The parts of a run that more than one page shows: how it stands, its lanes, and what has left the house. */

import { empty, facts, fill, h, table, worded } from "./dom.js";
import { icon } from "./icons.js";
import { time } from "./times.js";
import { bytes, count, halfNote, inWords, state } from "./words.js";

const HEADLINES = {
  opened: (status) => `Opened with ${status.peer}`,
  waiting: (status) => `Waiting for ${status.act || status.peer}`,
  running: (status) => `Running with ${status.peer}`,
  retrying: (status) => `Tried again with ${status.peer}`,
  done: (status) => `Done with ${status.peer}`,
  failed: (status) => `Failed at ${status.failing}`,
  refused: (status) => `Refused by ${status.failing}`,
};

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
