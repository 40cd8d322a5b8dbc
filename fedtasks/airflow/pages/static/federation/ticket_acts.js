/** What can be done about tickets, each after a question that says what it means. */

import { post } from "../api.js";
import { ask, choice, field, reason } from "../dialog.js";
import { fill, h, table, worded } from "../dom.js";

const MAX_DAYS = 3650;
const GROUPS = { limits: "Limits: how much", outputs: "Outputs: who learns what", floor: "Floors: what no run may go below" };
const APPROVALS = [
  ["person", "a person of ours is asked before the first run of its kind"],
  ["automatic", "nobody is asked"],
];

/** Counter-sign what a peer offers, after every clause was shown. */
export function accept(ticket, page) {
  return ask(
    `Accept ticket ${ticket.ticket_id}`,
    `From then on runs with ${ticket.peer} can begin under it, within what it says.`,
    [inWords(ticket.terms, ticket.warnings)],
    () => page.changed("tickets/accept", { ticket_id: ticket.ticket_id }),
    { wide: true },
  );
}

/** Say no to what a peer offers. */
export function decline(ticket, page) {
  return ask(
    `Decline ticket ${ticket.ticket_id}`,
    `${ticket.peer} is told, and nobody here can accept it any more. Only a new ticket undoes this.`,
    [reason()],
    (values) => page.changed("tickets/decline", { ticket_id: ticket.ticket_id, reason: values.reason }),
  );
}

/** Withdraw what this party has granted. */
export function revoke(ticket, page) {
  return ask(
    `Revoke ticket ${ticket.ticket_id}`,
    `${ticket.peer} can start no run under it any more, and those that go on end. Only a new ticket undoes this.`,
    [reason()],
    (values) => page.changed("tickets/revoke", { ticket_id: ticket.ticket_id, reason: values.reason }),
  );
}

/** Ask a peer for a ticket. */
export function request(peers, page) {
  return ask(
    "Request a ticket",
    "The peer sees the request on its page; a person there grants or declines it.",
    [
      field(
        "Peer",
        choice(
          "peer",
          peers.map(({ name }) => name),
        ),
      ),
      field("Pipelines (names, separated by commas)", h("input", { name: "pipelines", required: true })),
      field("The peer's dataset (empty: whichever it offers)", h("input", { name: "dataset", maxLength: 64 })),
      field("We are the", choice("role", ["leader", "follower"])),
      field("Valid for (days)", days(30)),
      reason(),
    ],
    ({ pipelines, days, ...rest }) =>
      page.changed("tickets/request", { ...rest, days: Number(days), pipelines: listed(pipelines) }),
  );
}

/** Say no to a peer that asks for a ticket. */
export function refuse(asked, page) {
  return ask(
    `Decline ${asked.peer}'s request`,
    `${asked.peer} is told at once and reads the reason; it may ask again.`,
    [reason()],
    (values) => page.changed("tickets/refuse", { request_id: asked.request_id, reason: values.reason }),
  );
}

/** Grant what a peer asks for: first what the ticket shall say, then all of it in words, then the signature. */
export function grant(asked, form, page) {
  const place = h("div");
  const showColumns = (name) => fill(place, columns(form.datasets.find((each) => each.name === name)));
  const names = form.datasets.map(({ name }) => name);
  const first = names.includes(asked.dataset) ? asked.dataset : names[0];
  const dataset = choice("dataset", names, first);
  dataset.addEventListener("change", () => showColumns(dataset.value));
  showColumns(first);
  return ask(
    `Grant ${asked.peer} a ticket`,
    `${asked.peer} asks to run ${asked.pipelines.join(", ")} as ${asked.role}. Nothing is signed before you have read all that the ticket says.`,
    [
      field("Dataset of ours", dataset),
      place,
      field("Valid for (days)", days(asked.days)),
      field("Before a run begins", choice("approval", APPROVALS)),
      ...Object.entries(GROUPS).map(([group, title]) => clauses(group, title, form.clauses)),
    ],
    async (values, filled) => {
      const body = {
        request_id: asked.request_id,
        dataset: values.dataset,
        columns: filled.getAll("column"),
        days: Number(values.days),
        approval: values.approval,
        bounds: boundsOf(filled, form.clauses),
      };
      const draft = await post("tickets/draft", body);
      return sign(asked, body, draft, page);
    },
    { confirm: "Read what it says …", wide: true },
  );
}

function sign(asked, body, { terms, warnings }, page) {
  return ask(
    `Grant this ticket to ${asked.peer}`,
    `${asked.peer} may then accept it and begin runs, within what it says. You can revoke it at any time.`,
    [inWords(terms, warnings)],
    () => page.changed("tickets/grant", body),
    { wide: true },
  );
}

/** Show everything that a ticket says in words, a line for each clause; what to beware of stands first. */
function inWords(terms, warnings) {
  const rows = terms.map(({ label, value, text }) => [label, value, worded(text)]);
  return h(
    "div",
    {},
    ...warnings.map((text) => h("p", { className: "warning" }, `⚠ ${text}.`)),
    h("p", { className: "quiet" }, `All ${rows.length} things that it says; scroll to read to the end.`),
    table("What the ticket says", ["clause", "says", "what it is about"], rows),
  );
}

function columns({ columns: names }) {
  const boxes = names.map((name) =>
    h("label", {}, h("input", { type: "checkbox", name: "column", value: name, checked: true }), ` ${name}`),
  );
  return h("fieldset", { className: "columns" }, h("legend", {}, "Columns that may enter a run"), ...boxes);
}

function clauses(group, title, all) {
  const inputs = all.filter((each) => each.group === group).map((each) => field(each.label, input(each), each.text));
  return h("details", {}, h("summary", {}, title), h("div", { className: "clauses" }, ...inputs));
}

/** Make the input of one clause; named columns and numbers without a limit may be left empty. */
function input({ clause, choices, columns: names, least, default: value }) {
  if (choices.length) return choice(clause, choices, value);
  if (names) return h("input", { name: clause, placeholder: "names of columns, separated by commas" });
  return h("input", { name: clause, type: "number", min: least, step: 1, value: value ?? "", placeholder: "no limit" });
}

function boundsOf(filled, all) {
  return Object.fromEntries(all.map((each) => [each.clause, boundOf(each, filled.get(each.clause))]));
}

/** Return what a clause shall say; a limit that is left empty is none, a floor is then what it is by default. */
function boundOf({ group, choices, columns: names, default: value }, text) {
  if (names) return listed(text);
  if (choices.length) return text;
  if (text === "") return group === "limits" ? null : value;
  return Number(text);
}

function days(value) {
  return h("input", { name: "days", type: "number", min: 1, max: MAX_DAYS, value, required: true });
}

function listed(text) {
  return text
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}
