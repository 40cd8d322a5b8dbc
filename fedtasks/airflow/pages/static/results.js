/** How good a model is: its figures, its curves, what a threshold on its scores means, and which features count. */

import { LineChart } from "./charts.js";
import { empty, facts, fill, h, svg, table } from "./dom.js";
import { fromZero, SHARE } from "./scales.js";
import { count, figure, share } from "./words.js";

const ROWS = {
  x: "share of all rows",
  xTitle: "share of all rows, highest scores first (0 – 1)",
  xBounds: SHARE,
};
const CURVES = [
  [
    "ROC",
    {
      x: "false positive rate",
      xTitle: "false positive rate (share of negatives, 0 – 1)",
      xBounds: SHARE,
      yTitle: "share of positives found",
      lines: ["true positive rate", "by chance"],
      bounds: SHARE,
    },
    (found) => diagonal(found.roc),
  ],
  [
    "K-S",
    {
      x: "score",
      xTitle: "score (predicted probability, 0 – 1)",
      xBounds: SHARE,
      yTitle: "share of the class below",
      lines: ["positives below", "negatives below"],
      bounds: SHARE,
    },
    (found) => columns(found.ks_curve),
    gap,
  ],
  [
    "Lift",
    { ...ROWS, yTitle: "positives, times chance", lines: ["lift"], bounds: fromZero },
    (found) => columns(found.lift),
  ],
  [
    "Gain",
    { ...ROWS, yTitle: "share of positives found", lines: ["positives found", "by chance"], bounds: SHARE },
    (found) => diagonal(found.gain),
  ],
  [
    "Precision and recall",
    {
      x: "recall",
      xTitle: "recall (share of positives found, 0 – 1)",
      xBounds: SHARE,
      yTitle: "precision (share of hits)",
      lines: ["precision"],
      bounds: SHARE,
    },
    (found) => columns(found.pr),
  ],
];
const TOLD = new Set(["bins", "roc", "ks_curve", "ks_at", "lift", "gain", "pr", "champion", "positives", "negatives"]);
/** What names a model's quality in one line: of a label of two classes, of a number, of several classes. */
const HEADLINES = [
  { auc: "AUC", ks: "K-S" },
  { rmse: "RMSE", r2: "R²" },
  { accuracy: "accuracy", log_loss: "log loss" },
];
const BAR = 10;

/** Show results, or the reason why there are none to see; and what the model goes by. */
export function results(found) {
  const features = found.importance?.length ? importance(found.importance) : null;
  if (found.reason) return [empty(`${capital(found.reason)}.`), features];
  return [facts(scalars(found)), scoreParts(found), groups(found), classes(found), features];
}

/** Name the metrics of a run in one line. */
export function quality(found) {
  const names = HEADLINES.find((each) => Object.keys(each).some((name) => found[name] !== undefined)) ?? {};
  return Object.entries(names)
    .filter(([name]) => found[name] !== undefined)
    .map(([name, word]) => `${word} ${figure(found[name])}`)
    .join(" · ");
}

/** What depends on how scores are spread, which only labels of two classes have. */
function scoreParts(found) {
  if (!found.bins)
    return found.auc === undefined
      ? empty("Curves and a threshold are there for a label of two classes only.")
      : empty("This run reported no distribution of scores, so there are no curves.");
  return [
    threshold(found.bins),
    found.roc
      ? h("div", { className: "charts" }, ...CURVES.map((curve) => drawn(curve, found)))
      : empty("All test rows have the same label: there is nothing to tell apart."),
  ];
}

/** By tenths of the rows, from low scores to high: what was predicted and what came true. */
function groups({ groups: found, bins, rmse }) {
  if (!found?.length) return null;
  const [title, score, label] = [
    ["Calibration by tenths of the test rows", "mean score", "share of positives"],
    ["Calibration by tenths of the test rows", "mean probability of the likeliest class", "share that is right"],
    ["Error by tenths of the test rows", "mean prediction", "mean label"],
  ][rmse !== undefined ? 2 : bins ? 0 : 1];
  const rows = found.map((each) => [
    figure(each.lowest),
    count(each.rows),
    figure(each.mean_score),
    figure(each.mean_label),
    figure(each.mean_score - each.mean_label),
  ]);
  return h(
    "div",
    { className: "breakdown" },
    h("h3", {}, title),
    table(title, ["scores from", "test rows", score, label, "too high by"], rows),
  );
}

/** Which class is taken for which. */
function classes({ classes: names, confusion: counts }) {
  if (!names) return null;
  const title = "Confusion of classes";
  const rows = counts.map((row, place) => [names[place], ...row.map(count)]);
  return h(
    "div",
    { className: "breakdown" },
    h("h3", {}, title),
    h("p", { className: "quiet" }, "Test rows by their label (down) and by the likeliest class (across)."),
    table(title, ["label", ...names.map((name) => `predicted ${name}`)], rows),
  );
}

/** Show which features count most, each with its number and a bar. */
function importance(features) {
  const by = features[0].gain === undefined ? "splits" : "gain";
  const most = Math.max(...features.map((each) => each[by]));
  const rows = features.map((each) => [each.feature, figure(each[by]), bar(most > 0 ? each[by] / most : 0)]);
  const told =
    by === "gain"
      ? "Gain is how much all splits on a feature improved the loss. The peer's features are numbers that only the " +
        "peer can read."
      : "So many splits use each feature of this side. What they gained, and the label holder's own features, only " +
        "the label holder sees.";
  return h(
    "div",
    { className: "importance" },
    h("h3", {}, "Which features count"),
    h("p", { className: "quiet" }, told),
    table("Which features count", ["feature", by, "beside the first"], rows),
  );
}

function bar(share) {
  const width = `${(100 * share).toFixed(1)}%`;
  return svg(
    "svg",
    { width: "100%", height: BAR, role: "img", "aria-label": `${Math.round(100 * share)} % of the first` },
    svg("rect", { class: "work", width, height: BAR }),
  );
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

function drawn([title, axes, points, mark], found) {
  const chart = new LineChart(title, axes);
  chart.update(points(found), { mark: mark?.(found) });
  return chart.element;
}

/** Where the shares of both classes are furthest apart. */
function gap({ ks, ks_at: [x, to, from] }) {
  return { x, from, to, text: `gap ${figure(ks)} at score ${figure(x)}` };
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
