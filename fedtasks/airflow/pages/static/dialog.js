/** A question before something changes: what will happen, why, and a button that says it. */

import { fill, h, problem, worded } from "./dom.js";

let asked = 0;

/**
 * Ask a person and do it.
 *
 * @param {string} title What will be done; also the button's text, unless there is another.
 * @param {string} consequence What that means.
 * @param {Node[]} fields Labelled inputs with names, and what there is to read.
 * @param {(values: object, form: FormData) => Promise<boolean|void>} act Does it; a problem is shown and the question
 *   stays, as it does without one if the answer is false.
 * @param {{confirm?: string, wide?: boolean}} look The button's text; whether there is much to read.
 * @returns {Promise<boolean>} Whether it was done.
 */
export function ask(title, consequence, fields, act, { confirm: word = title, wide = false } = {}) {
  const id = `question-${(asked += 1)}`;
  const failure = h("div");
  const confirm = h("button", { type: "submit", className: "primary" }, word);
  let done = false;
  const submit = async (event) => {
    event.preventDefault();
    confirm.disabled = true;
    fill(failure);
    try {
      const form = new FormData(event.target);
      done = (await act(Object.fromEntries(form), form)) !== false;
      if (done) dialog.close();
    } catch (error) {
      fill(failure, problem(error));
    } finally {
      confirm.disabled = false;
    }
  };
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = h(
    "form",
    { onsubmit: submit },
    h("h2", { id }, title),
    h("p", {}, consequence),
    ...fields,
    failure,
    h("p", { className: "acts" }, confirm, " ", cancel),
  );
  const dialog = h("dialog", { "aria-labelledby": id, className: wide ? "wide" : "" }, form);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(done);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Make a labelled input; the label is above it, and what it means below. */
export function field(label, input, help = "") {
  return h(
    "label",
    { className: "field" },
    h("span", {}, label),
    input,
    help ? h("span", { className: "note" }, worded(help)) : null,
  );
}

/** Make a list to choose from; options are texts, or pairs of a value and its text. */
export function choice(name, options, chosen) {
  const pairs = options.map((each) => [each].flat());
  return h(
    "select",
    { name, required: true },
    ...pairs.map(([value, text = value]) => h("option", { value, selected: value === chosen }, text)),
  );
}

/** Make the input for a reason, without which nothing is changed. */
export function reason() {
  return field(
    "Reason (kept in the audit log; the peer may read it)",
    h("textarea", { name: "reason", required: true, maxLength: 500, rows: 3 }),
  );
}

/** Make a button that opens a question. */
export function button(text, onclick, name = text) {
  return h("button", { type: "button", "aria-label": name, onclick }, text);
}
