/** Charts with their numbers: each has a zoom that stays, a table and a CSV file. */

import { fill, h, table } from "./dom.js";
import { onTheme } from "./frame.js";
import { figure } from "./words.js";

const HEIGHT = 220;
const WHOLE = [1, 2, 5]
  .flatMap((digit) => [1, 10, 100, 1_000, 10_000].map((power) => digit * power))
  .sort((a, b) => a - b);
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4"];
const DASHES = [[], [8, 4], [2, 3], [8, 3, 2, 3]];
const styles = getComputedStyle(document.documentElement);
const colour = (name) => () => styles.getPropertyValue(name).trim();

/** Lines over one axis. */
export class LineChart {
  /**
   * @param {string} title What it shows.
   * @param {{x: string, lines: string[], range?: number[], grows?: boolean}} axes The names of the horizontal axis and
   *   of the lines; the vertical range if it is always the same; whether a point is added with each step, so that the
   *   points are drawn and the last is told.
   */
  constructor(title, { x, lines, range, grows = false }) {
    this.title = title;
    this.x = x;
    this.lines = lines;
    this.grows = grows;
    this.data = [[], ...lines.map(() => [])];
    this.canvas = h("div", { className: "canvas", role: "img", "aria-label": title });
    this.latest = h("span", { className: "latest" });
    this.window = h("span", { className: "window" });
    this.wide = h("button", { type: "button", hidden: true, onclick: () => this.showAll() }, "Show all");
    this.numbers = new Numbers(title, [x, ...lines], () => this.rows());
    this.element = h(
      "figure",
      { "aria-label": title },
      h("figcaption", {}, h("strong", {}, title), " ", this.latest, " ", this.window, " ", this.wide),
      this.canvas,
      this.numbers.element,
    );
    this.plot = new uPlot(this.options(range), this.data, this.canvas);
    new ResizeObserver(([entry]) => this.fit(entry.contentRect.width)).observe(this.canvas);
    onTheme(() => this.plot.redraw(false, true));
  }

  /** Show other numbers: the horizontal values, then those of each line; a zoom stays as it is. */
  update(data) {
    const zoomed = this.zoomed();
    this.data = data;
    this.plot.setData(data, !zoomed);
    if (zoomed) this.plot.redraw(true, true);
    const latest = this.grows ? this.describe() : "";
    this.latest.textContent = latest;
    this.canvas.setAttribute("aria-label", `${this.title} ${latest}. The table below has all numbers.`);
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
    return this.data[0].map((x, index) => [x, ...this.data.slice(1).map((values) => values[index])]);
  }

  describe() {
    const last = this.data[0].findLast((_, index) => this.data.slice(1).some((values) => isNumber(values[index])));
    if (last === undefined) return "";
    const values = this.lines.map((name, index) => `${name} ${figure(lastOf(this.data[index + 1]))}`);
    return `${values.join(", ")} at ${this.x} ${figure(last)}`;
  }

  showWindow() {
    const zoomed = this.zoomed();
    const { min, max } = this.plot.scales.x;
    this.wide.hidden = !zoomed;
    this.window.textContent = zoomed ? `zoomed to ${this.x} ${figure(min)} – ${figure(max)}` : "";
  }

  fit(width) {
    if (width > 0) this.plot.setSize({ width: Math.floor(width), height: HEIGHT });
  }

  options(range) {
    const axis = {
      stroke: colour("--quiet"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { stroke: colour("--grid"), width: 1 },
      font: "12px system-ui, sans-serif",
    };
    return {
      width: 400,
      height: HEIGHT,
      scales: { x: { time: false }, y: range ? { range } : {} },
      axes: [
        { ...axis, size: 32, ...(this.grows ? { incrs: WHOLE } : {}) },
        { ...axis, size: 52 },
      ],
      cursor: { drag: { x: true, y: false } },
      legend: { live: false },
      series: [{ label: this.x }, ...this.lines.map((label, index) => line(label, index, this.grows))],
      hooks: { setScale: [(_, key) => key === "x" && this.showWindow()] },
    };
  }
}

/** The numbers below a chart: a table that is filled when it is opened, and the same as a CSV file. */
export class Numbers {
  constructor(title, columns, rows) {
    this.title = title;
    this.columns = columns;
    this.rows = rows;
    this.body = h("div");
    this.details = h("details", { ontoggle: () => this.refresh() }, h("summary", {}, "Table"), this.body);
    const save = h(
      "button",
      { type: "button", "aria-label": `Download ${title} as CSV`, onclick: () => this.save() },
      "CSV",
    );
    this.element = h("div", { className: "numbers" }, this.details, save);
  }

  refresh() {
    if (!this.details.open) return;
    const rows = this.rows().map((row) => row.map(figure));
    fill(this.body, table(`${this.title}, all numbers`, this.columns, rows));
  }

  save() {
    const lines = [this.columns, ...this.rows()].map((row) => row.map(csvField).join(","));
    const href = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
    h("a", { href, download: `${this.title.replace(/[^\w.-]+/g, "-")}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
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
      const fresh = new LineChart(kind, { x: "step", lines: names, grows: true });
      if (chart) chart.element.replaceWith(fresh.element);
      else this.element.append(fresh.element);
      this.charts.set(kind, fresh);
      chart = fresh;
    }
    const steps = [...new Set(names.flatMap((name) => [...this.points.get(name).keys()]))].sort((a, b) => a - b);
    chart.update([steps, ...names.map((name) => steps.map((step) => this.points.get(name).get(step) ?? null))]);
  }
}

/** A metric's kind: of `train.test_loss` it is `loss`, and losses share a chart. */
function kindOf(name) {
  return name.split(/[._]/).at(-1);
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

/** Quote a field where it must be, and keep spreadsheets from reading text as a formula. */
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
