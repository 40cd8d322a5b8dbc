/** What a reader has dismissed, kept in their browser: a cookie, so that the icon in the navigation can count the rest. */

import { home } from "./frame.js";

const NAME = "fedtasks_dismissed";
const MOST = 100; // the oldest are forgotten
const YEAR_S = 31_536_000;

/** Return the keys of what was dismissed. A need in another state has another key, and so comes back. */
export function dismissed() {
  return new Set(kept());
}

/** Dismiss a need. */
export function dismiss(key) {
  keep([...kept().filter((each) => each !== key), key].slice(-MOST));
}

/** Put a need back into the inbox. */
export function restore(key) {
  keep(kept().filter((each) => each !== key));
}

function kept() {
  const found = document.cookie.split("; ").find((each) => each.startsWith(`${NAME}=`));
  return (found?.slice(NAME.length + 1) ?? "").split(".").filter((key) => /^[0-9a-f]{12}$/.test(key));
}

function keep(keys) {
  const secure = location.protocol.startsWith("https") ? "; Secure" : "";
  document.cookie = `${NAME}=${keys.join(".")}; Path=${home}; Max-Age=${YEAR_S}; SameSite=Strict${secure}`;
}
