/** Charts with titled axes and honest scales; each has a zoom that stays, a table and a CSV file. */

import { h } from "./dom.js";
import { onTheme } from "./frame.js";
import { Numbers } from "./numbers.js";
import { kindOf, scaleOf, written } from "./scales.js";
import { onAxis, written as instantOf, zone } from "./times.js";
import { figure } from "./words.js";

const HEIGHT = 240;
const TITLE = 22;
const SIGN = 6; // so wide is a sign of a label
const WHOLE = [1, 2, 5]
  .flatMap((digit) => [1, 10, 100, 1_000, 10_000].map((power) => digit * power))
  .sort((a, b) => a - b);
const [MINUTE_MS, HOUR_MS] = [60_000, 3_600_000];
const CLOCK = [
  ...[1, 5, 15, 30].map((n) => n * 1_000),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE_MS),
  ...[1, 2, 3, 6, 12, 24, 48, 168, 336, 672, 1344, 2688, 5376].map((n) => n * HOUR_MS),
];
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4"];
const DASHES = [[], [8, 4], [2, 3], [8, 3, 2, 3]];
const styles = getComputedStyle(document.documentElement);
const value = (name) => styles.getPropertyValue(name).trim();
const colour = (name) => () => value(name);

/** Lines over one axis. */
export class LineChart {
  /**
   * @param {string} title What it shows.
   * @param {{x: string, xTitle?: string, xBounds?: number[], yTitle: string, lines: string[], bounds:
   *   Function|number[], grows?: boolean, clock?: boolean}} axes The horizontal values' name, and the axis' title where that says more,
   *   with its unit, and its range if that is always the same; the vertical axis' title; the names of the lines; the
   *   vertical range, or what gives it for all values; whether a point is added with each step, so that the points are
   *   drawn and the last is told; whether the horizontal values are instants in milliseconds.
   */
  constructor(title, { x, xTitle = x, xBounds = null, yTitle, lines, bounds, grows = false, clock = false }) {
    Object.assign(this, { title, x, xBounds, lines, grows, clock, axes: `Across: ${xTitle}. Up: ${yTitle}` });
    this.bounds = typeof bounds === "function" ? bounds : () => bounds;
    this.data = [[], ...lines.map(() => [])];
    this.limits = [0, 1];
    this.labels = null;
    this.mark = null;
    this.canvas = h("div", { className: "canvas", role: "img", "aria-label": title });
    this.latest = h("span", { className: "latest" });
    this.scale = h("span", { className: "scale" });
    this.window = h("span", { className: "window" });
    this.wide = h("button", { type: "button", hidden: true, onclick: () => this.showAll() }, "Show all");
    this.numbers = new Numbers(title, [x, ...lines], () => this.rows());
    const caption = [h("strong", {}, title), this.latest, this.scale, this.window, this.wide];
    this.element = h(
      "figure",
      { "aria-label": title },
      h(
        "figcaption",
        {},
        caption.flatMap((each) => [each, " "]),
      ),
      this.canvas,
      this.numbers.element,
    );
    this.plot = new uPlot(this.options(xTitle, yTitle), this.data, this.canvas);
    new ResizeObserver(([entry]) => this.fit(entry.contentRect.width)).observe(this.canvas);
    onTheme(() => this.plot.redraw(false, true));
  }

  /**
   * Show other numbers; a zoom stays as it is.
   *
   * @param {number[][]} data The horizontal values, then those of each line.
   * @param {{labels?: string[], mark?: {x: number, from: number, to: number, text: string}}} more Names of the
   *   horizontal values 1, 2, 3 …; a distance that is marked.
   */
  update(data, { labels = null, mark = null } = {}) {
    const zoomed = this.zoomed();
    Object.assign(this, { data, labels, mark });
    this.limits = this.bounds(data.slice(1).flat().filter(isNumber));
    this.plot.setData(data, !zoomed);
    if (zoomed) this.plot.redraw(true, true);
    const latest = [this.grows ? this.describe() : "", mark?.text].filter(Boolean).join(", ");
    this.latest.textContent = latest;
    this.scale.textContent = written(this.limits);
    this.canvas.setAttribute("aria-label", `${this.title} ${latest}. ${this.axes}, ${written(this.limits)}. The table below has all numbers.`);
    this.showWindow();
    this.numbers.refresh();
  }

  showAll() {
    this.plot.setData(this.data, true);
  }

  zoomed() {
    const { min, max } = this.plot.scales.x;
    const [first, last] = this.ends();
    return first !== undefined && min !== null && min !== undefined && (min > first || max < last);
  }

  ends() {
    return [this.data[0][0], this.data[0].at(-1)];
  }

  rows() {
    return this.data[0].map((x, index) => [
      this.labels || this.clock ? this.nameOf(x) : x,
      ...this.data.slice(1).map((values) => values[index]),
    ]);
  }

  /** Name a horizontal value: a partition, an instant, or the number itself. */
  nameOf(x) {
    if (this.clock) return instantOf(x);
    return this.labels ? (this.labels[Math.round(x) - 1] ?? "") : figure(x);
  }

  describe() {
    const last = this.data[0].findLast((_, index) => this.data.slice(1).some((values) => isNumber(values[index])));
    if (last === undefined) return "";
    const values = this.lines.map((name, index) => {
      const value = figure(lastOf(this.data[index + 1]));
      return name === this.title ? value : `${name} ${value}`;
    });
    return `${values.join(", ")} at ${this.x} ${this.nameOf(last)}`;
  }

