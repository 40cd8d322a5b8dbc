/** What this party has granted and what it holds, clause by clause, and who asks for more. */

import { get } from "../api.js";
import { button } from "../dialog.js";
import { empty, facts, h, section, table } from "../dom.js";
import { time } from "../times.js";
import { count, state } from "../words.js";
import { accept, decline, grant, refuse, request, revoke } from "./ticket_acts.js";

export const word = "Tickets";

/** Ask for the tickets, and for what can be asked for and granted. */
export async function load() {
  const [found, { peers }, form] = await Promise.all([get("tickets"), get("peers"), get("tickets/form")]);
  return { ...found, peers, form };
}

/** Show all tickets and requests. */
export function render(found, page) {
  return [
    h(
      "p",
      {},
      button("Request a ticket …", () => request(found.peers, page)),
    ),
    section("Requests", requests(found, page)),
    section(
      "Granted by us",
      cards(
        found.granted,
        true,
        "We have granted nothing; a peer's request, or `fedtasks ticket issue`, begins it.",
        page,
      ),
    ),
    section(
      "Held by us",
      cards(found.held, false, "We hold no ticket; request one above, and the peer sees it on its page.", page),
    ),
  ];
}

/** Over what a limit counts of which nothing adds up here. */
const over = { run: "a run", labels: "% over all runs on the same labels" };

function cards(found, granted, nothing, page) {
  return found.length ? found.map((ticket) => card(ticket, granted, page)) : empty(nothing);
}

function card(ticket, granted, page) {
  const title = h("h3", {}, `${ticket.ticket_id} · ${granted ? "for" : "from"} ${ticket.peer} `, state(ticket.state));
  if (ticket.state === "unreadable") return h("article", {}, title, h("p", {}, ticket.why));
  const datasets = ticket.datasets.map(({ name, columns }) => `${name}: ${columns.join(", ") || "no column"}`);
  const limits = ticket.limits.map((each) =>
    h("div", {}, named(each), ": ", each.used === null ? `${count(each.limit)} ${over[each.per]}` : meter(each)),
  );
  return h(
    "article",
    { "aria-label": `Ticket ${ticket.ticket_id}` },
    title,
    facts([
      ["Pipelines", ticket.pipelines.join(", ")],
      ["Data", datasets.map((text) => h("div", {}, text))],
      [granted ? `${ticket.peer} is` : "We are", ticket.role],
      ["Expires", time(ticket.expires_ms)],
      ["Limits", limits.length ? limits : null],
      ["Our labels", ticket.labels.length ? ticket.labels.map(({ text }) => h("div", {}, text)) : null],
      ["Privacy at least", bounds(ticket.floor)],
      ["Outputs", bounds(ticket.outputs)],
      ["Allows", ticket.warnings.length ? ticket.warnings.map((text) => h("div", {}, `⚠ ${text}.`)) : null],
      ["Approval", ticket.approval === "person" ? "a person of the granting side is asked" : null],
      ["Because", ticket.because || null],
      ["Peer knows", ticket.synced ? "yes" : "not yet"],
    ]),
    acts([
      ticket.declinable && ["Accept", () => accept(ticket, page), `ticket ${ticket.ticket_id}`],
      ticket.declinable && ["Decline", () => decline(ticket, page), `ticket ${ticket.ticket_id}`],
      ticket.revocable && ["Revoke", () => revoke(ticket, page), `ticket ${ticket.ticket_id}`],
    ]),
  );
}

function acts(all) {
  const buttons = all.filter(Boolean).map(([verb, act, what]) => button(`${verb} …`, act, `${verb} ${what} …`));
  return buttons.length ? h("p", { className: "acts" }, ...buttons) : null;
}

function bounds(said) {
  if (!said.length) return null;
  return said.flatMap((each, place) => [place ? ", " : "", named(each), ` ${[each.value].flat().join(" ")}`]);
}

/** Draw how much of a limit is left, beside its numbers. */
export function meter({ label, limit, used }) {
  const left = Math.max(0, limit - used);
  const text = `${count(left)} of ${count(limit)} left`;
  return h(
    "span",
    { className: "budget" },
    h("meter", { min: 0, max: limit, low: limit * 0.1, value: left, "aria-label": `${label}: ${text}` }),
    " ",
    text,
  );
}

/** Name a clause; what it says in full is in the title. */
export function named({ label, text }) {
  return h("span", { title: text }, label);
}

function requests({ requests: found, form }, page) {
  if (!found.length) return empty("Nobody has asked for a ticket.");
  const rows = found.map((each) => [
    each.request_id,
    each.asked_by,
    [state(each.state), answers(each, form, page)],
    each.pipelines.join(", "),
    each.dataset || "any",
    `${each.days} days as ${each.role}`,
    each.reason,
    time(each.at_ms),
  ]);
  const columns = ["request", "asked by", "state", "pipelines", "dataset", "for", "reason", "when"];
  return table("Requests for tickets", columns, rows);
}

/** What can be answered to a request: of a peer that nobody has answered yet. */
function answers(asked, form, page) {
  if (asked.state !== "open" || asked.asked_by !== asked.peer) return null;
  return acts([
    form.datasets.length > 0 && ["Grant", () => grant(asked, form, page), `request ${asked.request_id}`],
    ["Decline", () => refuse(asked, page), `request ${asked.request_id}`],
  ]);
}
