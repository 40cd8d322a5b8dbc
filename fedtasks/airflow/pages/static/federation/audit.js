/** Every decision of this party's gateway: looked for, read, verified and exported. */

import { get, save } from "../api.js";
import { button, choice, field } from "../dialog.js";
import { empty, fill, h, table } from "../dom.js";
import { instant, time, zoneName } from "../times.js";
import { verdict } from "../words.js";

export const word = "Audit";

const ROWS = 100;
const OUTCOMES = [
  ["", "any"],
  ["allowed", "allowed"],
  ["refused", "refused"],
  ["noted", "noted"],
];
const KINDS = [
  ["", "anything"],
  ["run", "runs"],
  ["ticket", "tickets"],
  ["request", "requests for tickets"],
  ["use", "uses of a ticket"],
  ["data", "data"],
  ["model", "models"],
  ["lookup", "live lookups"],
  ["peer", "peers"],
  ["session", "sessions"],
];
const COLUMNS = ["no.", "when", "who", "what", "outcome", "facts", "digest"];

/** Ask for the newest decisions, and the peers to choose from. */
export async function load() {
  const [found, { peers }] = await Promise.all([get("audit", { limit: ROWS }), get("peers")]);
  return { ...found, peers: peers.map(({ name }) => name) };
}

/** Show the decisions below what they can be chosen by. */
export function render(found, page) {
  const results = h("div");
  let asked = {};
  const show = (told) => fill(results, decisions(told, older));
  const older = (told) =>
    page.attempt(async () => {
      const more = await get("audit", { limit: ROWS, before: told.rows.at(-1).seq, ...asked });
      show({ ...more, rows: [...told.rows, ...more.rows] });
    });
  const search = (event) => {
    event.preventDefault();
    asked = wanted(new FormData(form));
    page.attempt(async () => show(await get("audit", { limit: ROWS, ...asked })));
  };
  const day = new Date().toISOString().slice(0, 10);
  const exported = () =>
    page.attempt(() => save("audit.csv", wanted(new FormData(form)), `audit-${day}.csv`));
  const form = filters(found.peers, search, exported);
  show(found);
  return [form, results, whole(page)];
}

function filters(peers, onsubmit, exported) {
  return h(
    "form",
    { className: "filters", onsubmit, "aria-label": "Which decisions" },
    field("Peer", choiceOf("peer", [["", "any"], ...peers.map((name) => [name, name])])),
    field("Run", h("input", { name: "run_id", maxLength: 128, placeholder: "its id" })),
    field("What", choiceOf("action", KINDS)),
    field("Outcome", choiceOf("decision", OUTCOMES)),
    field(["From (", zoneName(), ")"], h("input", { name: "since", type: "datetime-local" })),
    field(["Before (", zoneName(), ")"], h("input", { name: "until", type: "datetime-local" })),
    h(
      "p",
      { className: "acts" },
      h("button", { type: "submit", className: "primary" }, "Show"),
      " ",
      button("Export as CSV", exported, "Export the newest 10,000 of these decisions as CSV"),
    ),
  );
}

function choiceOf(name, options) {
  const select = choice(name, options);
  select.required = false;
  return select;
}

/** Return what a filled form asks for, as the API has it. */
function wanted(filled) {
  const { since, until, run_id, ...rest } = Object.fromEntries(filled);
  const found = { ...rest, run_id: run_id.trim(), since_ms: since && instant(since), until_ms: until && instant(until) };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== "" && value !== null));
}

function decisions(told, older) {
  const rows = told.rows.map((row) => [
    String(row.seq),
    time(row.at_ms, { seconds: true }),
    row.actor,
    row.action,
    row.decision,
    written(row.detail),
    row.digest.slice(0, 12),
  ]);
  return [
    h("p", { role: "status" }, verdict(told.chain.ok, told.chain.text, told.chain.text)),
    rows.length
      ? table("Decisions, newest first", COLUMNS, rows)
      : empty("There is no such decision; ask for a longer time, or for fewer things at once."),
    told.more ? button("Older decisions", () => older(told)) : null,
  ];
}

/** Offer to compare every decision with the one before it, which no choice of rows can. */
function whole(page) {
  const told = h("span", { role: "status" });
  const verify = () =>
    page.attempt(async () => {
      const { ok, text } = await get("audit/chain");
      fill(told, verdict(ok, text, text));
    });
  return h("p", { className: "acts" }, button("Verify the whole chain", verify), " ", told);
}

function written(values) {
  return Object.entries(values ?? {})
    .filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${plain(value)}`)
    .join(", ");
}

function plain(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
