/** The page's place in Airflow: its theme, its query, and links to Airflow's own pages. */

import { h } from "./dom.js";

const base = location.pathname.replace(/\/fedtasks\/[^/]*$/, "");
const themeWatchers = [];

/** Which of Airflow's colours each of ours is; a theme of somebody's own has them too. */
const COLOURS = {
  "--back": "--chakra-colors-bg",
  "--raised": "--chakra-colors-bg-muted",
  "--text": "--chakra-colors-fg",
  "--quiet": "--chakra-colors-fg-muted",
  "--grid": "--chakra-colors-border-emphasized",
};

/** Where the pages live below Airflow's address. */
export const home = `${base}/fedtasks`;

/** The page's query, as Airflow filled it in. */
export const query = Object.fromEntries(new URLSearchParams(location.search));

/** Follow Airflow's theme, colours and font; alone, the theme that the system prefers. */
export function followTheme() {
  const outer = parent.document.documentElement;
  const isFramed = outer !== document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const told = ["dark", "light"].find((name) => isFramed && outer.classList.contains(name));
    document.documentElement.dataset.theme = told ?? (dark.matches ? "dark" : "light");
    if (isFramed) takeOver(outer);
    for (const watcher of themeWatchers) watcher();
  };
  new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
  dark.addEventListener("change", apply);
  apply();
}

function takeOver(outer) {
  const theirs = parent.getComputedStyle(outer);
  const { style } = document.documentElement;
  for (const [ours, name] of Object.entries(COLOURS)) {
    const value = theirs.getPropertyValue(name).trim();
    if (CSS.supports("color", value)) style.setProperty(ours, value);
  }
  style.setProperty("--font", theirs.fontFamily);
}

/** Call a function after each change of the theme. */
export function onTheme(watcher) {
  themeWatchers.push(watcher);
}

/** Have the icon in Airflow's navigation drawn anew: it holds the number of things that need the reader. */
export function refreshBadge() {
  for (const image of parent.document.querySelectorAll('img[src*="/fedtasks/api/badge.svg"]')) {
    const address = new URL(image.src);
    address.searchParams.set("at", Date.now());
    image.src = address.href;
  }
}

/** Make a link to a page of Airflow. */
export function airflowLink(path, text) {
  const href = `${base}/${path}`;
  const leave = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    // The sandbox around the page forbids to navigate the window, but not to click in the document that it shares.
    const outside = parent.document.createElement("a");
    outside.href = href;
    outside.click();
  };
  return h("a", { href, onclick: leave }, text);
}

/** Make a link to our tab of a DAG run. */
export function runLink(dag_id, dag_run_id, text) {
  const path = ["dags", dag_id, "runs", dag_run_id, "plugin", "federated"];
  return airflowLink(path.map(encodeURIComponent).join("/"), text);
}
