/** The pages' JSON API: the session's cookie goes along, and what fails is a problem with code, text and remedy. */

/** What the API refused, or that it cannot be reached. */
export class Problem extends Error {
  constructor({ code, text, remedy }) {
    super(text);
    Object.assign(this, { code, text, remedy });
  }
}

const UNREACHABLE = {
  code: "AIRFLOW_UNREACHABLE",
  text: "Airflow does not answer; what is shown may be old",
  remedy: "Check that Airflow's api-server runs; the page tries again by itself",
};

/** Ask for facts. */
export function get(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return ask(query ? `api/${path}?${query}` : `api/${path}`, {});
}

/** Change something. */
export function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Fedtasks": "1" };
  return ask(`api/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Call a function now and again and again, each time after the last has ended, while the page is seen. */
export function poll(every_ms, action) {
  const round = async () => {
    if (!document.hidden) await action();
    setTimeout(round, every_ms);
  };
  return round();
}

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, { credentials: "same-origin", ...options });
  } catch {
    throw new Problem(UNREACHABLE);
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  throw new Problem({ code: found.code ?? `HTTP ${answer.status}`, text: found.text ?? answer.statusText, ...found });
}
