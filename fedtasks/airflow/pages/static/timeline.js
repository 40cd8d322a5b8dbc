/** Where the time of a run went, task by task. */

import { empty, h, svg } from "./dom.js";
import { Numbers } from "./numbers.js";
import { duration } from "./words.js";

const ROW = 18;
const AXIS = 40;
const ENDS = { 0: "start", 1: "end" };

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