  showWindow() {
    const zoomed = this.zoomed();
    const { min, max } = this.plot.scales.x;
    const [from, to] = this.labels ? [Math.ceil(min), Math.floor(max)] : [min, max];
    this.wide.hidden = !zoomed;
    this.window.textContent = zoomed ? `zoomed to ${this.x} ${this.nameOf(from)} – ${this.nameOf(to)}` : "";
  }

  fit(width) {
    if (width > 0) this.plot.setSize({ width: Math.floor(width), height: HEIGHT });
  }

  options(xTitle, yTitle) {
    const font = `12px ${value("--font")}`;
    const axis = {
      stroke: colour("--quiet"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { stroke: colour("--grid"), width: 1 },
      font,
      labelFont: font,
      labelSize: TITLE,
    };
    const steps = this.clock ? { incrs: CLOCK } : this.grows ? { incrs: WHOLE } : {};
    const label = this.clock ? () => `${xTitle}, ${zone()}` : xTitle;
    const across = { ...axis, label, size: 30, ...steps };
    const wide = this.clock ? SIGN * 14 : 50;
    across.space = () => (this.labels ? SIGN * (1 + Math.max(...this.labels.map((name) => name.length))) : wide);
    across.values = (_, splits) => splits.map((at) => this.tick(at));
    return {
      width: 400,
      height: HEIGHT,
      scales: {
        x: { time: false, range: (_, least, most) => this.xBounds ?? this.across(least, most) },
        y: { range: () => this.limits },
      },
      axes: [across, { ...axis, label: yTitle, size: 52 }],
      cursor: { drag: { x: true, y: false } },
      legend: { live: false },
      series: [{ label: this.x }, ...this.lines.map((label, index) => line(label, index, this.grows))],
      hooks: { setScale: [(_, key) => key === "x" && this.showWindow()], draw: [(plot) => this.drawMark(plot)] },
    };
  }

  tick(at) {
    if (this.clock) return onAxis(at, this.plot ? this.plot.scales.x.max - this.plot.scales.x.min : 0);
    if (!this.labels) return figure(at);
    return Number.isInteger(at) ? this.nameOf(at) : "";
  }

  /** Return the horizontal range: named values stand half a step inside of it. */
  across(least, most) {
    const room = this.clock && least === most ? MINUTE_MS : this.labels || least === most ? 0.5 : 0;
    return [least - room, most + room];
  }

  drawMark(plot) {
    if (!this.mark) return;
    const { ctx, bbox } = plot;
    const { x, from, to, text } = this.mark;
    const [left, top, bottom] = [plot.valToPos(x, "x", true), plot.valToPos(to, "y", true), plot.valToPos(from, "y", true)];
    const scale = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = value("--text");
    ctx.lineWidth = 2 * scale;
    ctx.setLineDash([]);
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.beginPath();
    for (const [x0, y0, x1, y1] of [
      [left, top, left, bottom],
      [left - 5 * scale, top, left + 5 * scale, top],
      [left - 5 * scale, bottom, left + 5 * scale, bottom],
    ]) {
      ctx.moveTo(x0, y0);
      ctx.lineTo(x1, y1);
    }
    ctx.stroke();
    ctx.font = `${12 * scale}px ${value("--font")}`;
    const wide = ctx.measureText(text).width + 8 * scale;
    const fits = left + wide <= bbox.left + bbox.width;
    ctx.lineWidth = 4 * scale;
    ctx.strokeStyle = value("--back"); // a rim, so that grid and curves do not run through the words
    const place = [fits ? left + 8 * scale : left - wide, (top + bottom) / 2];
    ctx.strokeText(text, ...place);
    ctx.fillText(text, ...place);
    ctx.restore();
  }
}

/** Curves of metrics, one chart for each kind of number, made when the first one comes. */
export class MetricCharts {
  constructor() {
    this.charts = new Map();
    this.points = new Map();
    this.element = h("div", { className: "charts" });
  }

  /** Take points of `task.metric`, [step, value, time]; of one step the last counts. Single values draw no curve. */
  add(series) {
    const changed = new Set();
    for (const [name, points] of Object.entries(series)) {
      const known = this.points.get(name) ?? new Map();
      this.points.set(name, known);
      for (const [step, value] of points) known.set(step, value);
      if (known.size > 1) changed.add(kindOf(name));
    }
    for (const kind of changed) this.draw(kind);
  }

  get isEmpty() {
    return this.charts.size === 0;
  }

  draw(kind) {
    const names = [...this.points.keys()]
      .filter((name) => kindOf(name) === kind && this.points.get(name).size > 1)
      .sort();
    let chart = this.charts.get(kind);
    if (chart?.lines.join() !== names.join()) {
      const { title: yTitle, bounds } = scaleOf(kind);
      const fresh = new LineChart(kind, {
        x: "step",
        xTitle: "step (epoch, tree or round)",
        yTitle,
        lines: names,
        bounds,
        grows: true,
      });
      if (chart) chart.element.replaceWith(fresh.element);
      else this.element.append(fresh.element);
      this.charts.set(kind, fresh);
      chart = fresh;
    }
    const steps = [...new Set(names.flatMap((name) => [...this.points.get(name).keys()]))].sort((a, b) => a - b);
    chart.update([steps, ...names.map((name) => steps.map((step) => this.points.get(name).get(step) ?? null))]);
  }
}

function lastOf(values) {
  return values.findLast(isNumber);
}

function isNumber(value) {
  return typeof value === "number";
}

function line(label, index, points) {
  const stroke = colour(COLOURS[index % COLOURS.length]);
  return {
    label,
    stroke,
    width: 2,
    dash: DASHES[index % DASHES.length],
    spanGaps: true,
    points: { show: points, size: 5, fill: stroke },
  };
}
