/** How good a model is: its curves, and what a threshold on its scores means. */

import { LineChart } from "./charts.js";
import { empty, facts, fill, h, table } from "./dom.js";
import { count, figure, share } from "./words.js";

const UNIT = [0, 1];
const CURVES = [
  [
    "ROC",
    { x: "false positive rate", lines: ["true positive rate", "by chance"], range: UNIT },
    (found) => diagonal(found.roc),
  ],
  [
    "K-S",
    { x: "score", lines: ["positives above", "negatives above"], range: UNIT },
    (found) => columns([...found.ks_curve].reverse()),
  ],
  ["Lift", { x: "share of all rows", lines: ["lift"] }, (found) => columns(found.lift)],
  [
    "Gain",
    { x: "share of all rows", lines: ["positives found", "by chance"], range: UNIT },
    (found) => diagonal(found.gain),
  ],
  ["Precision and recall", { x: "recall", lines: ["precision"], range: UNIT }, (found) => columns(found.pr)],
];
const TOLD = new Set(["bins", "roc", "ks_curve", "lift", "gain", "pr", "champion", "positives", "negatives"]);

/** Show results, or the reason why there are none to see. */
export function results(found) {
  if (found.reason) return [empty(`${capital(found.reason)}.`)];
  return [
    facts(scalars(found)),
    found.bins ? threshold(found.bins) : empty("This run reported no distribution of scores, so there are no curves."),
    found.roc ? h("div", { className: "charts" }, ...CURVES.map((curve) => drawn(curve, found))) : null,
    found.bins && !found.roc ? empty("All test rows have the same label: there is nothing to tell apart.") : null,
  ];
}

/** Name the metrics of a run in one line. */
export function quality(found) {
  return [
    found.auc !== undefined ? `AUC ${figure(found.auc)}` : "",
    found.ks !== undefined ? `K-S ${figure(found.ks)}` : "",
  ]
    .filter(Boolean)
    .join(" · ");
}

function scalars(found) {
  const own = Object.entries(found).filter(([name, value]) => !TOLD.has(name) && typeof value === "number");
  const champion = Object.entries(found.champion ?? {}).map(([name, value]) => [`champion's ${name}`, figure(value)]);
  const rows =
    found.positives === undefined
      ? []
      : [["test rows", `${count(found.positives)} positive, ${count(found.negatives)} negative`]];
  return [...own.map(([name, value]) => [name, figure(value)]), ...champion, ...rows];
}

function drawn([title, axes, points], found) {
  const chart = new LineChart(title, axes);
  chart.update(points(found));
  return chart.element;
}

function columns(points) {
  return points[0].map((_, column) => points.map((point) => point[column]));
}

function diagonal(points) {
  const [x, y] = columns(points);
  return [x, y, x];
}

/** A slider over the bins' thresholds with the confusion matrix that each would mean. */
function threshold(bins) {
  const shown = h("div", { "aria-live": "polite" });
  const label = h("output", { htmlFor: "threshold" });
  const slider = h("input", { id: "threshold", type: "range", min: 0, max: bins.length - 1, step: 1 });
  const show = () => {
    const at = bins.length - 1 - slider.valueAsNumber;
    const cut = figure(bins[at].threshold);
    label.textContent = cut;
    slider.setAttribute("aria-valuetext", `scores from ${cut}`);
    fill(shown, confusion(bins, at));
  };
  slider.value = String(bins.length - 1 - nearest(bins));
  slider.addEventListener("input", show);
  show();
  return h(
    "div",
    { className: "threshold" },
    h("h3", {}, "Threshold"),
    h("label", { htmlFor: "threshold" }, "Counted as positive: scores from "),
    label,
    slider,
    shown,
  );
}

/** The bin whose threshold separates best: there the K-S distance is largest. */
function nearest(bins) {
  const [positives, negatives] = [sum(bins, "positives") || 1, sum(bins, "negatives") || 1];
  let [hits, alarms, best, at] = [0, 0, -1, 0];
  bins.forEach((bin, index) => {
    hits += bin.positives / positives;
    alarms += bin.negatives / negatives;
    if (hits - alarms > best) [best, at] = [hits - alarms, index];
  });
  return at;
}

function confusion(bins, at) {
  const above = bins.slice(0, at + 1);
  const below = bins.slice(at + 1);
  const [tp, fp, fn, tn] = [
    sum(above, "positives"),
    sum(above, "negatives"),
    sum(below, "positives"),
    sum(below, "negatives"),
  ];
  const ratio = (part, whole) => (whole ? share(part / whole) : "–");
  return h(
    "div",
    { className: "confusion" },
    table(
      "Confusion matrix",
      ["label", "predicted positive", "predicted negative"],
      [
        ["is positive", `${count(tp)} right`, `${count(fn)} missed`],
        ["is negative", `${count(fp)} false alarms`, `${count(tn)} right`],
      ],
    ),
    facts([
      ["precision", ratio(tp, tp + fp)],
      ["recall", ratio(tp, tp + fn)],
      ["accuracy", ratio(tp + tn, tp + fp + fn + tn)],
      ["F1", ratio(2 * tp, 2 * tp + fp + fn)],
    ]),
  );
}

function sum(bins, name) {
  return bins.reduce((total, bin) => total + bin[name], 0);
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
