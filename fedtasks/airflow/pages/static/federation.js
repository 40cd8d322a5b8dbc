/** The page in the navigation: what needs a person, and everything that belongs to no single run. */

import { get, poll, post } from "./api.js";
import { ask, button, field, reason } from "./dialog.js";
import { empty, facts, fill, h, section, shown, table } from "./dom.js";
import { runLink } from "./frame.js";
import { icon } from "./icons.js";
import { openPage } from "./page.js";
import { runName, runTable } from "./run_parts.js";
import { clock, count, figure, state, time, verdict } from "./words.js";

const REFRESH_MS = 5_000;
const AUDIT_ROWS = 100;
const NEEDS = {
  gateway_down: ["plug", "Gateway"],
  peer_down: ["plug", "Peer"],
  ticket_expiring: ["wait", "Ticket"],
  ticket_offered: ["mail", "Ticket"],
  ticket_request: ["mail", "Request"],
  approval: ["person", "Approval"],
  run_failed: ["cross", "Run"],
};
const TABS = {
  overview: ["Overview", lookAround, overview],
  tickets: ["Tickets", tickets, ticketTab],
  data: ["Data", () => get("data"), dataTab],
  models: ["Models", () => get("models"), modelTab],
  peers: ["Peers", () => get("peers"), peerTab],
  audit: ["Audit", () => get("audit", { limit: AUDIT_ROWS }), auditTab],
};

// ----------------------------------------------------------------------------------------------------------- overview
/** Ask for the overview without what changes at every look: the page stays still while nothing happens. */
async function lookAround() {
  const found = await get("overview");
  const needs = found.needs.map((each) => ({ ...each, at_ms: each.at_ms === found.now_ms ? null : each.at_ms }));
  return { ...found, needs, now_ms: null, peers: found.peers.map((peer) => ({ ...peer, seen_ms: null })) };
}

