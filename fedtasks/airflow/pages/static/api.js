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

/** Fetch a file of the API and hand it to the browser to be saved. */
export async function save(path, parameters, name) {
  const query = new URLSearchParams(parameters).toString();
  const answer = await reach(`api/${path}?${query}`, {});
  if (!answer.ok) throw await refusal(answer);
  handOver(await answer.blob(), name);
}

/** Hand a file to the browser to be saved. */
export function handOver(blob, name) {
  const href = URL.createObjectURL(blob);
  const link = document.createElement("a");
  Object.assign(link, { href, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
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
  const answer = await reach(address, options);
  if (!answer.ok) throw await refusal(answer);
  return answer.json().catch(() => ({}));
}

async function reach(address, options) {
  try {
    return await fetch(address, { credentials: "same-origin", ...options });
  } catch {
    throw new Problem(UNREACHABLE);
  }
}

async function refusal(answer) {
  const found = await answer.json().catch(() => ({}));
  return new Problem({ code: found.code ?? `HTTP ${answer.status}`, text: found.text ?? answer.statusText, ...found });
}
