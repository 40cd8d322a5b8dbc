/** The numbers below a chart: a table that is filled when it is opened, and the same as a CSV file. */

import { handOver } from "./api.js";
import { fill, h, table } from "./dom.js";
import { figure } from "./words.js";

export class Numbers {
  constructor(title, columns, rows) {
    this.title = title;
    this.columns = columns;
    this.rows = rows;
    this.body = h("div");
    this.details = h("details", { ontoggle: () => this.refresh() }, h("summary", {}, "Table"), this.body);
    const save = h(
      "button",
      { type: "button", "aria-label": `Download ${title} as CSV`, onclick: () => this.save() },
      "CSV",
    );
    this.element = h("div", { className: "numbers" }, this.details, save);
  }

  refresh() {
    if (!this.details.open) return;
    const rows = this.rows().map((row) => row.map((value) => (typeof value === "string" ? value : figure(value))));
    fill(this.body, table(`${this.title}, all numbers`, this.columns, rows));
  }

  save() {
    const lines = [this.columns, ...this.rows()].map((row) => row.map(csvField).join(","));
    const name = `${this.title.replace(/[^\w.-]+/g, "-")}.csv`;
    handOver(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }), name);
  }
}

/** Quote a field where it must be, and keep spreadsheets from reading text as a formula. */
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
