/** The morning look: what needs the reader, what runs and waits, how the peers are, how much is left. */

import { get } from "../api.js";
import { button } from "../dialog.js";
import { empty, fill, h, section, table, worded } from "../dom.js";
import { refreshBadge, runLink } from "../frame.js";
import { icon } from "../icons.js";
import { dismiss, dismissed, restore } from "../inbox.js";
import { runName, runTable } from "../run_parts.js";
import { time } from "../times.js";
import { peerFacts } from "./peers.js";
import { meter, named } from "./tickets.js";

export const word = "Overview";

const NEEDS = {
  gateway_down: ["plug", "Gateway"],
  gateway_outdated: ["plug", "Gateway"],
  airflow_incomplete: ["plug", "Airflow"],
  peer_down: ["plug", "Peer"],
  clock_skew: ["wait", "Clock"],
  store_restored: ["plug", "Store"],
  certificate_expiring: ["wait", "Certificate"],
  ticket_expiring: ["wait", "Ticket"],
  ticket_offered: ["mail", "Ticket"],
  ticket_request: ["mail", "Request"],
  approval: ["person", "Approval"],
  run_failed: ["cross", "Run"],
};

/** Ask for the overview without what changes at every look: the page stays still while nothing happens. */
export async function load() {
  const found = await get("overview");
  const needs = found.needs.map((each) => ({ ...each, at_ms: each.at_ms === found.now_ms ? null : each.at_ms }));
  return { ...found, needs, now_ms: null, peers: found.peers.map((peer) => ({ ...peer, seen_ms: null })) };
}

export function render(found, page) {
  return [
    section("Needs you", inbox(found.needs, page)),
    section(
      "Running and waiting",
      runsOf("Running and waiting", found.running, "Nothing runs; trigger a federated DAG, and it is listed here."),
    ),
    section(
      "Peers",
      found.peers.length ? peerCards(found.peers) : empty("No peer is known; add one: `fedtasks peer add`."),
    ),
    section("Budget left", budgets(found.budgets)),
    section("Recent runs", runsOf("Recent runs", found.recent, "No run has ended yet.")),
  ];
}

/** List what needs the reader; what they have dismissed is folded away until its state changes. */
function inbox(needs, page) {
  const place = h("div");
  const show = () => {
    const gone = dismissed();
    const open = needs.filter(({ key }) => !gone.has(key));
    const folded = needs.filter(({ key }) => gone.has(key));
    const change = (act) => (key) => {
      act(key);
      show();
      page.countNeeds(needs);
      refreshBadge();
    };
    fill(
      place,
      open.length ? list(open, "Dismiss", change(dismiss)) : empty("Nothing needs you."),
      folded.length
        ? h(
            "details",
            {},
            h("summary", {}, `${folded.length} dismissed; each comes back when its state changes`),
            list(folded, "Put back", change(restore)),
          )
        : null,
    );
  };
  show();
  return place;
}

function list(found, word, act) {
  return h("ul", { className: "needs" }, ...found.map((each) => need(each, word, act)));
}

function need(found, word, act) {
  const [drawing, kind] = NEEDS[found.kind] ?? ["ring", found.kind];
  return h(
    "li",
    {},
    h(
      "div",
      { className: "what" },
      h("div", {}, h("span", { className: "kind" }, icon(drawing), " ", kind), " ", place(found)),
      found.at_ms ? h("div", { className: "note" }, time(found.at_ms)) : null,
      h("div", { className: "note" }, worded(found.remedy)),
    ),
    button(word, () => act(found.key), `${word}: ${found.text}`),
  );
}

function place({ link, text }) {
  if (link.dag_id) return runLink(link.dag_id, link.dag_run_id, text);
  return link.tab ? h("a", { href: `#${link.tab}` }, text) : text;
}

function runsOf(caption, runs, nothing) {
  return runs.length
    ? runTable(caption, runs, (run) => runLink(run.dag_id, run.dag_run_id, runName(run)))
    : empty(nothing);
}

function budgets(found) {
  if (!found.length) return empty("No accepted ticket has a limit that adds up.");
  const rows = found.map((each) => [
    `${each.ticket_id} (${each.granted ? `granted to ${each.peer}` : `from ${each.peer}`})`,
    named(each),
    meter(each),
  ]);
  return table("Budget left", ["ticket", "limit", "left"], rows);
}

function peerCards(peers) {
  return h("div", { className: "halves" }, ...peers.map((peer) => h("article", {}, ...peerFacts(peer))));
}
