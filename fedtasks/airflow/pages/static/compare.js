/** The tab of a DAG: its runs by partition, what was set otherwise, and how good each was. */

import { get, poll } from "./api.js";
import { LineChart } from "./charts.js";
import { empty, fill, h, part, section, table } from "./dom.js";
import { query, runLink } from "./frame.js";
import { icon } from "./icons.js";
import { openPage } from "./page.js";
import { Pipelines } from "./pipelines.js";
import { scaleOf, SHARE } from "./scales.js";
import { figure, state } from "./words.js";

const COMPARE_MS = 10_000;
const SHOWN_METRICS = 6;
const OVERLAID = 4;
const COMPARABLE = /^evaluate\./;

/** The trend of each metric over partitions, drawn once and kept. */
class Trends {
  constructor() {
    this.charts = new Map();
    this.element = h("div", { className: "charts" });
  }

  show(partitions) {
    for (const name of metricNames(partitions)) {
      let chart = this.charts.get(name);
      if (!chart) {
        const { title: yTitle, bounds } = scaleOf(name);
        const title = name.replace(COMPARABLE, "");
        const axes = { x: "partition", xTitle: "partition of the run", yTitle, lines: [title], bounds, grows: true };
        chart = new LineChart(title, axes);
        this.charts.set(name, chart);
        this.element.append(chart.element);
      }
      const values = partitions.map(({ metrics }) => metrics[name] ?? null);
      chart.update([partitions.map((_, index) => index + 1), values], { labels: partitions.map(runLabel) });
    }
  }
}

/** The ROC of the champion over those of the newest runs that were evaluated; made anew when these are others. */
class Overlay {
  constructor(pipeline) {
    this.pipeline = pipeline;
    this.element = h("div", { className: "charts" });
  }

  async show(partitions) {
    const evaluated = partitions.filter(({ metrics }) => Object.keys(metrics).some((name) => COMPARABLE.test(name)));
    const newest = evaluated.slice(-OVERLAID);
    const champion = evaluated.find((each) => each.champion);
    const chosen = champion && !newest.includes(champion) ? [champion, ...newest.slice(1)] : newest;
    const key = JSON.stringify(chosen.map(({ run_id, champion }) => [run_id, champion]));
    if (key === this.key) return;
    this.key = key;
    const found = await Promise.all(
      chosen.map(({ dag_run_id }) =>
        get("results", { dag_id: query.dag_id, dag_run_id, pipeline: this.pipeline }),
      ),
    );
    const drawn = chosen.map((each, index) => ({ ...each, roc: found[index].roc })).filter(({ roc }) => roc);
    fill(this.element, drawn.length ? overlaid(drawn) : null);
  }
}

function overlaid(runs) {
  const lines = runs.map((each) => (each.champion ? `${runLabel(each)} (champion)` : runLabel(each)));
  const chart = new LineChart("ROC of the newest runs", {
    x: "false positive rate",
    xTitle: "false positive rate (share of negatives, 0 – 1)",
    xBounds: SHARE,
    yTitle: "share of positives found",
    lines,
    bounds: SHARE,
  });
  const rates = [...new Set(runs.flatMap(({ roc }) => roc.map(([rate]) => rate)))].sort((a, b) => a - b);
  chart.update([rates, ...runs.map(({ roc }) => rates.map((rate) => heightAt(roc, rate)))]);
  return chart.element;
}

/** Order runs by partition, as its name counts: a day that is made up for stands where it belongs. */
function inOrder(one, other) {
  return one.partition.localeCompare(other.partition, "en", { numeric: true }) || one.number - other.number;
}

/** Name a run by its partition; one that did it again, by its number too. */
function runLabel({ partition, number }) {
  return number > 1 ? `${partition} (${number})` : partition;
}

/** The highest point of a curve at a horizontal place, on the straight line between its points. */
function heightAt(points, at) {
  const right = points.findIndex(([x]) => x > at);
  const [x0, y0] = points[right < 0 ? points.length - 1 : right - 1];
  if (right < 0 || x0 === at) return y0;
  const [x1, y1] = points[right];
  return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
}

/** The metrics that say how good a model is, those that most runs have first. */
function metricNames(partitions) {
  const seen = new Map();
  for (const { metrics } of partitions) {
    for (const name of Object.keys(metrics)) if (COMPARABLE.test(name)) seen.set(name, (seen.get(name) ?? 0) + 1);
  }
  return [...seen].sort(([one, often], [two, other]) => other - often || one.localeCompare(two)).map(([name]) => name);
}

function changes(partitions) {
  const rows = partitions.flatMap((each) =>
    each.settings_changed.map(({ field, from, to }) => [link(each), field, plain(from), plain(to)]),
  );
  if (!rows.length) return empty("All runs shown were configured alike.");
  return table("What was set otherwise", ["since run", "setting", "before", "then"], rows.reverse());
}

function runs(partitions) {
  const names = metricNames(partitions).slice(0, SHOWN_METRICS);
  const rows = partitions.map((each) => [
    link(each),
    h("span", {}, state(each.state), each.code ? ` ${each.code}` : ""),
    each.champion ? h("span", {}, icon("cup"), " champion") : each.version ? `version ${each.version}` : "–",
    ...names.map((name) => figure(each.metrics[name])),
  ]);
  return table(
    "Runs by partition",
    ["partition", "state", "model", ...names.map((name) => name.replace(COMPARABLE, ""))],
    rows.reverse(),
  );
}

function link(each) {
  return runLink(query.dag_id, each.dag_run_id, runLabel(each));
}

function plain(value) {
  if (value === null || value === undefined) return "(not set)";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** The runs of one pipeline; made once and then kept, so that zooms stay. */
class ComparePage {
  constructor(pipeline) {
    this.pipeline = pipeline;
    this.trends = new Trends();
    this.overlay = new Overlay(pipeline);
    this.difference = part(changes);
    this.list = part(runs);
    this.noTrend = h("div");
    this.element = [
      section("What was set otherwise", this.difference.element),
      section("How good each run was", this.noTrend, this.overlay.element, this.trends.element),
      section("Runs", this.list.element),
    ];
  }

  async show(partitions) {
    const byPartition = [...partitions].sort(inOrder);
    this.difference.show(partitions);
    this.trends.show(byPartition);
    await this.overlay.show(partitions);
    fill(
      this.noTrend,
      this.trends.charts.size
        ? null
        : empty("This side sees no evaluation of these runs: the ticket's outputs say who may."),
    );
    this.list.show(byPartition);
  }
}

function main() {
  const { body, guarded } = openPage();
  const heading = h("header", {}, h("h1", {}, `${query.dag_id} over time`));
  let open = null;
  const load = guarded(async () => {
    const found = await get("compare", { dag_id: query.dag_id, pipeline: pipelines.chosen });
    if (pipelines.chosen && found.pipeline !== pipelines.chosen) return; // somebody has chosen another since
    if (!found.partitions.length) {
      fill(
        body,
        heading,
        empty("No run of this DAG has been opened with a peer yet; trigger it, and its runs are compared here."),
      );
      return;
    }
    pipelines.show(found);
    if (open?.pipeline !== found.pipeline) {
      open = new ComparePage(found.pipeline);
      fill(body, heading, pipelines.element, ...open.element);
    }
    await open.show(found.partitions);
  });
  const pipelines = new Pipelines(load);
  poll(COMPARE_MS, load);
}

main();