function overview(found) {
  return [
    section("Needs you", needs(found)),
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

function needs({ needs: found }) {
  if (!found.length) return empty("Nothing needs you.");
  return h("ul", { className: "needs" }, ...found.map(need));
}

function need(found) {
  const [drawing, word] = NEEDS[found.kind] ?? ["ring", found.kind];
  const since = found.at_ms ? [" · ", time(found.at_ms)] : [];
  return h(
    "li",
    {},
    h("span", { className: "kind" }, icon(drawing), " ", word),
    " ",
    place(found),
    ...since,
    h("div", { className: "note" }, found.remedy),
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

function meter({ label, limit, used }) {
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

function named({ label, text }) {
  return h("span", { title: text }, label);
}

// ------------------------------------------------------------------------------------------------------------ tickets
async function tickets() {
  const [found, { peers }] = await Promise.all([get("tickets"), get("peers")]);
  return { ...found, peers };
}

function ticketTab(found) {
  return [
    h(
      "p",
      {},
      button("Request a ticket …", () => requestTicket(found.peers)),
    ),
    section(
      "Granted by us",
      ticketCards(
        found.granted,
        true,
        "We have granted nothing; a peer's request, or `fedtasks ticket issue`, begins it.",
      ),
    ),
    section(
      "Held by us",
      ticketCards(found.held, false, "We hold no ticket; request one above, and the peer sees it on its page."),
    ),
    section("Requests", requests(found.requests)),
  ];
}

function ticketCards(found, granted, nothing) {
  return found.length ? found.map((ticket) => ticketCard(ticket, granted)) : empty(nothing);
}

function ticketCard(ticket, granted) {
  const title = h("h3", {}, `${ticket.ticket_id} · ${granted ? "for" : "from"} ${ticket.peer} `, state(ticket.state));
  if (ticket.state === "unreadable") return h("article", {}, title, h("p", {}, ticket.why));
  const datasets = ticket.datasets.map(({ name, columns }) => `${name}: ${columns.join(", ") || "no column"}`);
  const limits = ticket.limits.map((each) =>
    h("div", {}, named(each), ": ", each.used === null ? `${count(each.limit)} a run` : meter(each)),
  );
  return h(
    "article",
    { "aria-label": `Ticket ${ticket.ticket_id}` },
    title,
    facts([
      ["Pipelines", ticket.pipelines.join(", ")],
      ["Data", datasets.map((text) => h("div", {}, text))],
      [granted ? `${ticket.peer} is` : "We are", ticket.role],
      ["Expires", clock(ticket.expires_ms)],
      ["Limits", limits.length ? limits : null],
      ["Privacy at least", bounds(ticket.floor)],
      ["Outputs", bounds(ticket.outputs)],
      ["Allows", ticket.warnings.length ? ticket.warnings.map((text) => h("div", {}, `⚠ ${text}.`)) : null],
      ["Approval", ticket.approval === "person" ? "a person of the granting side is asked" : null],
      ["Peer knows", ticket.synced ? "yes" : "not yet"],
    ]),
    ticket.revocable ? button("Revoke …", () => revoke(ticket), `Revoke ticket ${ticket.ticket_id} …`) : null,
    ticket.declinable ? button("Decline …", () => decline(ticket), `Decline ticket ${ticket.ticket_id} …`) : null,
  );
}

function bounds(said) {
  if (!said.length) return null;
  return said.flatMap((each, place) => [place ? ", " : "", named(each), ` ${[each.value].flat().join(" ")}`]);
}

function revoke(ticket) {
  ask(
    `Revoke ticket ${ticket.ticket_id}`,
    `${ticket.peer} can start no run under it any more, and those that go on end. Only a new ticket undoes this.`,
    [reason()],
    (values) => changed("tickets/revoke", { ticket_id: ticket.ticket_id, reason: values.reason }),
  );
}

function decline(ticket) {
  ask(
    `Decline ticket ${ticket.ticket_id}`,
    `${ticket.peer} is told, and nobody here can accept it any more. Only a new ticket undoes this.`,
    [reason()],
    (values) => changed("tickets/decline", { ticket_id: ticket.ticket_id, reason: values.reason }),
  );
}

function requestTicket(peers) {
  const select = (name, options) =>
    h("select", { name, required: true }, ...options.map((text) => h("option", { value: text }, text)));
  ask(
    "Request a ticket",
    "The peer sees the request on its page; a person there grants or declines it.",
    [
      field(
        "Peer",
        select(
          "peer",
          peers.map(({ name }) => name),
        ),
      ),
      field("Pipelines, separated by commas", h("input", { name: "pipelines", required: true })),
      field("The peer's dataset (empty: whichever it offers)", h("input", { name: "dataset", maxLength: 64 })),
      field("We are the", select("role", ["leader", "follower"])),
      field(
        "For how many days",
        h("input", { name: "days", type: "number", min: 1, max: 3650, value: 30, required: true }),
      ),
      reason(),
    ],
    ({ pipelines, days, ...rest }) =>
      changed("tickets/request", {
        ...rest,
        days: Number(days),
        pipelines: pipelines
          .split(",")
          .map((name) => name.trim())
          .filter(Boolean),
      }),
  );
}

function requests(found) {
  if (!found.length) return empty("Nobody has asked for a ticket.");
  const rows = found.map((each) => [
    each.request_id,
    each.asked_by,
    state(each.state),
    each.pipelines.join(", "),
    each.dataset || "any",
    `${each.days} days as ${each.role}`,
    each.reason,
    time(each.at_ms),
  ]);
  return table(
    "Requests for tickets",
    ["request", "asked by", "state", "pipelines", "dataset", "for", "reason", "when"],
    rows,
  );
}

// --------------------------------------------------------------------------------------------------------------- data
function dataTab({ datasets }) {
  if (!datasets.length) return empty("No dataset is declared; add one to party.yaml below datasets.");
  return section(
    "Datasets",
    ...datasets.map((each) =>
      h(
        "article",
        { "aria-label": `Dataset ${each.name} of ${each.party}` },
        h("h3", {}, `${each.name} · ${each.party}`),
        facts([
          ["Columns", each.features.join(", ")],
          ["Label", each.label === null ? null : each.label ? "yes" : "no"],
          ["Waiting for", each.waiting.length ? each.waiting.join(", ") : null],
        ]),
        landed(each),
      ),
    ),
  );
}

function landed(dataset) {
  if (!dataset.partitioned) return empty("It is not cut into partitions: a run reads it as it is.");
  if (!dataset.landed.length)
    return empty("No partition has landed; `fedtasks data land`, or the DAG that writes it, says when one has.");
  const rows = [...dataset.landed].reverse().map((each) => [each.partition, count(each.rows), time(each.at_ms)]);
  return table(`Landed partitions of ${dataset.name}`, ["partition", "rows", "landed"], rows);
}

// ------------------------------------------------------------------------------------------------------------- models
function modelTab({ models }) {
  if (!models.length)
    return empty(
      "No model is published; a pipeline's step publish enters one that is at least as good as the champion.",
    );
  return models.map((model) => {
    const champion = model.versions.find((version) => version.champion);
    const rows = model.versions.map((version) => [
      String(version.version),
      version.champion ? h("span", {}, icon("cup"), " champion") : button(...choice(model, version, champion)),
      runLink(version.dag_id, version.dag_run_id, version.partition),
      version.parent === null ? "fresh" : `version ${version.parent}`,
      Object.entries(version.metrics)
        .map(([name, value]) => `${name} ${figure(value)}`)
        .join(", "),
      digests(version),
      time(version.published_ms),
    ]);
    return section(
      `${model.model} with ${model.peer}`,
      table(
        `Versions of ${model.model}`,
        ["version", "use", "partition", "from", "quality", "digests", "published"],
        rows,
      ),
    );
  });
}

function choice(model, version, champion) {
  const back = champion !== undefined && version.version < champion.version;
  const verb = back ? "Roll back to" : "Promote";
  const title = `${verb} version ${version.version} of ${model.model}`;
  const act = ({ reason: why }) =>
    changed("models/champion", { model: model.model, version: version.version, reason: why });
  const question = () =>
    ask(
      title,
      `${model.peer} is asked to agree; both sides then score with this version, and the next run goes on from it.`,
      [reason()],
      act,
    );
  return [`${back ? "Roll back" : "Promote"} …`, question, `${title} …`];
}

function digests({ own_digest, peer_digest }) {
  return h(
    "span",
    { title: `own half ${own_digest}\npeer's half ${peer_digest}` },
    `${own_digest.slice(0, 8)} / ${peer_digest.slice(0, 8)}`,
  );
}

// -------------------------------------------------------------------------------------------------------------- peers
function peerTab({ peers }) {
  if (!peers.length) return empty("No peer is known; exchange cards and add one: `fedtasks peer add`.");
  return section(
    "Peers",
    ...peers.map((peer) => {
      const pipeline = h("input", { name: "pipeline", maxLength: 64, size: 16 });
      const note = h("span", { role: "status" });
      const run = async () => {
        note.textContent = "looking …";
        try {
          await changed("peers/preflight", { peer: peer.name, pipeline: pipeline.value.trim() });
          note.textContent = "";
        } catch (error) {
          note.textContent = `${error.code}: ${error.text}. ${error.remedy ?? ""}`;
        }
      };
      return h(
        "article",
        { "aria-label": `Peer ${peer.name}` },
        ...peerFacts(peer),
        h(
          "p",
          {},
          h("label", {}, "Pipeline (empty: the connection alone) ", pipeline),
          " ",
          button("Run preflight", run, `Run preflight with ${peer.name}`),
          " ",
          note,
        ),
        peer.checks.length
          ? [h("p", { className: "quiet" }, "Last preflight ", time(peer.checked_ms)), checks(peer)]
          : empty("No preflight yet; it looks at port, certificate, clock, version and the pipeline's DAG."),
      );
    }),
  );
}

function peerCards(peers) {
  return h("div", { className: "halves" }, ...peers.map((peer) => h("article", {}, ...peerFacts(peer))));
}

function peerFacts(peer) {
  return [
    h("h3", {}, `${peer.name} `, verdict(peer.connected, "connected", "not connected")),
    facts([
      ["Since", peer.since_ms ? time(peer.since_ms) : null],
      ["Address", peer.address || "it dials us"],
      ["Version", peer.version],
      ["Clock", peer.connected ? `${figure(peer.clock_skew_s)} s off` : null],
      ["Certificate until", peer.certificate_until_ms ? clock(peer.certificate_until_ms) : "unreadable"],
      ["Code", peer.failure?.code],
      ["Why", peer.failure?.text],
      ["Remedy", peer.failure?.remedy],
    ]),
  ];
}

function checks(peer) {
  const rows = peer.checks.map((check) => [
    check.name,
    verdict(check.ok, "good", "not good"),
    check.code || "–",
    check.text,
  ]);
  return table(`Preflight with ${peer.name}`, ["check", "result", "code", "what was found"], rows);
}

// -------------------------------------------------------------------------------------------------------------- audit
function auditTab(found) {
  const rows = found.rows.map((row) => [
    String(row.seq),
    time(row.at_ms),
    row.actor,
    row.action,
    row.decision,
    written(row.detail),
    row.digest.slice(0, 12),
  ]);
  const chain = h("p", { role: "status" }, verdict(found.chain.ok, found.chain.text, found.chain.text));
  const whole = async () => {
    const all = await get("audit/chain");
    fill(chain, verdict(all.ok, all.text, all.text));
  };
  const older = async () => {
    const more = await get("audit", { limit: AUDIT_ROWS, before: found.rows.at(-1).seq });
    open({ ...more, rows: [...found.rows, ...more.rows] });
  };
  return [
    chain,
    h(
      "p",
      {},
      button("Verify the whole chain", () => attempt(whole)),
    ),
    rows.length
      ? table("Decisions, newest first", ["no.", "when", "who", "what", "decision", "facts", "digest"], rows)
      : empty("No decision has been taken yet."),
    found.more ? button("Older decisions", () => attempt(older)) : null,
  ];
}

function written(values) {
  return Object.entries(values ?? {})
    .filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`)
    .join(", ");
}

// --------------------------------------------------------------------------------------------------------------- tabs
const { body, guarded } = openPage();
const panel = h("div", { id: "panel", role: "tabpanel", tabIndex: 0 });
const links = Object.entries(TABS).map(([name, [word]]) =>
  h("a", { id: `tab-${name}`, href: `#${name}`, role: "tab", "aria-controls": "panel", onkeydown: step }, word),
);
const attempt = guarded((action) => action());
let current = "";
let open = () => {};

/** Do a change, then show how things are now. */
async function changed(path, change) {
  await post(path, change);
  await show();
}

/** Move between tabs by arrow keys. */
function step(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by === undefined) return;
  const next = links[(links.indexOf(event.currentTarget) + by + links.length) % links.length];
  location.hash = next.hash;
  next.focus();
}

function choose() {
  const name = TABS[location.hash.slice(1)] ? location.hash.slice(1) : "overview";
  if (name === current) return;
  current = name;
  for (const link of links) {
    const chosen = link.id === `tab-${name}`;
    link.setAttribute("aria-selected", chosen);
    link.tabIndex = chosen ? 0 : -1;
  }
  panel.setAttribute("aria-labelledby", `tab-${name}`);
  fill(panel, h("p", { className: "quiet loading" }, "Loading …"));
  open = shown(panel, TABS[name][2]);
}

const show = guarded(async () => {
  choose();
  const asked = current;
  const found = await TABS[asked][1]();
  // The newest tab wins, and what a person is typing is left alone.
  if (asked === current && !panel.contains(document.activeElement?.closest("input"))) open(found);
});

fill(
  body,
  h("header", {}, h("h1", {}, "Federation")),
  h("nav", { role: "tablist", "aria-label": "Federation" }, ...links),
  panel,
);
addEventListener("hashchange", show);
poll(REFRESH_MS, async () => (current && current !== "overview" ? undefined : show()));
