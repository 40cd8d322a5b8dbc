/** Small drawings beside words; no font is needed, and assistive technology reads the words alone. */

import { svg } from "./dom.js";

const PATHS = {
  check: "M3 8.5l3.5 3.5L13 4.5",
  cross: "M4 4l8 8M12 4l-8 8",
  wait: "M4 2h8M4 14h8M5 2c0 4 6 4 6 6s-6 2-6 6M11 2c0 4-6 4-6 6s6 2 6 6",
  play: "M5 3l8 5-8 5z",
  again: "M12.7 6A5 5 0 1 0 13 9M13 2.5V6H9.5",
  stop: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM4 4l8 8",
  mail: "M2 4h12v8H2zM2 4l6 5 6-5",
  person: "M8 8a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM3 14c0-3 2-5 5-5s5 2 5 5",
  plug: "M6 2v4M10 2v4M4 6h8v2a4 4 0 0 1-8 0zM8 12v3",
  cup: "M5 2h6v4a3 3 0 0 1-6 0zM5 3H2c0 3 1 4 3 4M11 3h3c0 3-1 4-3 4M8 9v4M5 14h6",
  ring: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
};

/** Draw an icon in the colour and size of the text around it. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
}
