/** The page's place in Airflow: its theme, its query, and links to Airflow's own pages. */

import { h } from "./dom.js";

const base = location.pathname.replace(/\/fedtasks\/[^/]*$/, "");
const themeWatchers = [];

/** The page's query, as Airflow filled it in. */
export const query = Object.fromEntries(new URLSearchParams(location.search));

/** Follow Airflow's theme; alone, the one that the system prefers. */
export function followTheme() {
  const outer = parent.document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const told = ["dark", "light"].find((name) => outer !== document.documentElement && outer.classList.contains(name));
    document.documentElement.dataset.theme = told ?? (dark.matches ? "dark" : "light");
    for (const watcher of themeWatchers) watcher();
  };
  new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
  dark.addEventListener("change", apply);
  apply();
}

/** Call a function after each change of the theme. */
export function onTheme(watcher) {
  themeWatchers.push(watcher);
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
