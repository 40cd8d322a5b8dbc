/** Every model with its versions, and which of them is in use. */

import { get } from "../api.js";
import { ask, button, reason } from "../dialog.js";
import { empty, h, section, table } from "../dom.js";
import { runLink } from "../frame.js";
import { icon } from "../icons.js";
import { time } from "../times.js";
import { figure } from "../words.js";

export const word = "Models";

/** Ask for the models. */
export const load = () => get("models");

/** Show each model's versions, newest first. */
export function render({ models }, page) {
  if (!models.length)
    return empty(
      "No model is published; a pipeline's step publish enters one that is at least as good as the champion.",
    );
  return models.map((model) => {
    const champion = model.versions.find((version) => version.champion);
    const rows = model.versions.map((version) => [
      String(version.version),
      version.champion ? h("span", {}, icon("cup"), " champion") : button(...promotion(model, version, champion, page)),
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

function promotion(model, version, champion, page) {
  const back = champion !== undefined && version.version < champion.version;
  const verb = back ? "Roll back to" : "Promote";
  const title = `${verb} version ${version.version} of ${model.model}`;
  const act = ({ reason: why }) =>
    page.changed("models/champion", { model: model.model, version: version.version, reason: why });
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
