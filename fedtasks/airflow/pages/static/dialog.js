/** A question before something changes: what will happen, why, and a button that says it. */

import { fill, h, problem } from "./dom.js";

/**
 * Ask a person and do it.
 *
 * @param {string} title What will be done; also the button's text.
 * @param {string} consequence What that means.
 * @param {HTMLElement[]} fields Labelled inputs with names.
 * @param {(values: object) => Promise<void>} act Does it; a problem is shown and the question stays.
 */
export function ask(title, consequence, fields, act) {
  const failure = h("div");
  const confirm = h("button", { type: "submit", className: "primary" }, title);
  const heading = h("h2", { id: "question" }, title);
  const submit = async (event) => {
    event.preventDefault();
    confirm.disabled = true;
    try {
      await act(Object.fromEntries(new FormData(event.target)));
      dialog.close();
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
    heading,
    h("p", {}, consequence),
    ...fields,
    failure,
    h("p", {}, confirm, " ", cancel),
  );
  const dialog = h("dialog", { "aria-labelledby": "question", onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
}

/** Make a labelled input; the label is above it. */
export function field(label, input) {
  return h("label", { className: "field" }, h("span", {}, label), input);
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
