/** Numbers and states in words. */

import { h } from "./dom.js";
import { icon } from "./icons.js";

const STATES = {
  opened: ["play", "Opened"],
  waiting: ["wait", "Waiting"],
  running: ["play", "Running"],
  retrying: ["again", "Tried again"],
  done: ["check", "Done"],
  succeeded: ["check", "Done"],
  failed: ["cross", "Failed"],
  refused: ["stop", "Refused"],
  asked: ["person", "Asked"],
  approved: ["check", "Approved"],
  rejected: ["stop", "Rejected"],
  expired: ["stop", "Expired"],
  accepted: ["check", "Accepted"],
  issued: ["mail", "Offered"],
  revoked: ["stop", "Revoked"],
  unreadable: ["cross", "Unreadable"],
  "not yet valid": ["wait", "Not yet valid"],
  open: ["mail", "Open"],
  granted: ["check", "Granted"],
  declined: ["stop", "Declined"],
};
const BYTES = ["B", "kB", "MB", "GB", "TB"];

/** Show a state as icon and word. */
export function state(name) {
  return h("span", { className: `state ${stateClass(name)}` }, ...inWords(name));
}

/** Return the icon of a state, and words for it: its own, or others that say more. */
export function inWords(name, words) {
  const [drawing, word] = STATES[name] ?? ["ring", String(name)];
  return [icon(drawing), " ", words ?? word];
}

function stateClass(name) {
  return STATES[name] ? name.replaceAll(" ", "-") : "none";
}

/** Show yes and no as icon and word. */
export function verdict(good, yes, no) {
  return h(
    "span",
    { className: `state ${good ? "done" : "failed"}` },
    icon(good ? "check" : "cross"),
    " ",
    good ? yes : no,
  );
}

/** Say how long something took. */
export function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** Say how large something is. */
export function bytes(size) {
  let unit = 0;
  for (; size >= 1000 && unit < BYTES.length - 1; unit += 1) size /= 1000;
  return `${unit && size < 100 ? size.toFixed(1) : Math.round(size)} ${BYTES[unit]}`;
}

/** Write a count with separators, and nothing for what is not known. */
export function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-GB");
}

/** Write a measured value with as many digits as people compare. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) >= 10) return count(value);
  return Math.abs(value) >= 100 ? value.toFixed(1) : Number(value.toFixed(4)).toString();
}

/** Write a share of one as per cent. */
export function share(value) {
  return `${(100 * value).toFixed(1)} %`;
}

/** Say how a half stands: its progress where it tells one, or the code of its failure. */
export function halfNote(half) {
  if (half.code) return half.code;
  const { phase, done, of } = half.progress ?? {};
  const counted = of ? `${count(done ?? 0)} of ${count(of)}` : "";
  return half.state === "running"
    ? [phase, counted].filter(Boolean).join(" ")
    : half.attempt > 1
      ? `attempt ${half.attempt}`
      : "";
}
