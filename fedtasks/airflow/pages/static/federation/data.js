/** This party's datasets and those of peers, with the partitions that have landed. */

import { get } from "../api.js";
import { empty, facts, h, section, table } from "../dom.js";
import { time } from "../times.js";
import { count } from "../words.js";

export const word = "Data";

/** Ask for the datasets. */
export const load = () => get("data");

/** Show each dataset: its columns, what has landed, what is waited for. */
export function render({ datasets }) {
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
