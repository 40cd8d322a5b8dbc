/** How streams are joined: what became of rows, and over event time how many find a counterpart, how soon. */

import { LineChart } from "./charts.js";
import { empty, facts, fill, h, part } from "./dom.js";
import { fromZero, SHARE } from "./scales.js";
import { time } from "./times.js";
import { bytes, count, duration, figure, share } from "./words.js";

const MB = 1e6;
const UNITS = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1_000, "s"],
];
const CHARTS = [
  {
    title: "Join rate",
    yTitle: "rows with a counterpart, share (0 – 1)",
    bounds: SHARE,
    lines: { "join rate": ({ join_rate }) => join_rate },
  },
  {
    title: "Lag",
    yTitle: "seconds from event to block, mean",
    bounds: fromZero,
    lines: { lag: ({ lag_s }) => lag_s },
  },
  {
    title: "Rows",
    yTitle: "rows",
    bounds: fromZero,
    lines: {
      joined: ({ joined, corrected }) => joined + corrected,
      "without a counterpart": ({ is_open, unmatched }) => (is_open ? null : unmatched),
      late: ({ late }) => late,
      "left out": (window) => window.too_late + window.duplicates + window.rejected,
    },
  },
  {
    title: "Open rows",
    yTitle: "MB, all shards",
    bounds: fromZero,
    lines: { "in memory": ({ memory_mb }) => memory_mb, "on the local disk": ({ spilled_mb }) => spilled_mb },
  },
];

/** The streams that a run joins; charts are made once and then kept, so that zooms stay. */
export class Joins {
  constructor() {
    this.streams = new Map();
    this.element = h("div");
  }

  /** Show streams as `run/joins` tells them; `run` says whether more may come. */
  show(joins, run) {
    for (const each of joins) {
      if (!this.streams.has(each.stream)) {
        const made = new Stream(each);
        this.streams.set(each.stream, made);
        this.element.append(...made.element);
      }
      this.streams.get(each.stream).show(each, run);
    }
  }
}

class Stream {
  constructor({ stream, peer }) {
    this.charts = new Map();
    this.told = part(([found]) => totals(found));
    this.none = h("div");
    this.drawn = h("div", { className: "charts" });
    this.element = [h("h3", {}, `Stream ${stream} with ${peer}`), this.told.element, this.none, this.drawn];
  }

  show(found, run) {
    const { windows } = found;
    fill(this.none, windows.length ? null : empty(whyNone(run)));
    this.told.show([windows.length ? found : null]);
    if (windows.length) for (const each of CHARTS) this.draw(each, found);
  }

  draw({ title, yTitle, bounds, lines }, { windows, width_ms }) {
    const starts = windows.map(({ start_ms }) => start_ms);
    const values = Object.values(lines).map((of) => windows.map(of));
    if (values.flat().every((value) => value === null)) return;
    const axes = { x: "event time", xTitle: "event time (beginning of the window)", bounds, grows: true, clock: true };
    const width = title === "Rows" ? ` in ${span(width_ms)} of event time` : "";
    if (!this.charts.has(title)) {
      const fresh = new LineChart(title, { ...axes, yTitle: `${yTitle}${width}`, lines: Object.keys(lines) });
      this.charts.set(title, fresh);
      this.drawn.append(fresh.element);
    }
    this.charts.get(title).update([starts, ...values]);
  }
}

function span(ms) {
  const [unit, name] = UNITS.find(([each]) => ms % each === 0) ?? UNITS.at(-1);
  return `${figure(ms / unit)} ${name}`;
}

function totals(found) {
  if (!found) return null;
  const { clock_offset_ms: offset, memory_mb: memory, spilled_mb: spilled, lag_s: lag, watermark_ms } = found;
  return facts([
    ["Join rate", found.join_rate === null ? "nothing is decided yet" : share(found.join_rate)],
    ["Rows joined", count(found.joined)],
    ["Joined by correction", count(found.corrected)],
    ["Without a counterpart", count(found.unmatched)],
    ["Late, kept", count(found.late)],
    ["Too late, left out", count(found.too_late)],
    ["Duplicates, left out", count(found.duplicates)],
    ["Without id or time, left out", count(found.rejected)],
    ["Lag, on average", lag === null ? null : duration(1000 * lag)],
    ["Open rows, in memory", memory === null ? null : bytes(MB * memory)],
    ["Open rows, on the local disk", spilled === null ? null : bytes(MB * spilled)],
    ["Clock offset, measured", offset === null ? null : offsetOf(offset, found.peer)],
    ["Decided up to", watermark_ms === null ? null : time(watermark_ms)],
  ]);
}

function offsetOf(ms, peer) {
  return `event times of ${peer} are ${figure(Math.round(Math.abs(ms)))} ms ${ms < 0 ? "earlier" : "later"}`;
}

function whyNone(run) {
  if (run.state === "running") return "Nothing is joined yet; the charts begin with the first block that both sides commit.";
  return "This run has joined nothing: no block was committed by both sides.";
}
