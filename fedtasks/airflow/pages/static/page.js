/** What all pages begin with: theme, times that stay right, and a place for problems above everything else. */

import { Problem } from "./api.js";
import { fill, h, problem, shown } from "./dom.js";
import { followTheme } from "./frame.js";
import { keepTimes } from "./times.js";

/**
 * Open the page.
 *
 * @returns {{body: HTMLElement, guarded: (action: Function) => Function}} Where the content goes, and what makes an
 *   action show its problem until it succeeds.
 */
export function openPage() {
  followTheme();
  keepTimes();
  const body = h("div");
  const problems = h("div");
  fill(document.getElementById("page"), problems, body);
  const guarded = (action) => {
    const place = h("div");
    const show = shown(place, (found) => (found ? problem(found) : []));
    problems.append(place);
    return async (...given) => {
      try {
        await action(...given);
        show(null);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        body.querySelector(".loading")?.remove();
        show({ code: error.code, text: error.text, remedy: error.remedy });
      }
    };
  };
  fill(body, h("p", { className: "quiet loading" }, "Loading …"));
  return { body, guarded };
}
