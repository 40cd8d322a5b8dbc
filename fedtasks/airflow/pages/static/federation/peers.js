/** How the peers are, and whether a run with one of them could start. */

import { get } from "../api.js";
import { button } from "../dialog.js";
import { empty, facts, fill, h, section, table, worded } from "../dom.js";
import { time } from "../times.js";
import { figure, verdict } from "../words.js";

export const word = "Peers";

/** Ask for the peers. */
export const load = () => get("peers");

/** Show each peer with its last preflight, and this party's own certificate. */
export function render({ peers, own }, page) {
  if (!peers.length) return empty("No peer is known; exchange cards and add one: `fedtasks peer add`.");
  const cards = peers.map((peer) => card(peer, page));
  return [section("Peers", ...cards), section("This party", article(own))];
}

function card(peer, page) {
  const pipeline = h("input", { name: "pipeline", maxLength: 64, size: 16 });
  const note = h("span", { role: "status" });
  const run = async () => {
    note.textContent = "looking …";
    try {
      await page.changed("peers/preflight", { peer: peer.name, pipeline: pipeline.value.trim() });
      note.textContent = "";
    } catch (error) {
      fill(note, `${error.code}: ${error.text}. `, worded(error.remedy));
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
}

function article(own) {
  return h(
    "article",
    { "aria-label": `Party ${own.name}` },
    h("h3", {}, own.name),
    facts([["Certificate until", until(own)]]),
  );
}

/** Of several certificates, the one that ends first. */
function until({ certificate_until_ms }) {
  return certificate_until_ms ? time(certificate_until_ms) : "unreadable from here";
}

/** Show how a peer is: its connection, its release, its clock, its certificate. */
export function peerFacts(peer) {
  return [
    h("h3", {}, `${peer.name} `, verdict(peer.connected, "connected", "not connected")),
    facts([
      ["Since", peer.since_ms ? time(peer.since_ms) : null],
      ["Address", peer.address || "it dials us"],
      ["Version", peer.version],
      ["Clock", peer.connected ? `${figure(peer.clock_skew_s)} s off` : null],
      ["Certificate until", until(peer)],
      ["Code", peer.failure?.code],
      ["Why", peer.failure?.text],
      ["Remedy", peer.failure?.remedy ? worded(peer.failure.remedy) : null],
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
