/** What the axes of each kind of number say, and where they begin and end: never so that little looks like much. */

import { figure } from "./words.js";

/** From nothing to all. */
export const SHARE = [0, 1];

const WHOLE = "share (0 – 1)";
const KINDS = {
  auc: ["AUC (0.5 is chance, 1 is best)", fromChance],
  ks: ["K-S distance (0 – 1)", () => SHARE],
  accuracy: [`rows right, ${WHOLE}`, () => SHARE],
  precision: [`precision, ${WHOLE}`, () => SHARE],
  recall: [`recall, ${WHOLE}`, () => SHARE],
  f1: ["F1 (0 – 1)", () => SHARE],
  loss: ["loss per row", fromZero],
  rmse: ["error, in the label's unit", fromZero],
  mae: ["error, in the label's unit", fromZero],
  r2: ["variance explained (1 is all)", (values) => [Math.min(0, ...values), 1]],
};

/** A metric's kind: of `train.test_loss` it is `loss`, and losses share a chart. */
export function kindOf(name) {
  return name.split(/[._]/).at(-1);
}

/** Return the title of a metric's vertical axis, and what gives its range. */
export function scaleOf(name) {
  const [title, bounds] = KINDS[kindOf(name)] ?? [kindOf(name), fromZero];
  return { title, bounds };
}

/** From zero, which is where a bar or a curve begins to mean something, to a little more than the most. */
export function fromZero(values) {
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
  return least === most ? [0, 1] : uPlot.rangeNum(least, most, { min: open(least), max: open(most) });
}

/** Say which part of a scale is drawn. */
export function written([least, most]) {
  return `scale ${figure(least)} – ${figure(most)}`;
}

/** Areas under a curve begin at chance; where one is worse than that, at nothing. */
function fromChance(values) {
  return values.every((value) => value >= 0.5) ? [0.5, 1] : SHARE;
}

function open(end) {
  return { pad: end === 0 ? 0 : 0.1, soft: 0, mode: 1 };
}
