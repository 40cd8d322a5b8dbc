/** Elements made from values: text stays text, and no markup is ever read. */

import { icon } from "./icons.js";

/**
 * Make an element.
 *
 * Properties that begin with "on" are listeners, those with a dash and "role" are attributes, all others are set as
 * the element's own. Children are nodes or text; null and false are left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...present(children));
  return element;
}

/** Make an SVG element; all properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...present(children));
  return element;
}

/** Replace what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

/**
 * Return a function that shows a value in an element, and leaves the element alone while the value is the same, or
 * that part of it which `pick` returns: a table that somebody has opened stays open.
 */
export function shown(element, render, pick = (value) => value) {
  let last;
  return (value) => {
    const now = JSON.stringify(pick(value));
    if (now === last) return;
    last = now;
    fill(element, ...[render(value)].flat(Infinity));
  };
}

/** Make a place on the page that shows a value as `shown` does. */
export function part(render, pick) {
  const element = h("div");
  return { element, show: shown(element, render, pick) };
}

/** Make a section with a heading. */
export function section(title, ...children) {
  return h("section", {}, h("h2", {}, title), ...children);
}

/** Make a table that can be scrolled sideways by keyboard; rows are lists of cells, the first names the row. */
export function table(caption, columns, rows) {
  const cell = (value, index) => h(index === 0 ? "th" : "td", index === 0 ? { scope: "row" } : {}, value);
  return h(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { className: "unseen" }, caption),
      h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell)))),
    ),
  );
}

/** Make a list of terms and what they are; pairs whose value is null or empty are left out. */
export function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", {}, ...told.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, ...[value].flat()))));
}

/** Return text of our own as nodes; what stands between backticks is code. Text of the peer never comes here. */
export function worded(text) {
  return (text ?? "").split("`").map((each, index) => (index % 2 ? h("code", {}, each) : each));
}

/** Say why there is nothing to see and what comes next. */
export function empty(text) {
  return h("p", { className: "empty" }, worded(text));
}

/** Show what went wrong, with its code and remedy. */
export function problem({ code, text, remedy }) {
  return h(
    "div",
    { className: "problem", role: "alert" },
    h("strong", {}, icon("cross"), " ", code),
    h("p", {}, text),
    remedy ? h("p", {}, "Remedy: ", worded(remedy)) : null,
  );
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}
