/** The choice among the runs of a DAG that holds several; where it holds one, nothing is shown. */

import { choice } from "./dialog.js";
import { h, part } from "./dom.js";

export class Pipelines {
  /** Call `changed` when somebody has chosen another. */
  constructor(changed) {
    this.chosen = "";
    this.place = part(({ pipelines, pipeline }) => (pipelines.length > 1 ? this.list(pipelines, pipeline) : null));
    this.element = this.place.element;
    this.changed = changed;
  }

  list(pipelines, current) {
    const select = choice(
      "pipeline",
      pipelines.map((name) => [name, name.replace(/^[^.]*\./, "")]),
      current,
    );
    select.addEventListener("change", () => {
      this.chosen = select.value;
      this.changed();
    });
    return h("label", { className: "pipelines" }, "Run of this DAG ", select);
  }

  show({ pipelines, pipeline }) {
    if (pipelines.includes(pipeline)) this.chosen ||= pipeline; // before the first run, it is a guess
    this.place.show({ pipelines, pipeline });
  }
}
