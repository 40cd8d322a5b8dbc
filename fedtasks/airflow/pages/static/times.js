/** Instants, in the time zone that the reader has chosen in Airflow, beside how far off they are. */

import { h } from "./dom.js";

const CHOSEN = "timezone"; // where Airflow's own pages keep the choice
const REFRESH_MS = 5_000;
const DAY_MS = 86_400_000;
const BEYOND = "beyond the calendar";
const LAST_MS = 8.64e15; // what JavaScript can name as a date
const PARTS = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
const writers = new Map();

/** Return the name of the reader's time zone: the one chosen in Airflow, else the browser's, as Airflow does. */
export function zone() {
  try {
    const chosen = JSON.parse(localStorage.getItem(CHOSEN));
    if (typeof chosen === "string" && writerOf(chosen)) return chosen;
  } catch {
    // What is no JSON, or no zone that this browser knows, is no choice.
  }
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** Show an instant, with the zone, beside how long ago it was or how long until then; UTC is in the title. */
export function time(at_ms, { seconds = false } = {}) {
  if (!at_ms) return "–";
  if (!isInstant(at_ms)) return BEYOND;
  const dateTime = new Date(at_ms).toISOString();
  const title = `${dateTime.slice(0, 19).replace("T", " ")} UTC`;
  const shown = h("time", { dateTime, title, "data-seconds": seconds || null }, absolute(at_ms, seconds));
  return h("span", { className: "when" }, shown, " ", h("span", { className: "ago" }, `(${relative(at_ms)})`));
}

/** Show the name of the reader's time zone, also after another was chosen. */
export function zoneName() {
  return h("span", { className: "zone" }, zone());
}

/** Write an instant of an axis that spans so long: the clock, or the day where that spans several. */
export function onAxis(at_ms, span_ms) {
  if (!isInstant(at_ms)) return "";
  const { month, day, hour, minute, second } = wallClock(at_ms);
  if (span_ms > 3 * DAY_MS) return `${month}-${day}`;
  if (span_ms > DAY_MS) return `${month}-${day} ${hour}:${minute}`;
  return span_ms > 5 * 60_000 ? `${hour}:${minute}` : `${hour}:${minute}:${second}`;
}

/** Write an instant of data to the second, with its day. */
export function written(at_ms) {
  return isInstant(at_ms) ? absolute(at_ms, true) : BEYOND;
}

/** Return the instant that a clock in the reader's zone shows as `text`, such as 2026-11-21T03:00; null if it is none. */
export function instant(text) {
  const wall = Date.parse(`${text}Z`);
  if (Number.isNaN(wall) || !isInstant(wall)) return null;
  // The offset is that of the instant itself, which the first guess may miss by a change of the clocks.
  const guess = wall - offset(wall);
  return wall - offset(guess);
}

/** Keep all times on the page right: as they pass, and when another zone is chosen. */
export function keepTimes() {
  const refresh = () => {
    for (const shown of document.querySelectorAll(".when")) {
      const [exact, away] = shown.children;
      const at_ms = Date.parse(exact.dateTime);
      exact.textContent = absolute(at_ms, Boolean(exact.dataset.seconds));
      away.textContent = `(${relative(at_ms)})`;
    }
    for (const shown of document.querySelectorAll(".zone")) shown.textContent = zone();
  };
  setInterval(refresh, REFRESH_MS);
  addEventListener("storage", ({ key }) => key === CHOSEN && refresh());
}

/** Write an instant as 2026-11-21 03:12 CET, without the day where it is today. */
function absolute(at_ms, seconds) {
  const at = wallClock(at_ms);
  const today = wallClock(Date.now());
  const day = `${at.year}-${at.month}-${at.day}`;
  const clock = `${at.hour}:${at.minute}${seconds ? `:${at.second}` : ""} ${at.timeZoneName}`;
  return !seconds && day === `${today.year}-${today.month}-${today.day}` ? clock : `${day} ${clock}`;
}

function wallClock(at_ms) {
  return Object.fromEntries(writerOf(zone()).formatToParts(at_ms).map(({ type, value }) => [type, value]));
}

function writerOf(name) {
  if (!writers.has(name)) {
    const options = { timeZone: name, hourCycle: "h23", timeZoneName: "short", ...PARTS };
    writers.set(name, new Intl.DateTimeFormat("en-GB", options));
  }
  return writers.get(name);
}

/** How far the reader's clock is ahead of UTC at an instant, in milliseconds. */
function offset(at_ms) {
  const { year, month, day, hour, minute, second } = wallClock(at_ms);
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`) - Math.floor(at_ms / 1000) * 1000;
}

function isInstant(at_ms) {
  return Math.abs(at_ms) <= LAST_MS;
}

function relative(at_ms) {
  const away = Date.now() - at_ms;
  if (Math.abs(away) < 2_000) return "now";
  return away > 0 ? `${rough(away)} ago` : `in ${rough(-away)}`;
}

function rough(ms) {
  const s = Math.round(ms / 1000);
  if (s < 90) return `${s} s`;
  if (s < 5_400) return `${Math.round(s / 60)} min`;
  if (s < 129_600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} days`;
}
