/** The page in the navigation: what needs a person, and everything that belongs to no single run. */

import { get, poll, post } from "./api.js";
import { fill, h, shown } from "./dom.js";
import * as audit from "./federation/audit.js";
import * as data from "./federation/data.js";
import * as models from "./federation/models.js";
import * as overview from "./federation/overview.js";
import * as peers from "./federation/peers.js";
import * as tickets from "./federation/tickets.js";
import { refreshBadge } from "./frame.js";
import { dismissed } from "./inbox.js";
import { openPage } from "./page.js";

const REFRESH_MS = 5_000;
const COUNT_MS = 30_000;

/** Each tab is a module: its `word`, what it must `load`, and how it is shown by `render(found, page)`. */
const TABS = { overview, tickets, data, models, peers, audit };

const { body, guarded } = openPage();
const panel = h("div", { id: "panel", role: "tabpanel", tabIndex: 0 });
const count = h("span", { className: "count", hidden: true });
const links = Object.entries(TABS).map(([name, { word }]) =>
  h(
    "a",
    { id: `tab-${name}`, href: `#${name}`, role: "tab", "aria-controls": "panel", onkeydown: step },
    word,
    name === "overview" ? [" ", count] : null,
  ),
);
const attempt = guarded((action) => action());
let current = "";
let open = () => {};

/** What tabs may do with the page that they are on. */
const page = {
  /** Do a change, then show how things are now. */
  async changed(path, change) {
    const told = await post(path, change);
    await show();
    await recount();
    refreshBadge();
    return told;
  },
  /** Do something, and show its problem above the page until the next attempt succeeds. */
  attempt: (action) => attempt(action),
  /** Say how many things need the reader. */
  countNeeds,
};

/** Count again where another tab than the one that lists them is open; if that fails, the number stays. */
async function recount() {
  if (current === "overview") return;
  const found = await get("overview").catch(() => null);
  if (found) countNeeds(found.needs);
}

function countNeeds(needs) {
  const gone = dismissed();
  const n = needs.filter(({ key }) => !gone.has(key)).length;
  count.textContent = String(n);
  count.hidden = n === 0;
  count.title = n === 1 ? "1 thing needs you" : `${n} things need you`;
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
  open = shown(panel, (found) => TABS[name].render(found, page));
}

const show = guarded(async () => {
  choose();
  const asked = current;
  const found = await TABS[asked].load();
  if (found.needs) countNeeds(found.needs);
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
poll(COUNT_MS, recount);
